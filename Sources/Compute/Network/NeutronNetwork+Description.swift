// NWI: asking Neutron what an instance's ports look like and storing it (contract §7.5). Called with the instance's lock held.
import JSON
import Logging
import Neutron
import NovaObjects
import OpenStackHTTP
import OsloMessaging

extension NeutronNetwork {
    enum Scope: Sendable {
        /// The ports that the cache names, in its order; ports that are gone disappear from it.
        case cached
        /// One port; the others stay as they are cached.
        case one(String)
        /// The ports that Neutron has for the instance, in the order in which they were attached.
        case current
        /// Ports just bound, after the cached ones.
        case allocated(ports: [String], networks: [JSONValue], preexisting: Set<String>)
    }

    func describe(_ instance: Instance, _ scope: Scope, context: RequestContext) async throws -> NetworkInfo {
        let old = try await storedInfo(of: instance, context: context)
        let query = [("tenant_id", instance.projectID ?? ""), ("device_id", instance.uuid)]
        var ports: [String: JSONValue] = [:]
        var order: [String] = []
        for port in try await neutron.ports(query: query, as: .service) {
            guard let id = port["id"]?.stringValue, ports.updateValue(port, forKey: id) == nil else { continue }
            order.append(id)
        }
        var preexisting = Set(old.filter(\.isPreservedOnDelete).map(\.id))
        let info: NetworkInfo
        switch scope {
        case .one(let id) where !old.isEmpty:
            info = try await replacing(id, in: old, by: ports[id], preexisting: preexisting)
        case .cached where !old.isEmpty:
            let networks = try await networks(old.map(\.networkID))
            info = try await build(old.map(\.id), ports, networks, preexisting)
        case .cached, .one, .current:
            // With nothing cached, Neutron is the only one who can know.
            let ids = order.isEmpty ? [] : try await attachmentOrder(of: order, instance, context: context)
            let networks = try await networks(ids.compactMap { ports[$0]?["network_id"]?.stringValue })
            info = try await build(ids, ports, networks, preexisting)
        case .allocated(let ids, var networks, let kept):
            preexisting.formUnion(kept)
            let known = Set(networks.compactMap { $0["id"]?.stringValue })
            networks += old.filter { !known.contains($0.networkID) }.map(Self.network)
            info = try await build(old.map(\.id).filter { !ids.contains($0) } + ids, ports, networks, preexisting)
        }
        reportChangedTypes(from: old, to: info, instance)
        try await save(info, of: instance, context: context)
        return info
    }

    // MARK: The cache

    /// The info cache as it is stored now: the instance at hand may have been loaded before somebody else's change.
    func storedInfo(of instance: Instance, context: RequestContext) async throws -> NetworkInfo {
        guard var cache = instance.infoCache, !instance.isDeleted else { return cached(instance) }
        cache.object.resetChanges()
        do {
            try await conductor.call(&cache, "refresh", context: context)
        } catch where NovaException.isClass("InstanceInfoCacheNotFound", error) {
            logger.debug("no info cache is stored", metadata: ["instance": "\(instance.uuid)"])
        }
        return cache.networkInfo.map { VIF($0) }
    }

    func save(_ info: NetworkInfo, of instance: Instance, context: RequestContext) async throws {
        guard !instance.isDeleted else { return }
        // A new object: the conductor writes or creates the row by the instance's id.
        var cache = InstanceInfoCache(in: conductor.profile)
        cache.instanceUUID = instance.uuid
        cache.networkInfo = info.map(\.json)
        try await conductor.call(&cache, "save", context: context)
    }

    // MARK: Records

    /// Records of networks by id; none where there is no id, for which Neutron would answer with all.
    private func networks(_ ids: [String]) async throws -> [JSONValue] {
        ids.isEmpty ? [] : try await neutron.networks(query: ids.map { ("id", $0) }, as: .service)
    }

    private func build(
        _ ids: [String], _ ports: [String: JSONValue], _ networks: [JSONValue], _ preexisting: Set<String>
    ) async throws -> NetworkInfo {
        var info: NetworkInfo = []
        for id in ids {
            guard let port = ports[id] else {
                logger.info("port is no longer the instance's; dropped from the info cache", metadata: ["port": "\(id)"])
                continue
            }
            info.append(try await builder.build(port: port, networks: networks, preexisting: preexisting))
        }
        return info
    }

    private func replacing(
        _ id: String, in old: NetworkInfo, by port: JSONValue?, preexisting: Set<String>
    ) async throws -> NetworkInfo {
        guard let port else { return old.filter { $0.id != id } }
        let networks = try await networks([port["network_id"]?.stringValue].compactMap { $0 })
        let vif = try await builder.build(port: port, networks: networks, preexisting: preexisting)
        guard let index = old.firstIndex(where: { $0.id == id }) else { return old + [vif] }
        var info = old
        info[index] = vif
        return info
    }

    /// Ports by the age of their VirtualInterface; ports Nova has none for come last.
    private func attachmentOrder(
        of ports: [String], _ instance: Instance, context: RequestContext
    ) async throws -> [String] {
        let answer = try await conductor.callClass(
            "VirtualInterfaceList", "get_by_instance_uuid", [.string(instance.uuid)], context: context)
        var ages: [String: Int] = [:]
        for interface in try VirtualInterfaceList(primitive: answer).elements() {
            if let uuid = interface.uuid, ages[uuid] == nil { ages[uuid] = interface.integer("id") ?? Int.max }
        }
        let known = ports.filter { ages[$0] != nil }.sorted { (ages[$0] ?? 0, $0) < (ages[$1] ?? 0, $1) }
        return known + ports.filter { ages[$0] == nil }
    }

    /// What the cache tells of a network nobody asked Neutron for.
    private static func network(of vif: VIF) -> JSONValue {
        let network = vif.json["network"]
        return [
            "id": .string(vif.networkID), "name": network?["label"] ?? .null,
            "tenant_id": network?["meta"]?["tenant_id"] ?? .null, "mtu": network?["meta"]?["mtu"] ?? .null,
        ]
    }

    private func reportChangedTypes(from old: NetworkInfo, to new: NetworkInfo, _ instance: Instance) {
        for vif in new {
            guard let before = old.first(where: { $0.id == vif.id }), before.vnicType != vif.vnicType else { continue }
            logger.error(
                "the vnic_type of a bound port was changed in Neutron, which a running server cannot follow; change it back",
                metadata: [
                    "instance": "\(instance.uuid)", "port": "\(vif.id)", "was": "\(before.vnicType)", "is": "\(vif.vnicType)",
                ])
        }
    }
}
