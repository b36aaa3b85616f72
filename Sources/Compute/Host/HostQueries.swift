// What the host's work reads from the database, one function a class call (contract §4.2), with the arguments
// nova-compute sends.
import JSON
import NovaObjects
import OsloMessaging

extension Conductor {
    /// Nil where no such service is registered.
    func service(host: String, binary: String, context: RequestContext) async throws -> Service? {
        try await optional("Service", "get_by_host_and_binary", [.string(host), .string(binary)], context: context)
    }

    /// The record by which the trait of a disabled host is kept; nil where there is none.
    func service(ofComputeHost host: String, context: RequestContext) async throws -> Service? {
        try await found("Service", "get_by_compute_host", [.string(host)], context: context)
    }

    /// The lowest version of any such service in the cell; 0: there is none.
    func minimumServiceVersion(binary: String, context: RequestContext) async throws -> Int {
        try await callClass("Service", "get_minimum_version", [.string(binary)], context: context).intValue ?? 0
    }

    func computeNode(host: String, node: String, context: RequestContext) async throws -> ComputeNode? {
        try await found("ComputeNode", "get_by_host_and_nodename", [.string(host), .string(node)], context: context)
    }

    func computeNode(uuid: String, context: RequestContext) async throws -> ComputeNode? {
        try await found("ComputeNode", "get_by_uuid", [.string(uuid)], context: context)
    }

    func computeNodes(ofHost host: String, context: RequestContext) async throws -> [ComputeNode] {
        let list: ComputeNodeList? = try await found(
            "ComputeNodeList", "get_all_by_host", [.string(host)], ["use_slave": true], context: context)
        return try list?.elements() ?? []
    }

    /// All instances of a host.
    func instances(
        ofHost host: String, attributes: [String], usesReplica: Bool = false, context: RequestContext
    ) async throws -> InstanceList {
        var keywords: [String: JSONValue] = ["expected_attrs": Self.names(attributes)]
        if usesReplica { keywords["use_slave"] = true }
        return try InstanceList(
            primitive: await callClass("InstanceList", "get_by_host", [.string(host)], keywords, context: context))
    }

    /// The instances that the node's usage is made of.
    func instances(ofHost host: String, node: String, context: RequestContext) async throws -> [Instance] {
        let attributes = ["system_metadata", "numa_topology", "flavor", "migration_context", "resources"]
        return try InstanceList(
            primitive: await callClass(
                "InstanceList", "get_by_host_and_node", [.string(host), .string(node)],
                ["expected_attrs": Self.names(attributes)], context: context)
        ).elements()
    }

    /// Instances by the API's filters.
    func instances(matching filters: [String: JSONValue], context: RequestContext) async throws -> [Instance] {
        try InstanceList(
            primitive: await callClass(
                "InstanceList", "get_by_filters", [.object(filters)], ["use_slave": true], context: context)
        ).elements()
    }

    /// Nil where the database has no such instance.
    func instanceRecord(_ uuid: String, attributes: [String] = [], context: RequestContext) async throws -> Instance? {
        try await found(
            "Instance", "get_by_uuid", [], ["uuid": .string(uuid), "expected_attrs": Self.names(attributes)],
            context: context)
    }

    func migrationsInProgress(host: String, node: String, context: RequestContext) async throws -> [Migration] {
        try MigrationList(
            primitive: await callClass(
                "MigrationList", "get_in_progress_and_error", [.string(host), .string(node)], context: context)
        ).elements()
    }

    /// Evacuations away from a host that it has not cleaned up after.
    func evacuations(from host: String, context: RequestContext) async throws -> [Migration] {
        let filters: JSONValue = [
            "source_compute": .string(host), "status": ["accepted", "pre-migrating", "done"],
            "migration_type": "evacuation",
        ]
        return try MigrationList(
            primitive: await callClass("MigrationList", "get_by_filters", [filters], context: context)
        ).elements()
    }

    /// `is_volume_backed_instance`: the root block device is a volume, or there is none and no image either.
    func isVolumeBacked(_ instance: Instance, context: RequestContext) async throws -> Bool {
        let answer = try await callClass(
            "BlockDeviceMappingList", "get_by_instance_uuid", [.string(instance.uuid)], context: context)
        let root = try BlockDeviceMappingList(primitive: answer).elements().first(where: \.isRoot)
        return root?.isVolume ?? (instance.imageRef ?? "").isEmpty
    }

    private func optional<View: NovaObject>(
        _ objectName: String, _ method: String, _ arguments: [JSONValue], _ keywords: [String: JSONValue] = [:],
        context: RequestContext
    ) async throws -> View? {
        let answer = try await callClass(objectName, method, arguments, keywords, context: context)
        return answer.isNull ? nil : try View(primitive: answer)
    }

    /// As above; "…NotFound" counts as nil.
    private func found<View: NovaObject>(
        _ objectName: String, _ method: String, _ arguments: [JSONValue], _ keywords: [String: JSONValue] = [:],
        context: RequestContext
    ) async throws -> View? {
        do {
            return try await optional(objectName, method, arguments, keywords, context: context)
        } catch let failure as RemoteFailure where failure.className.hasSuffix("NotFound") {
            return nil
        }
    }

    private static func names(_ names: [String]) -> JSONValue { .array(names.map { .string($0) }) }
}
