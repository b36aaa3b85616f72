// What moves of instances need of the database, of the conductor's tasks and of compute services (contract §4.1, §4.2).
import JSON
import NovaObjects
import OsloMessaging

extension Conductor {
    /// A cast to a compute service, which may be this one: the steps of a resize follow one another by message.
    func castCompute(
        _ method: String, _ arguments: [String: JSONValue], host: String, context: RequestContext
    ) async throws {
        try await client.cast(RPCTarget(topic: "compute", server: host, version: "6.0"), method, arguments, context: context)
    }

    /// A call of the conductor's task API; while it works on it, it sends heartbeats.
    func callTask(
        _ method: String, version: String, _ arguments: [String: JSONValue], timeout: Duration, context: RequestContext
    ) async throws -> JSONValue {
        try await client.call(
            RPCTarget(topic: "conductor", namespace: "compute_task", version: version), method, arguments, context: context,
            timeout: timeout, monitor: self.timeout)
    }

    func save(_ migration: inout Migration, context: RequestContext) async throws {
        guard !migration.object.changes.isEmpty else { return }
        try await call(&migration, "save", context: context)
    }

    func migration(_ id: Int, of instanceUUID: String, context: RequestContext) async throws -> Migration {
        try Migration(
            primitive: await callClass(
                "Migration", "get_by_id_and_instance", [.integer(Int64(id)), .string(instanceUUID)], context: context))
    }

    /// Nil where the instance is not moving.
    func migrationContext(of instanceUUID: String, context: RequestContext) async throws -> MigrationContext? {
        do {
            let answer = try await callClass(
                "MigrationContext", "get_by_instance_uuid", [.string(instanceUUID)], context: context)
            return answer.isNull ? nil : try MigrationContext(primitive: answer)
        } catch where NovaException.isClass("MigrationContextNotFound", error) {
            return nil
        }
    }

    /// Moves to `host` that ended `seconds` ago and that nobody has confirmed.
    func unconfirmedMigrations(olderThan seconds: Int, to host: String, context: RequestContext) async throws -> [Migration] {
        try MigrationList(
            primitive: await callClass(
                "MigrationList", "get_unconfirmed_by_dest_compute", [.integer(Int64(seconds)), .string(host)],
                ["use_slave": true], context: context)
        ).elements()
    }
}
