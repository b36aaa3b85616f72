// A conductor for the objects that networks and metadata need: one info cache and the virtual interfaces of one instance.
import JSON
import NovaObjects
import OsloMessaging
import Synchronization

@testable import Compute

final class ConductorTwin: RPCClient {
    struct Call: Sendable, Equatable {
        /// "InstanceInfoCache.save".
        var name: String
        var object: JSONValue?
        var arguments: [JSONValue] = []
    }
    struct State: Sendable {
        var networkInfo: String = "[]"
        var interfaces: [JSONValue] = []
        var calls: [Call] = []
        /// What a class method answers, by "Class.method".
        var answers: [String: JSONValue] = [:]
        var failures: [String: RemoteFailure] = [:]
    }
    let state: Mutex<State>

    init(networkInfo: [JSONValue] = [], answers: [String: JSONValue] = [:]) {
        state = Mutex(State(networkInfo: JSONValue.array(networkInfo).serialize(), answers: answers))
    }

    var calls: [Call] { state.withLock { $0.calls } }
    var names: [String] { calls.map(\.name) }
    /// The cache as it was saved last.
    var networkInfo: [JSONValue] {
        (try? JSONValue.parse(state.withLock { $0.networkInfo }))?.arrayValue ?? []
    }
    var conductor: Conductor { Conductor(client: self, profile: .zed, timeout: .seconds(60)) }

    func fail(_ name: String, with failure: RemoteFailure) { state.withLock { $0.failures[name] = failure } }

    func call(
        _ target: RPCTarget, _ method: String, _ arguments: [String: JSONValue], context: RequestContext,
        timeout: Duration, monitor: Duration?
    ) async throws -> JSONValue {
        let object = arguments["objinst"]
        let className = arguments["objname"]?.stringValue ?? object?["nova_object.name"]?.stringValue ?? "?"
        let name = "\(className).\(arguments["objmethod"]?.stringValue ?? "?")"
        let values = arguments["args"]?.arrayValue ?? []
        return try state.withLock { state in
            state.calls.append(Call(name: name, object: object, arguments: values))
            if let failure = state.failures[name] { throw failure }
            switch name {
            case "InstanceInfoCache.refresh":
                return [["network_info": .string(state.networkInfo), "obj_what_changed": []], .null]
            case "InstanceInfoCache.save":
                state.networkInfo = object?["nova_object.data"]?["network_info"]?.stringValue ?? "?"
                return [["obj_what_changed": []], .null]
            case "VirtualInterface.create":
                state.interfaces.append(object ?? .null)
                return [["id": .integer(Int64(state.interfaces.count)), "obj_what_changed": []], .null]
            case "VirtualInterface.destroy":
                let uuid = object?["nova_object.data"]?["uuid"]
                state.interfaces.removeAll { $0["nova_object.data"]?["uuid"] == uuid }
                return [["obj_what_changed": []], .null]
            case "VirtualInterface.delete_by_instance_uuid":
                state.interfaces = []
                return .null
            default:
                guard let answer = state.answers[name] else {
                    throw RemoteFailure(className: "NotImplementedError", module: "builtins", message: name)
                }
                return answer
            }
        }
    }

    func cast(
        _ target: RPCTarget, _ method: String, _ arguments: [String: JSONValue], context: RequestContext
    ) async throws {}
}

extension Instance {
    /// An instance as the recorded operations have it.
    static func sample(networkInfo: [JSONValue]? = []) -> Instance {
        var instance = Instance(in: .zed)
        let fields: [String: JSONValue] = [
            "id": 7, "uuid": "b32d371a-9b1b-46c6-a157-83b93f58edd7", "project_id": "a16b072ee0b744c19c74e02159b7cd14",
            "user_id": "u", "hostname": "rec-1", "display_name": "rec-1", "availability_zone": "nova", "deleted": false,
        ]
        for (field, value) in fields { instance.object.load(field, value) }
        if let networkInfo {
            var cache = InstanceInfoCache(in: .zed)
            cache.object.load("instance_uuid", .string(instance.uuid))
            cache.object.load("network_info", .string(JSONValue.array(networkInfo).serialize()))
            instance.object.load("info_cache", cache.primitive)
        }
        return instance
    }
}

extension RequestContext {
    static let user = RequestContext(entries: [
        "request_id": "req-1", "auth_token": "user-token", "user_id": "u", "project_id": "p", "is_admin": false,
    ])
}
