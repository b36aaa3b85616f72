// The virtual interfaces of an instance as Nova stores and sends them (contract §7.6). JSON stays JSON: keys this program does
// not know are kept; the accessors name the ones it uses.
package import ComputeDriver
package import JSON

/// One virtual interface.
package struct VIF: Sendable, Equatable {
    package var json: JSONValue

    package init(_ json: JSONValue) { self.json = json }

    /// The port's id.
    package var id: String { json["id"]?.stringValue ?? "" }
    /// MAC address.
    package var address: String { json["address"]?.stringValue ?? "" }
    package var networkID: String { json["network"]?["id"]?.stringValue ?? "" }
    package var label: String { json["network"]?["label"]?.stringValue ?? "" }
    package var bridge: String? { json["network"]?["bridge"]?.stringValue }
    /// binding:vif_type.
    package var type: String { json["type"]?.stringValue ?? "" }
    package var vnicType: String { json["vnic_type"]?.stringValue ?? "normal" }
    package var details: [String: JSONValue] { json["details"]?.objectValue ?? [:] }
    package var deviceName: String { json["devname"]?.stringValue ?? String(("tap" + id).prefix(14)) }
    package var mtu: Int? { json["network"]?["meta"]?["mtu"]?.intValue }
    package var isActive: Bool { json["active"]?.boolValue ?? false }
    package var isPreservedOnDelete: Bool { json["preserve_on_delete"]?.boolValue ?? false }
    package var subnets: [JSONValue] { json["network"]?["subnets"]?.arrayValue ?? [] }
    /// Fixed IP objects of all subnets.
    package var fixedIPs: [JSONValue] { subnets.flatMap { $0["ips"]?.arrayValue ?? [] } }

    package var interfaceRequest: InterfaceRequest {
        InterfaceRequest(
            portID: id, macAddress: address, type: type, bridge: bridge, deviceName: deviceName, mtu: mtu, details: details)
    }
}

/// All virtual interfaces of an instance, in the order the guest sees them.
package typealias NetworkInfo = [VIF]
