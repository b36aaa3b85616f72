// The tagged devices of a guest as meta_data.json lists them: which interface or disk has which tag, and where it is found.
import JSON
import NovaObjects

enum DeviceMetadata {
    private static let buses = [
        "PCIDeviceBus": "pci", "USBDeviceBus": "usb", "SCSIDeviceBus": "scsi", "IDEDeviceBus": "ide", "XenDeviceBus": "xen",
    ]

    /// - Parameter metadata: InstanceDeviceMetadata in primitive form, or null.
    static func list(_ metadata: JSONValue?, version: MetadataVersion) -> [JSONValue] {
        (metadata?["nova_object.data"]?["devices"]?.arrayValue ?? []).compactMap { device($0, version) }
    }

    private static func device(_ primitive: JSONValue, _ version: MetadataVersion) -> JSONValue? {
        guard let object = try? VersionedObject(primitive: primitive) else { return nil }
        var device: [String: JSONValue] = ["bus": "none", "address": "none"]
        if let bus = object["bus"], !bus.isNull {
            guard let name = buses[bus["nova_object.name"]?.stringValue ?? ""] else { return nil }
            device["bus"] = .string(name)
            if let address = bus["nova_object.data"]?["address"] { device["address"] = address }
        }
        switch object.name {
        case "NetworkInterfaceMetadata":
            if version >= .ocata, let vlan = object["vlan"], !vlan.isNull { device["vlan"] = vlan }
            if version >= .rocky { device["vf_trusted"] = object["vf_trusted"] ?? false }
            device["type"] = "nic"
            device["mac"] = object["mac"] ?? .null
            // Nothing to tell apart from what network_data.json says.
            guard object.isSet("tags") || device["vlan"] != nil || device["vf_trusted"] != nil else { return nil }
        case "DiskMetadata":
            device["type"] = "disk"
            for name in ["serial", "path"] {
                if let value = object[name] { device[name] = value }
            }
        default:
            return nil
        }
        if let tags = object["tags"] { device["tags"] = tags }
        return .object(device)
    }
}
