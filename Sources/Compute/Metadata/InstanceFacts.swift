// What metadata is made of, gathered once: facts of the instance, and those that a message may leave out and the conductor
// or Neutron has (EC2 ids, key pairs, block devices, security groups).
import JSON
import Neutron
import NovaObjects
import OpenStackHTTP
import OsloMessaging

struct InstanceFacts: Sendable {
    var instance: Instance
    var ec2: EC2Ids
    var keyPair: VersionedObject?
    var blockDevices: [BlockDeviceMapping]
    /// Names.
    var securityGroups: [String]
    var networkInfo: NetworkInfo
    var userData: [UInt8]?

    /// "root", "ami", "ephemeral0", "swap", "ebs0" → device name.
    var blockDeviceMapping: [String: JSONValue] {
        guard let root = instance.rootDeviceName else {
            return ["ami": "sda1", "ephemeral0": "sda2", "root": "/dev/sda1", "swap": "sda3"]
        }
        var mapping: [String: JSONValue] = [
            "ami": .string(root.hasPrefix("/dev/") ? String(root.dropFirst(5)) : root), "root": .string(root),
        ]
        if let name = instance.string("default_ephemeral_device"), !name.isEmpty { mapping["ephemeral0"] = .string(name) }
        if let name = instance.string("default_swap_device"), !name.isEmpty { mapping["swap"] = .string(name) }
        // A device without a name comes first.
        let volumes = blockDevices.filter(\.isVolume).map(\.deviceName).sorted { ($0 ?? "") < ($1 ?? "") }
        for (number, name) in volumes.enumerated() { mapping["ebs\(number)"] = .nullable(name) }
        let blanks = blockDevices.filter { !$0.isVolume && $0.sourceType == "blank" }
        if let swap = blanks.last(where: { $0.guestFormat == "swap" }) { mapping["swap"] = .nullable(swap.deviceName) }
        for (number, disk) in blanks.filter({ $0.guestFormat != "swap" }).enumerated() {
            mapping["ephemeral\(number)"] = .nullable(disk.deviceName)
        }
        return mapping
    }
}

/// nova.objects.EC2Ids: what the instance and its images are called in EC2's API.
struct EC2Ids: NovaObject {
    static let objectName = "EC2Ids"
    var object: VersionedObject

    init(unchecked object: VersionedObject) { self.object = object }
}

/// Gathers the facts. Only what the instance does not bring is asked for.
struct FactGatherer: Sendable {
    let conductor: Conductor
    let neutron: (any NeutronAPI)?

    func facts(
        of instance: Instance, networkInfo: NetworkInfo, userData: [UInt8]?, context: RequestContext
    ) async throws -> InstanceFacts {
        InstanceFacts(
            instance: instance, ec2: try await ec2Ids(of: instance, context: context),
            keyPair: try await keyPair(of: instance, context: context),
            blockDevices: try await blockDevices(of: instance, context: context),
            securityGroups: try await securityGroups(of: instance), networkInfo: networkInfo, userData: userData)
    }

    private func ec2Ids(of instance: Instance, context: RequestContext) async throws -> EC2Ids {
        if let ids = instance.nested("ec2_ids", as: EC2Ids.self) { return ids }
        return try EC2Ids(
            primitive: try await conductor.callClass(
                "EC2Ids", "get_by_instance", [instance.primitive], context: context))
    }

    private func keyPair(of instance: Instance, context: RequestContext) async throws -> VersionedObject? {
        guard let name = instance.keyName, !name.isEmpty else { return nil }
        if instance.object.isSet("keypairs") { return instance.keypairs.first }
        // The instance's own copy of its key, as it was when the server was made.
        let answer = try await conductor.callClass(
            "Instance", "get_by_uuid", [.string(instance.uuid)], ["expected_attrs": ["keypairs"]], context: context)
        return try Instance(primitive: answer).keypairs.first
    }

    private func blockDevices(of instance: Instance, context: RequestContext) async throws -> [BlockDeviceMapping] {
        let answer = try await conductor.callClass(
            "BlockDeviceMappingList", "get_by_instance_uuid", [.string(instance.uuid)], context: context)
        return try BlockDeviceMappingList(primitive: answer).elements()
    }

    /// Names of the groups of the instance's ports, in the order of the ports.
    private func securityGroups(of instance: Instance) async throws -> [String] {
        guard let neutron else { return [] }
        let ports = try await neutron.ports(query: [("device_id", instance.uuid)], as: .service)
        let ids = ports.flatMap { ($0["security_groups"]?.arrayValue ?? []).compactMap(\.stringValue) }
        guard !ids.isEmpty else { return [] }
        var query: [(String, String)] = []
        for id in ids where !query.contains(where: { $0.1 == id }) { query.append(("id", id)) }
        query += [("fields", "id"), ("fields", "name")]
        var names: [String: String] = [:]
        for group in try await neutron.securityGroups(query: query, as: .service) {
            guard let id = group["id"]?.stringValue else { continue }
            let name = group["name"]?.stringValue ?? ""
            names[id] = name.isEmpty ? id : name
        }
        return ids.compactMap { names[$0] }
    }
}
