// The compute RPC API over the manager: one endpoint for 6.x, one for a control plane pinned to 5.x, and `baseapi`.
import ComputeDriver
package import JSON
import NovaObjects
package import OsloMessaging
import ServiceMetrics

/// Version 6.x or 5.x of the compute API, no namespace.
package struct ComputeEndpoint: RPCEndpoint {
    package let version: String
    package let methods: Set<String>
    private let manager: ComputeManager

    package var namespace: String? { nil }

    package init(_ manager: ComputeManager) {
        self.manager = manager
        version = manager.services.conductor.profile.computeRPCVersion
        let minor = version.split(separator: ".").last.flatMap { Int($0) } ?? 0
        methods = Set(RPCMethodTable.all.filter { $0.minorVersion <= minor }.map(\.name))
    }

    private init(compatible manager: ComputeManager) {
        self.manager = manager
        version = "5.13"
        methods = Set(RPCMethodTable.all.filter { $0.minorVersion == 0 }.map(\.name))
    }

    /// All endpoints of the compute server, in the order in which a message is offered to them.
    package static func all(_ manager: ComputeManager) -> [any RPCEndpoint] {
        [ComputeEndpoint(manager), BaseEndpoint(), ComputeEndpoint(compatible: manager)]
    }

    package func dispatch(_ request: RPCRequest) async throws -> JSONValue {
        let metrics = manager.services.metrics
        metrics.rpcReceived.increment(request.method)
        do {
            let answer = try await answer(request)
            if request.isCall { metrics.rpcReplied.increment(request.method, "success") }
            return answer
        } catch {
            if request.isCall { metrics.rpcReplied.increment(request.method, "failure") }
            throw (error as? RemoteFailure) ?? NovaException(error).failure
        }
    }

    private func answer(_ request: RPCRequest) async throws -> JSONValue {
        guard let method = RPCMethodTable.byName[request.method] else {
            throw NovaException.notImplemented(request.method)
        }
        let arguments = try ArgumentReader(upgraded(request), of: method)
        guard method.isCarriedOut else {
            return try await manager.requestRefusal(method, arguments, context: request.context)
        }
        return try await manager.carryOut(method, arguments, request)
    }

    /// 5.x calls a flavor "instance_type"; what else differs is optional here.
    private func upgraded(_ request: RPCRequest) -> [String: JSONValue] {
        var arguments = request.arguments
        if request.version.hasPrefix("5."), arguments["flavor"] == nil, let type = arguments["instance_type"] {
            arguments["flavor"] = type
        }
        return arguments
    }
}

/// The endpoint that every service of Nova has.
package struct BaseEndpoint: RPCEndpoint {
    package let namespace: String? = "baseapi"
    package let version = "1.1"
    package let methods: Set<String> = ["ping", "get_backdoor_port"]

    package init() {}

    package func dispatch(_ request: RPCRequest) async throws -> JSONValue {
        switch request.method {
        case "ping": ["service": "compute", "arg": request.arguments["arg"] ?? .null]
        default: .null
        }
    }
}

extension ComputeManager {
    func carryOut(_ method: RPCMethod, _ arguments: ArgumentReader, _ request: RPCRequest) async throws -> JSONValue {
        let context = request.context
        switch method.name {
        case "build_and_run_instance":
            try await requestBuild(try BuildRequest(arguments), context: context)
            return .null
        case "terminate_instance":
            try await requestTerminate(try arguments.object("instance"), context, arguments: arguments.values)
            return .null
        case "stop_instance":
            return try await requestStop(
                try arguments.object("instance"), isClean: arguments.flag("clean_shutdown", or: true),
                context: context, waits: request.isCall)
        case "reboot_instance":
            let isSoft = arguments.text("reboot_type") == "SOFT"
            try await requestReboot(
                try arguments.object("instance"), isSoft: isSoft, context: context, waits: request.isCall)
            return .null
        case "get_console_output", "get_diagnostics", "get_instance_diagnostics":
            return try await answerQuestion(method, arguments, context)
        case "prep_resize", "resize_instance", "finish_resize", "confirm_resize", "revert_resize", "finish_revert_resize":
            return try await requestResize(method, arguments, request)
        case "external_instance_event":
            return try await wrappedHost(method.name, arguments: arguments.values, context: context) {
                await self.externalInstanceEvent(
                    try arguments.objects("instances"), try arguments.objects("events"), context: context)
                return .null
            }
        default:
            if let answer = try await requestOperation(method, arguments, request) { return answer }
            return try await carryOutOnHost(method, arguments, context)
        }
    }

    private func answerQuestion(
        _ method: RPCMethod, _ arguments: ArgumentReader, _ context: RequestContext
    ) async throws -> JSONValue {
        var instance: Instance = try arguments.object("instance")
        let operation = operation(method.name, on: instance, arguments: arguments.values, context: context)
        return try await wrapped(operation, &instance) { instance in
            switch method.name {
            case "get_console_output":
                try await self.consoleOutput(instance, tailLength: try arguments.number("tail_length"))
            case "get_diagnostics": try await self.diagnostics(instance)
            default: try await self.instanceDiagnostics(instance)
            }
        }
    }

    private func carryOutOnHost(
        _ method: RPCMethod, _ arguments: ArgumentReader, _ context: RequestContext
    ) async throws -> JSONValue {
        try await wrappedHost(method.name, arguments: arguments.values, context: context) {
            switch method.name {
            case "get_host_uptime": return .string(try await self.services.driver.hostUptime())
            case "set_host_enabled":
                let isEnabled = arguments.flag("enabled", or: true)
                try await self.services.books.setEnabled(isEnabled, context: context)
                return isEnabled ? "enabled" : "disabled"
            case "cache_images":
                // Images are fetched when a server needs them.
                let ids = arguments.texts("image_ids")
                return .object(Dictionary(ids.map { ($0, "unsupported") }, uniquingKeysWith: { first, _ in first }))
            default: throw NovaException.notImplemented(method.name)
            }
        }
    }
}
