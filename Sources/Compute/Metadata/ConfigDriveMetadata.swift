// The files of a config drive: what nova.api.metadata.base.InstanceMetadata yields for one, path by path. Each version's
// folder has what that version knew; "latest" is the newest. Injected files are in openstack/content, named by number.
import FoundationEssentials
package import JSON
package import Neutron
package import NovaObjects
package import OsloMessaging

package struct ConfigDriveMetadata: InstanceMetadata {
    package struct Options: Sendable, Equatable {
        /// `[api] dhcp_domain`; empty: host names stand alone.
        package var dhcpDomain: String
        /// `[api] vendordata_providers`, of which "StaticJSON" is served.
        package var vendorDataProviders: [String]
        /// Content of `[api] vendordata_jsonfile_path`.
        package var staticVendorData: JSONValue

        package init(
            dhcpDomain: String = "novalocal", vendorDataProviders: [String] = ["StaticJSON"], staticVendorData: JSONValue = [:]
        ) {
            self.dhcpDomain = dhcpDomain
            self.vendorDataProviders = vendorDataProviders
            self.staticVendorData = staticVendorData
        }
    }

    private let options: Options
    private let gatherer: FactGatherer

    /// - Parameter neutron: where the names of security groups come from; nil leaves them out.
    package init(conductor: Conductor, neutron: (any NeutronAPI)?, options: Options = Options()) {
        self.options = options
        gatherer = FactGatherer(conductor: conductor, neutron: neutron)
    }

    package func configDrive(
        for instance: Instance, networkInfo: NetworkInfo, injectedFiles: [(path: String, content: [UInt8])],
        adminPassword: String?, context: RequestContext
    ) async throws -> [String: [UInt8]] {
        let userData = try Self.userData(of: instance)
        let facts = try await gatherer.facts(
            of: instance, networkInfo: networkInfo, userData: userData, context: context)
        var files: [String: [UInt8]] = [:]
        for folder in MetadataVersion.ec2Folders {
            files["ec2/\(folder)/meta-data.json"] = ec2(facts).serializedBytes()
            if let userData { files["ec2/\(folder)/user-data"] = userData }
        }
        var listing: [JSONValue] = []
        for (number, file) in injectedFiles.enumerated() {
            let name = Self.contentName(number)
            listing.append(["path": .string(file.path), "content_path": .string("/content/\(name)")])
            files["openstack/content/\(name)"] = file.content
        }
        let networkData = NetworkData.make(networkInfo)
        for (folder, version) in MetadataVersion.folders {
            let path = "openstack/\(folder)/"
            files[path + "meta_data.json"] = metaData(
                facts, version, files: listing, adminPassword: adminPassword
            ).serializedBytes()
            if let userData { files[path + "user_data"] = userData }
            if version >= .havana { files[path + "vendor_data.json"] = staticVendorData.serializedBytes() }
            if version >= .liberty {
                files[path + "network_data.json"] = (networkData.isNull ? [:] : networkData).serializedBytes()
            }
            if version >= .newtonTwo { files[path + "vendor_data2.json"] = vendorData2.serializedBytes() }
        }
        return files
    }

    // MARK: OpenStack

    private func metaData(
        _ facts: InstanceFacts, _ version: MetadataVersion, files: [JSONValue], adminPassword: String?
    ) -> JSONValue {
        let instance = facts.instance
        var data: [String: JSONValue] = [
            "uuid": .string(instance.uuid), "hostname": .string(hostName(of: instance)),
            "name": .nullable(instance.displayName), "launch_index": .nullable(instance.launchIndex),
            "availability_zone": .nullable(instance.availabilityZone),
        ]
        if !instance.metadata.isEmpty { data["meta"] = .object(instance.metadata.mapValues { .string($0) }) }
        if !files.isEmpty { data["files"] = .array(files) }
        if let adminPassword, !adminPassword.isEmpty { data["admin_pass"] = .string(adminPassword) }
        if let key = facts.keyPair, let name = key["name"]?.stringValue {
            let text = key["public_key"] ?? .null
            data["public_keys"] = .object([name: text])
            data["keys"] = [["name": .string(name), "type": key["type"] ?? "ssh", "data": text]]
        }
        if version >= .grizzly { data["random_seed"] = .string(Self.randomSeed()) }
        if version >= .liberty { data["project_id"] = .nullable(instance.projectID) }
        if version >= .newtonOne {
            data["devices"] = .array(DeviceMetadata.list(instance.object["device_metadata"], version: version))
        }
        if version >= .victoria { data["dedicated_cpus"] = .array(Self.dedicatedCPUs(of: instance)) }
        return .object(data)
    }

    private var isStaticServed: Bool { options.vendorDataProviders.contains("StaticJSON") }
    private var staticVendorData: JSONValue { isStaticServed ? options.staticVendorData : [:] }
    private var vendorData2: JSONValue { isStaticServed ? ["static": options.staticVendorData] : [:] }

    private func hostName(of instance: Instance) -> String {
        let name = instance.hostname ?? ""
        return options.dhcpDomain.isEmpty ? name : "\(name).\(options.dhcpDomain)"
    }

    private static func dedicatedCPUs(of instance: Instance) -> [JSONValue] {
        let cells = instance.object["numa_topology"]?["nova_object.data"]?["cells"]?.arrayValue ?? []
        let cpus = cells.flatMap { ($0["nova_object.data"]?["pcpuset"]?.arrayValue ?? []).compactMap(\.intValue) }
        return cpus.sorted().map { .integer(Int64($0)) }
    }

    private static func randomSeed() -> String {
        var generator = SystemRandomNumberGenerator()
        return Data((0..<512).map { _ in UInt8.random(in: 0...255, using: &generator) }).base64EncodedString()
    }

    private static func contentName(_ number: Int) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, 4 - digits.count)) + digits
    }

    private static func userData(of instance: Instance) throws(NovaException) -> [UInt8]? {
        guard let text = instance.userData else { return nil }
        guard let data = Data(base64Encoded: text, options: .ignoreUnknownCharacters) else {
            throw NovaException("InstanceUserDataMalformed", "User data needs to be valid base 64.")
        }
        return [UInt8](data)
    }

    // MARK: EC2

    private func ec2(_ facts: InstanceFacts) -> JSONValue {
        let instance = facts.instance
        let name = JSONValue.string(hostName(of: instance))
        let fixed = facts.networkInfo.flatMap(\.fixedIPs)
        let local = fixed.first { $0["version"]?.intValue == 4 }?["address"]
        let floating = fixed.flatMap { $0["floating_ips"]?.arrayValue ?? [] }.first?["address"]
        var data: [String: JSONValue] = [
            "ami-id": facts.ec2.object["ami_id"] ?? .null, "ami-launch-index": .nullable(instance.launchIndex),
            "ami-manifest-path": "FIXME", "instance-id": facts.ec2.object["instance_id"] ?? .null, "hostname": name,
            "local-ipv4": local ?? .null, "reservation-id": .nullable(instance.reservationID),
            "security-groups": .array(facts.securityGroups.map { .string($0) }), "local-hostname": name,
            "public-hostname": name, "public-ipv4": floating ?? "", "instance-type": .string(instance.flavor?.name ?? ""),
            "block-device-mapping": .object(facts.blockDeviceMapping),
            "placement": ["availability-zone": .nullable(instance.availabilityZone)], "instance-action": "none",
        ]
        if let key = instance.keyName, !key.isEmpty {
            data["public-keys"] = ["0": ["_name": .string("0=" + key), "openssh-key": .nullable(instance.keyData)]]
        }
        for (member, field) in [("kernel-id", "kernel_id"), ("ramdisk-id", "ramdisk_id")] {
            if let id = facts.ec2.object[field]?.stringValue, !id.isEmpty { data[member] = .string(id) }
        }
        return .object(data)
    }
}
