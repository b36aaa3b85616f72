// A conductor in memory for the host's work: the rows one compute host reads and writes, answered in the conductor's
// form. It records every call, so that a test can compare an order with the recorded one.
import Compute
import JSON
import NovaObjects
import OsloMessaging
import Synchronization

final class HostDatabase: RPCClient {
    struct Rows {
        var service: Service?
        var nodes: [ComputeNode] = []
        var instances: [Instance] = []
        var migrations: [Migration] = []
        var evacuations: [Migration] = []
        var minimumVersion = 0
        /// Method names that fail, with what.
        var failures: [String: any Error] = [:]
        var calls: [String] = []
        /// Arguments of the calls, in the same order.
        var requests: [[String: JSONValue]] = []
        var casts: [String] = []
        /// Messages to compute services, not taken yet.
        var messages: [(method: String, arguments: [String: JSONValue])] = []
        var faults: [String] = []
        var nextID = 1
        /// What somebody else does right after a call.
        var afterCall: [String: @Sendable (inout Rows) -> Void] = [:]
    }
    private let rows: Mutex<Rows>
    let profile: ReleaseProfile

    init(profile: ReleaseProfile = .zed, _ change: (inout Rows) -> Void = { _ in }) {
        var rows = Rows()
        change(&rows)
        self.rows = Mutex(rows)
        self.profile = profile
    }

    var conductor: Conductor { Conductor(client: self, profile: profile, timeout: .seconds(60)) }
    var calls: [String] { rows.withLock { $0.calls } }
    var casts: [String] { rows.withLock { $0.casts } }
    func requests(_ name: String) -> [[String: JSONValue]] {
        rows.withLock { rows in zip(rows.calls, rows.requests).filter { $0.0 == name }.map(\.1) }
    }
    func change(_ body: (inout Rows) -> Void) { rows.withLock { body(&$0) } }
    func read<Value>(_ body: (Rows) -> Value) -> Value { rows.withLock { body($0) } }

    func cast(_ target: RPCTarget, _ method: String, _ arguments: [String: JSONValue], context: RequestContext)
        async throws
    {
        rows.withLock {
            $0.casts.append(method)
            if target.topic == "compute" { $0.messages.append((method, arguments)) }
        }
    }

    func call(
        _ target: RPCTarget, _ method: String, _ arguments: [String: JSONValue], context: RequestContext,
        timeout: Duration, monitor: Duration?
    ) async throws -> JSONValue {
        // A real call suspends: others run meanwhile.
        for _ in 0..<3 { await Task.yield() }
        let result: Result<JSONValue, any Error> = rows.withLock { rows in
            let name =
                switch method {
                case "object_class_action_versions":
                    "\(arguments["objname"]?.stringValue ?? "").\(arguments["objmethod"]?.stringValue ?? "")"
                case "object_action":
                    "\(arguments["objinst"]?["nova_object.name"]?.stringValue ?? "").\(arguments["objmethod"]?.stringValue ?? "")()"
                default: method
                }
            rows.calls.append(name)
            rows.requests.append(arguments)
            defer { rows.afterCall[name]?(&rows) }
            if let failure = rows.failures[name] { return .failure(failure) }
            return Result { try Self.answer(name, arguments, &rows, self.profile) }
        }
        return try result.get()
    }

    private static func answer(
        _ name: String, _ arguments: [String: JSONValue], _ rows: inout Rows, _ profile: ReleaseProfile
    ) throws -> JSONValue {
        let list = arguments["args"]?.arrayValue ?? []
        let keywords = arguments["kwargs"] ?? [:]
        switch name {
        case "ping": return ["service": "conductor", "arg": arguments["arg"] ?? .null]
        case "Service.get_minimum_version": return .integer(Int64(rows.minimumVersion))
        case "Service.get_by_host_and_binary": return rows.service?.primitive ?? .null
        case "Service.get_by_compute_host":
            guard let service = rows.service else {
                throw RemoteFailure(className: "ComputeHostNotFound", message: "none")
            }
            return service.primitive
        case "ComputeNode.get_by_host_and_nodename":
            guard
                let node = rows.nodes.first(where: {
                    $0.host == list[0].stringValue && $0.hypervisorHostname == list[1].stringValue
                })
            else { throw RemoteFailure(className: "ComputeHostNotFound", message: "none") }
            return node.primitive
        case "ComputeNode.get_by_uuid":
            guard let node = rows.nodes.first(where: { $0.uuid == list[0].stringValue })
            else { throw RemoteFailure(className: "ComputeHostNotFound", message: "none") }
            return node.primitive
        case "ComputeNodeList.get_all_by_host":
            return ComputeNodeList(rows.nodes.filter { $0.host == list[0].stringValue }, in: profile).primitive
        case "InstanceList.get_by_host", "InstanceList.get_by_host_and_node":
            return InstanceList(rows.instances.filter { $0.host == list[0].stringValue }, in: profile).primitive
        case "InstanceList.get_by_filters":
            let wanted = list[0]["uuid"]?.arrayValue?.compactMap(\.stringValue) ?? []
            let state = list[0]["vm_state"]?.stringValue
            let isDeleted = list[0]["deleted"]?.boolValue
            let found = rows.instances.filter { instance in
                wanted.contains(instance.uuid) && (state == nil || instance.vmState == state)
                    && (isDeleted == nil || instance.isDeleted == isDeleted)
            }
            return InstanceList(found, in: profile).primitive
        case "Instance.get_by_uuid":
            let uuid = keywords["uuid"]?.stringValue ?? list.first?.stringValue
            guard let instance = rows.instances.first(where: { $0.uuid == uuid })
            else { throw RemoteFailure(className: "InstanceNotFound", message: "none") }
            return instance.primitive
        case "MigrationList.get_in_progress_and_error":
            let open = rows.migrations.filter { !["confirmed", "reverted"].contains($0.status) }
            return MigrationList(open, in: profile).primitive
        case "MigrationList.get_unconfirmed_by_dest_compute":
            return MigrationList(rows.migrations.filter { $0.status == "finished" }, in: profile).primitive
        case "Migration.get_by_id_and_instance":
            guard let migration = rows.migrations.first(where: { $0.id == list[0].intValue })
            else { throw RemoteFailure(className: "MigrationNotFound", message: "none") }
            return migration.primitive
        case "MigrationContext.get_by_instance_uuid":
            guard let context = rows.instances.first(where: { $0.uuid == list[0].stringValue })?.migrationContext
            else { throw RemoteFailure(className: "MigrationContextNotFound", message: "none") }
            return context.primitive
        case "InstanceActionEvent.event_start", "InstanceActionEvent.event_finish_with_failure", "InstanceAction.action_start":
            return .null
        case "MigrationList.get_by_filters": return MigrationList(rows.evacuations, in: profile).primitive
        case "BlockDeviceMappingList.get_by_instance_uuid":
            var root = BlockDeviceMapping(in: profile)
            root.set("boot_index", to: 0)
            root.set("destination_type", to: "local")
            return BlockDeviceMappingList([root], in: profile).primitive
        default: return try change(name, arguments, &rows)
        }
    }

    private static func change(_ name: String, _ arguments: [String: JSONValue], _ rows: inout Rows) throws -> JSONValue
    {
        let nothing: JSONValue = [["obj_what_changed": []], nil]
        let object = try VersionedObject(primitive: arguments["objinst"] ?? .null)
        func stored() -> VersionedObject {
            var stored = object
            stored.resetChanges()
            return stored
        }
        func created() -> (VersionedObject, JSONValue) {
            var row = stored()
            row.load("id", .integer(Int64(rows.nextID)))
            if !row.isSet("uuid") { row.load("uuid", "00000000-0000-4000-8000-00000000000\(rows.nextID)".json) }
            rows.nextID += 1
            return (row, [["id": row["id"] ?? .null, "uuid": row["uuid"] ?? .null, "obj_what_changed": []], nil])
        }
        switch name {
        case "Service.create()":
            let (row, answer) = created()
            rows.service = try Service(object: row)
            return answer
        case "Service.save()":
            rows.service = try Service(object: stored())
            return nothing
        case "ComputeNode.create()":
            let (row, answer) = created()
            rows.nodes.append(try ComputeNode(object: row))
            return answer
        case "ComputeNode.save()":
            let node = try ComputeNode(object: stored())
            rows.nodes.removeAll { $0.uuid == node.uuid }
            rows.nodes.append(node)
            return nothing
        case "ComputeNode.destroy()":
            rows.nodes.removeAll { $0.uuid == object["uuid"]?.stringValue }
            return nothing
        case "InstanceFault.create()":
            rows.faults.append(object["message"]?.stringValue ?? "")
            return nothing
        case "Instance.drop_migration_context()":
            for index in rows.instances.indices where rows.instances[index].uuid == object["uuid"]?.stringValue {
                rows.instances[index].object.load("migration_context", .null)
            }
            return [["migration_context": .null, "obj_what_changed": []], nil]
        case "Instance.save()":
            if let expected = arguments["kwargs"]?["expected_task_state"]?.arrayValue,
                let row = rows.instances.first(where: { $0.uuid == object["uuid"]?.stringValue }),
                !expected.contains(row.object["task_state"] ?? .null)
            {
                throw RemoteFailure(className: "UnexpectedTaskStateError", message: "Conflict updating instance")
            }
            let instance = try Instance(object: stored())
            rows.instances.removeAll { $0.uuid == instance.uuid }
            rows.instances.append(instance)
            return nothing
        case "Migration.save()":
            let migration = try Migration(object: stored())
            if let index = rows.migrations.firstIndex(where: { $0.uuid == migration.uuid }) {
                rows.migrations[index] = migration
                return nothing
            }
            rows.evacuations.removeAll { $0.instanceUUID == migration.instanceUUID }
            rows.evacuations.append(migration)
            return nothing
        default: throw RemoteFailure(className: "UnsupportedObjectError", message: name)
        }
    }
}

extension String {
    fileprivate var json: JSONValue { .string(self) }
}
