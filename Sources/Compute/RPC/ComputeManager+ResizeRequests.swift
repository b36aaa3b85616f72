// The messages of a resize: the conductor's, the API's and those this service sends to itself, one for each step. A step that
// is done leaves a record from which the next one begins, whichever process carries it out.
import JSON
import NovaObjects
import OsloMessaging

/// One step of a resize: who asked for it, and what its message says.
struct Resize: Sendable {
    let operation: Operation
    var migration: Migration
    /// In Nova's own form.
    let image: JSONValue
    /// As received: the next step gets it again.
    let received: [String: JSONValue]

    init(_ arguments: ArgumentReader, _ operation: Operation) throws {
        self.operation = operation
        migration = try arguments.object("migration")
        image = arguments.values["image"] ?? .object([:])
        received = arguments.values
    }

    init(_ migration: Migration, image: JSONValue, _ operation: Operation) {
        self.operation = operation
        self.migration = migration
        self.image = image
        received = [:]
    }

    var context: RequestContext { operation.context }
    var isClean: Bool { received["clean_shutdown"]?.boolValue ?? true }

    func flavor() throws -> Flavor {
        guard let flavor = received["flavor"] else { throw NovaException.invalidArgument("flavor", "it is missing") }
        return try Flavor(primitive: flavor)
    }
}

extension ComputeManager {
    func requestResize(
        _ method: RPCMethod, _ arguments: ArgumentReader, _ request: RPCRequest
    ) async throws -> JSONValue {
        let instance: Instance = try arguments.object("instance")
        let operation = operation(method.name, on: instance, arguments: arguments.values, context: request.context)
        let resize = try Resize(arguments, operation)
        return try await enqueue(operation, .request, instance, waits: request.isCall) { instance in
            switch method.name {
            case "prep_resize": try await self.prepareResize(&instance, resize)
            case "resize_instance": try await self.beginResize(&instance, resize)
            case "finish_resize": try await self.finishResize(&instance, resize)
            case "confirm_resize": try await self.confirmResize(&instance, resize)
            case "revert_resize": try await self.revertResize(&instance, resize)
            default: try await self.finishRevertResize(&instance, resize)
            }
            return .null
        }
    }

    /// The next step, by message: to the host that Nova would send it to, which is this one.
    func sendOn(_ method: String, _ instance: Instance, _ resize: Resize, _ further: [String]) async throws {
        var arguments: [String: JSONValue] = ["instance": instance.primitive, "migration": resize.migration.primitive]
        for name in further { arguments[name] = resize.received[name] ?? .null }
        try await services.conductor.castCompute(method, arguments, host: host, context: resize.context)
    }
}
