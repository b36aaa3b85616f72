// nova.objects.Diagnostics: the answer to get_instance_diagnostics, which the API shows from microversion 2.48 on.
import JSON

/// Counters of a guest in the shape the API has for them; nil where there is nothing to count.
package struct Diagnostics: NovaObject {
    package static let objectName = "Diagnostics"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    package struct Interface: Sendable {
        package var macAddress: String?
        package var receivedOctets: Int?, receivedPackets: Int?, receiveErrors: Int?, receiveDrops: Int?
        package var sentOctets: Int?, sentPackets: Int?, sendErrors: Int?, sendDrops: Int?
        package init() {}
    }

    package struct Disk: Sendable {
        package var readBytes: Int?, readRequests: Int?, writeBytes: Int?, writeRequests: Int?, errors: Int?
        package init() {}
    }

    /// `state` is the word of the power state ("running"); `driver` one of Nova's enumeration, where "libvirt" is the only
    /// value that means a KVM host.
    package init(
        state: String, uptimeSeconds: Int?, hasConfigDrive: Bool, vcpuTimes: [Int], interfaces: [Interface],
        disks: [Disk], memoryMiB: Int?, usedMemoryMiB: Int?, profile: ReleaseProfile
    ) {
        self.init(in: profile)
        set("state", to: state)
        set("driver", to: "libvirt")
        set("hypervisor", to: "kvm")
        set("hypervisor_os", to: "linux")
        set("uptime", to: uptimeSeconds)
        set("config_drive", to: .bool(hasConfigDrive))
        set("num_cpus", to: vcpuTimes.count)
        set("num_nics", to: interfaces.count)
        set("num_disks", to: disks.count)
        set(
            "memory_details",
            to: Self.part(
                "MemoryDiagnostics", ["maximum": .nullable(memoryMiB), "used": .nullable(usedMemoryMiB)], profile))
        let cpus = vcpuTimes.enumerated().map { index, time in
            Self.part(
                "CpuDiagnostics",
                ["id": .integer(Int64(index)), "time": .integer(Int64(time)), "utilisation": .null], profile)
        }
        set("cpu_details", to: .array(cpus))
        set("nic_details", to: .array(interfaces.map { Self.part("NicDiagnostics", $0.fields, profile) }))
        set("disk_details", to: .array(disks.map { Self.part("DiskDiagnostics", $0.fields, profile) }))
    }

    private static func part(
        _ name: String, _ fields: [String: JSONValue], _ profile: ReleaseProfile
    ) -> JSONValue {
        VersionedObject(name: name, version: profile.version(of: name), fields: fields, changes: Set(fields.keys))
            .primitive
    }
}

extension Diagnostics.Interface {
    fileprivate var fields: [String: JSONValue] {
        [
            "mac_address": .nullable(macAddress), "rx_octets": .nullable(receivedOctets),
            "rx_packets": .nullable(receivedPackets), "rx_errors": .nullable(receiveErrors),
            "rx_drop": .nullable(receiveDrops), "rx_rate": .null, "tx_octets": .nullable(sentOctets),
            "tx_packets": .nullable(sentPackets), "tx_errors": .nullable(sendErrors), "tx_drop": .nullable(sendDrops),
            "tx_rate": .null,
        ]
    }
}

extension Diagnostics.Disk {
    fileprivate var fields: [String: JSONValue] {
        [
            "read_bytes": .nullable(readBytes), "read_requests": .nullable(readRequests),
            "write_bytes": .nullable(writeBytes), "write_requests": .nullable(writeRequests),
            "errors_count": .nullable(errors),
        ]
    }
}
