// A conductor in memory: rows of instances, saves with compare-and-set of the task state, every call written down.
import Compute
import JSON
import NovaObjects
import OsloMessaging
import Synchronization

final class RecordingConductor: RPCClient {
    struct Row: Sendable {
        var fields: [String: JSONValue]
        var isDeleted = false
        var states: [String] {
            ["vm_state", "task_state"].map { fields[$0]?.stringValue ?? "null" }
        }
    }
    struct Cast: Sendable {
        var target: RPCTarget
        var method: String
        var arguments: [String: JSONValue]
    }
    private struct State {
        var rows: [String: Row] = [:]
        var faults: [[String: JSONValue]] = []
        var events: [(name: String, message: String?)] = []
        var casts: [Cast] = []
        var failures: [String: any Error] = [:]
        var answers: [String: JSONValue] = [:]
    }
    private let state = Mutex(State())
    let journal: Journal

    init(_ journal: Journal) { self.journal = journal }

    func store(_ instance: Instance) {
        let row = Row(fields: instance.object.fields)
        state.withLock { $0.rows[instance.uuid] = row }
    }

    func row(_ uuid: String) -> Row? { state.withLock { $0.rows[uuid] } }
    func set(_ field: String, _ value: JSONValue, of uuid: String) { state.withLock { $0.rows[uuid]?.fields[field] = value } }
    func remove(_ uuid: String) { state.withLock { $0.rows[uuid] = nil } }
    /// Calls of this name ("Instance.save") fail from now on; nil: no more.
    func fail(_ call: String, with error: (any Error)?) { state.withLock { $0.failures[call] = error } }
    /// What a class call ("Migration.get_by_id_and_instance") answers from now on.
    func answer(_ call: String, with answer: JSONValue) { state.withLock { $0.answers[call] = answer } }
    var faults: [[String: JSONValue]] { state.withLock { $0.faults } }
    var finishedEvents: [(name: String, message: String?)] { state.withLock { $0.events } }
    var casts: [Cast] { state.withLock { $0.casts } }

    func call(
        _ target: RPCTarget, _ method: String, _ arguments: [String: JSONValue], context: RequestContext,
        timeout: Duration, monitor: Duration?
    ) async throws -> JSONValue {
        try Task.checkCancellation()
        switch method {
        case "object_action": return try objectAction(arguments)
        case "object_class_action_versions": return try classAction(arguments)
        default:
            journal.note("call \(target.topic) \(method) \(target.version)")
            if let failure = state.withLock({ $0.failures[method] }) { throw failure }
            return .null
        }
    }

    func cast(
        _ target: RPCTarget, _ method: String, _ arguments: [String: JSONValue], context: RequestContext
    ) async throws {
        journal.note("cast \(target.topic) \(method) \(target.version)")
        state.withLock { $0.casts.append(Cast(target: target, method: method, arguments: arguments)) }
    }

    private func objectAction(_ arguments: [String: JSONValue]) throws -> JSONValue {
        let object = try VersionedObject(primitive: arguments["objinst"] ?? .null)
        let method = arguments["objmethod"]?.stringValue ?? ""
        let call = "\(object.name).\(method)"
        if let failure = state.withLock({ $0.failures[call] }) { throw failure }
        switch call {
        case "Instance.save": return try save(object, arguments["kwargs"]?["expected_task_state"])
        case "Instance.destroy":
            journal.note(call)
            try change(object) { $0.isDeleted = true }
        case "InstanceFault.create":
            journal.note("\(call) \(object["code"]?.intValue ?? 0)")
            state.withLock { $0.faults.append(object.fields) }
        case "Migration.save": journal.note("\(call) \(object["status"]?.stringValue ?? "-")")
        case "BlockDeviceMapping.save": journal.note("\(call) \(object["device_name"]?.stringValue ?? "-")")
        default: journal.note("\(call) \(object.changes.sorted())")
        }
        return .array([.object(["obj_what_changed": .array([])]), .null])
    }

    private func save(_ object: VersionedObject, _ expected: JSONValue?) throws -> JSONValue {
        let interesting = ["host", "node", "vm_state", "task_state", "power_state", "root_device_name", "launched_on"]
        let changes = interesting.filter(object.changes.contains).map { "\($0)=\(Self.text(object[$0]))" }
        let list: [JSONValue]? = expected.map { $0.arrayValue ?? [$0] }
        let expectation = list.map { "[" + $0.map { Self.text($0) }.joined(separator: ",") + "]" } ?? ""
        journal.note("Instance.save\(expectation) \(changes.joined(separator: " "))")
        try change(object) { row in
            if let list {
                let current = row.fields["task_state"] ?? .null
                guard list.contains(current) else {
                    throw RemoteFailure(
                        className: current == "deleting" ? "UnexpectedDeletingTaskStateError" : "UnexpectedTaskStateError",
                        message: "Conflict updating instance: expected \(expectation), actual \(Self.text(current))")
                }
            }
            for field in object.changes { row.fields[field] = object[field] }
        }
        return .array([.object(["obj_what_changed": .array([]), "updated_at": "2026-01-02T03:04:05Z"]), .null])
    }

    private func change(_ object: VersionedObject, _ body: (inout Row) throws -> Void) throws {
        let uuid = object["uuid"]?.stringValue ?? ""
        try state.withLock { state in
            guard var row = state.rows[uuid], !row.isDeleted else { throw Self.notFound(uuid) }
            try body(&row)
            state.rows[uuid] = row
        }
    }

    private func classAction(_ arguments: [String: JSONValue]) throws -> JSONValue {
        let name = arguments["objname"]?.stringValue ?? ""
        let call = "\(name).\(arguments["objmethod"]?.stringValue ?? "")"
        let positional = arguments["args"]?.arrayValue ?? []
        let keywords = arguments["kwargs"] ?? .null
        if let failure = state.withLock({ $0.failures[call] }) { throw failure }
        switch call {
        case "Instance.get_by_uuid":
            let uuid = positional.first?.stringValue ?? keywords["uuid"]?.stringValue ?? ""
            let wanted = keywords["expected_attrs"]?.arrayValue?.compactMap(\.stringValue) ?? []
            journal.note("\(call) \(wanted)")
            guard let row = row(uuid), !row.isDeleted else { throw Self.notFound(uuid) }
            return VersionedObject(name: "Instance", version: "2.7", fields: row.fields).primitive
        case "InstanceActionEvent.event_start":
            journal.note("event_start \(positional.last?.stringValue ?? "")")
        case "InstanceActionEvent.event_finish_with_failure":
            let message = keywords["exc_val"]?.stringValue
            journal.note("event_finish \(positional.last?.stringValue ?? "")\(message == nil ? "" : " failed")")
            state.withLock { $0.events.append((positional.last?.stringValue ?? "", message)) }
        default: journal.note(call)
        }
        return state.withLock { $0.answers[call] } ?? .null
    }

    private static func text(_ value: JSONValue?) -> String {
        guard let value, !value.isNull else { return "null" }
        return value.stringValue ?? value.intValue.map { String($0) } ?? "…"
    }

    static func notFound(_ uuid: String) -> RemoteFailure {
        RemoteFailure(className: "InstanceNotFound", message: "Instance \(uuid) could not be found.")
    }
}
