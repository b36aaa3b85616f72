// Operations on instances that have arguments of their own, from the message to the instance's runner.
import ComputeDriver
import JSON
import NovaObjects
import OsloMessaging

extension ComputeManager {
    /// Nil: the method is none of these.
    func requestOperation(
        _ method: RPCMethod, _ arguments: ArgumentReader, _ request: RPCRequest
    ) async throws -> JSONValue? {
        guard let body = try body(of: method, arguments) else { return nil }
        let instance: Instance = try arguments.object("instance")
        let operation = operation(
            method.name, on: instance, arguments: arguments.values, context: request.context)
        return try await enqueue(operation, .request, instance, waits: request.isCall) { instance in
            try await body(self, &instance, operation)
            return .null
        }
    }

    private typealias Body = @Sendable (ComputeManager, inout Instance, Operation) async throws -> Void

    /// Arguments are read here, before anything is begun.
    private func body(of method: RPCMethod, _ arguments: ArgumentReader) throws -> Body? {
        let isClean = arguments.flag("clean_shutdown", or: true)
        let imageID = arguments.text("image_id").flatMap { $0.isEmpty ? nil : $0 }
        switch method.name {
        case "start_instance": return { try await $0.start(&$1, $2) }
        case "pause_instance": return { try await $0.pause(&$1, $2) }
        case "unpause_instance": return { try await $0.unpause(&$1, $2) }
        case "suspend_instance": return { try await $0.suspend(&$1, $2) }
        case "resume_instance": return { try await $0.resume(&$1, $2) }
        case "soft_delete_instance": return { try await $0.softDelete(&$1, $2) }
        case "restore_instance": return { try await $0.restore(&$1, $2) }
        case "trigger_crash_dump": return { try await $0.triggerCrashDump($1, $2) }
        case "rescue_instance":
            let (password, image) = (arguments.text("rescue_password"), arguments.text("rescue_image_ref"))
            return { try await $0.rescue(&$1, password: password, imageID: image, isClean: isClean, $2) }
        case "unrescue_instance": return { try await $0.unrescue(&$1, $2) }
        case "rebuild_instance":
            let request = RebuildRequest(arguments)
            return { try await $0.rebuild(&$1, request, $2) }
        case "snapshot_instance":
            let id = try Self.required(imageID, "image_id")
            return { try await $0.snapshot(&$1, imageID: id, $2) }
        case "backup_instance":
            let (id, kind) = (try Self.required(imageID, "image_id"), arguments.text("backup_type") ?? "")
            let rotation = try arguments.number("rotation") ?? -1
            return { try await $0.backup(&$1, imageID: id, kind: kind, rotation: rotation, $2) }
        case "shelve_instance": return { try await $0.shelve(&$1, imageID: imageID, isClean: isClean, $2) }
        case "shelve_offload_instance": return { try await $0.offload(&$1, isClean: isClean, $2) }
        case "unshelve_instance":
            let request = UnshelveRequest(arguments)
            return { try await $0.unshelve(&$1, request, $2) }
        default: return nil
        }
    }

    private static func required(_ text: String?, _ name: String) throws -> String {
        guard let text else { throw NovaException.invalidArgument(name, "it is missing") }
        return text
    }
}
