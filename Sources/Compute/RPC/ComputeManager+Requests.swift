// The operations as requests: what is queued for an instance's runner, for messages and for this service's own initiative alike.
import JSON
import NovaObjects
import OsloMessaging

extension ComputeManager {
    func requestBuild(_ request: BuildRequest, context: RequestContext) async throws {
        let operation = operation(
            "build_and_run_instance", on: request.instance, arguments: request.received, context: context)
        let interruption = Interruption()
        let build = Build(request: request, operation: operation, interruption: interruption)
        _ = try await enqueue(operation, .build, request.instance, interruption: interruption, waits: false) { exception in
            // Nobody here will build it: as any build that failed.
            var instance = request.instance
            _ = await self.finish(.reschedule(exception, byPolicy: false), &instance, build)
        } body: { instance in
            try await self.buildAndRun(&instance, build)
            return .null
        }
    }

    func requestTerminate(_ instance: Instance, _ context: RequestContext, arguments: [String: JSONValue] = [:]) async throws {
        let operation = operation("terminate_instance", on: instance, arguments: arguments, context: context)
        _ = try await enqueue(operation, .terminate, instance, waits: false) { instance in
            try await self.terminate(&instance, operation)
            return .null
        }
    }

    @discardableResult
    func requestStop(
        _ instance: Instance, isClean: Bool, context: RequestContext, waits: Bool = false
    ) async throws -> JSONValue {
        let operation = operation("stop_instance", on: instance, context: context)
        return try await enqueue(operation, .request, instance, waits: waits) { instance in
            try await self.stop(&instance, isClean: isClean, operation)
            return .null
        }
    }

    func requestReboot(
        _ instance: Instance, isSoft: Bool, context: RequestContext, waits: Bool = false
    ) async throws {
        let operation = operation("reboot_instance", on: instance, context: context)
        _ = try await enqueue(operation, .request, instance, waits: waits) { instance in
            try await self.reboot(&instance, isSoft: isSoft, operation)
            return .null
        }
    }

    /// A method that is not carried out: its wrappers leave the server usable, with an event and a fault that say so.
    func requestRefusal(
        _ method: RPCMethod, _ arguments: ArgumentReader, context: RequestContext
    ) async throws -> JSONValue {
        let exception = NovaException.unavailable(method)
        guard let instance: Instance = try arguments.optionalObject("instance") else {
            return try await wrappedHost(method.name, arguments: arguments.values, context: context) { throw exception }
        }
        let operation = operation(method.name, on: instance, arguments: arguments.values, context: context)
        var changed = instance
        return try await wrapped(operation, &changed) { _ in throw exception }
    }
}

extension NovaException {
    static func unavailable(_ method: RPCMethod) -> NovaException {
        switch method.refusal {
        case .exception(let name):
            let reason = "\(method.name) is not available on this compute host"
            return NovaException(name, reason, keywords: ["reason": .string(reason)])
        case .notImplemented, nil: return .notImplemented(method.name)
        }
    }
}
