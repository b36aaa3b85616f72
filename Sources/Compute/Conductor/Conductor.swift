// The conductor as this service reaches the database: every object method is a call on topic "conductor" (contract §4.1).
// Failures arrive as `RemoteFailure` with the class of nova.exception; silence as `MessagingTimeout`.
package import JSON
package import NovaObjects
package import OsloMessaging

/// Calls to the conductor. A value: copies share the client's connections.
package struct Conductor: Sendable {
    let client: any RPCClient
    let timeout: Duration
    package let profile: ReleaseProfile

    /// - Parameter timeout: `rpc_response_timeout`.
    package init(client: any RPCClient, profile: ReleaseProfile, timeout: Duration) {
        self.client = client
        self.profile = profile
        self.timeout = timeout
    }

    /// Returns when a conductor answered; throws `MessagingTimeout` after `timeout`.
    package func ping(context: RequestContext, timeout: Duration) async throws {
        _ = try await client.call(
            RPCTarget(topic: "conductor", namespace: "baseapi", version: "1.0"), "ping", ["arg": "1.21 GigaWatts"],
            context: context, timeout: timeout, monitor: nil)
    }

    /// A class method of an object. The answer is what it returned: a primitive, a list object, a scalar or null.
    package func callClass(
        _ objectName: String, _ method: String, _ arguments: [JSONValue] = [], _ keywords: [String: JSONValue] = [:],
        context: RequestContext
    ) async throws -> JSONValue {
        try await client.call(
            RPCTarget(topic: "conductor", version: "3.0"), "object_class_action_versions",
            [
                "objname": .string(objectName), "objmethod": .string(method),
                "object_versions": .object(profile.manifest(of: objectName)), "args": .array(arguments),
                "kwargs": .object(keywords),
            ], context: context, timeout: timeout, monitor: nil)
    }

    /// A method of `object`, which afterwards has the fields the conductor changed. The answer is the method's result.
    @discardableResult
    package func call<Object: NovaObject>(
        _ object: inout Object, _ method: String, _ arguments: [JSONValue] = [], _ keywords: [String: JSONValue] = [:],
        context: RequestContext
    ) async throws -> JSONValue {
        let answer = try await client.call(
            RPCTarget(topic: "conductor", version: "3.0"), "object_action",
            [
                "objinst": object.primitive, "objmethod": .string(method), "args": .array(arguments),
                "kwargs": .object(keywords),
            ], context: context, timeout: timeout, monitor: nil)
        guard let parts = answer.arrayValue, parts.count == 2, let updates = parts[0].objectValue else {
            throw ObjectError(.wrongType, object: Object.objectName, reason: "the answer to \(method) is no [updates, result]")
        }
        object.object.apply(updates: updates)
        return parts[1]
    }

    /// A cast to the conductor's task API ("build_instances", …).
    package func castTask(
        _ method: String, version: String, _ arguments: [String: JSONValue], context: RequestContext
    ) async throws {
        try await client.cast(
            RPCTarget(topic: "conductor", namespace: "compute_task", version: version), method, arguments, context: context)
    }
}

extension Conductor {
    /// Instance.save. Does nothing where nothing changed and nothing is expected, as Nova does.
    /// - Parameter expecting: task states that the row may be in; a nil inside stands for "no task". Nil: any.
    package func save(_ instance: inout Instance, expecting taskStates: [String?]? = nil, context: RequestContext) async throws {
        guard taskStates != nil || !instance.object.changes.isEmpty else { return }
        var keywords: [String: JSONValue] = [:]
        if let taskStates { keywords["expected_task_state"] = .array(taskStates.map { .nullable($0) }) }
        try await call(&instance, "save", [], keywords, context: context)
    }
}
