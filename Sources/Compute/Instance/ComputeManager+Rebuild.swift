// rebuild_instance (RPC reference §5.6), evacuation left out: the machine is ended, made anew from an image, and keeps its ports.
import ComputeDriver
import JSON
import Logging
import NovaObjects
import OsloMessaging

/// The arguments of rebuild_instance that this service uses.
struct RebuildRequest: Sendable {
    var imageID: String?
    var adminPassword: String?
    var injectedFiles: [JSONValue]
    var isEvacuation: Bool
    var preservesEphemeral: Bool
    var isStoppedAfterwards: Bool

    init(_ arguments: ArgumentReader) {
        imageID = arguments.text("image_ref").flatMap { $0.isEmpty ? nil : $0 }
        adminPassword = arguments.text("new_pass")
        injectedFiles = arguments.values["injected_files"]?.arrayValue ?? []
        isEvacuation = arguments.flag("recreate", or: false)
        preservesEphemeral = arguments.flag("preserve_ephemeral", or: false)
        isStoppedAfterwards = arguments.text("target_state") == "stopped"
    }
}

extension ComputeManager {
    func rebuild(_ instance: inout Instance, _ request: RebuildRequest, _ operation: Operation) async throws {
        let context = operation.context
        let files = try decoded(injectedFiles: request.injectedFiles)
        try refuseUnsupported(request)
        guard let imageID = request.imageID else {
            throw NovaException("ImageNotFound", "Image  could not be found: this compute host cannot rebuild a server on a volume.")
        }
        let image = try await imageRecord(imageID, context)
        try await load("info_cache", "system_metadata", "flavor", of: &instance, context: context)
        // The API refuses an image that would change them: the new machine has the old one's.
        if instance.asksForCells { try await load("numa_topology", of: &instance, context: context) }
        let wasStopped = instance.vmState == "stopped" || request.isStoppedAfterwards
        let networkInfo = services.network.cached(instance)
        let name: [String: JSONValue] = ["image_name": image["name"] ?? ""]
        await notify(instance, "rebuild", .start, context, extra: name)
        do {
            instance.powerState = try await powerState(of: instance).rawValue
            instance.taskState = "rebuilding"
            try await services.conductor.save(&instance, expecting: ["rebuilding"], context: context)
            let order = MachineOrder(image: image, files: files, adminPassword: request.adminPassword, operation: operation)
            try await replaceMachine(&instance, order, networkInfo)
            instance.launchedAt = .now
            try await endTask(of: &instance, as: "active", expecting: ["rebuild_spawning"], context)
            if wasStopped { try await stopAgain(&instance, operation) }
        } catch {
            try await rebuildFailed(&instance, error, operation)
            return
        }
        await services.books.tellSchedulers(updated: instance, context: context)
        await notify(instance, "rebuild", .end, context, networkInfo: networkInfo, extra: name)
        instance.host = host
        instance.node = services.books.nodeName
        try await services.conductor.save(&instance, context: context)
    }

    private func refuseUnsupported(_ request: RebuildRequest) throws {
        if request.isEvacuation {
            throw NovaException("InstanceEvacuateNotSupported", "Instance evacuate is not supported.")
        }
        if request.preservesEphemeral {
            throw NovaException(
                "PreserveEphemeralNotSupported", "The current driver does not support preserving ephemeral partitions.")
        }
    }

    private func replaceMachine(_ instance: inout Instance, _ order: MachineOrder, _ networkInfo: NetworkInfo) async throws {
        let context = order.operation.context
        if try await powerState(of: instance) != .noState { try await powerOff(&instance, isClean: true, order.operation) }
        try await services.driver.destroy(
            instance: instance, interfaces: networkInfo.map(\.interfaceRequest), destroysDisks: true)
        instance.taskState = "rebuild_block_device_mapping"
        try await services.conductor.save(&instance, expecting: ["rebuilding"], context: context)
        instance.taskState = "rebuild_spawning"
        try await services.conductor.save(&instance, expecting: ["rebuild_block_device_mapping"], context: context)
        do { try await makeMachine(instance.booting(order.image), order, networkInfo) } catch {
            await removeMachine(of: instance, networkInfo, order.operation)
            throw error
        }
    }

    /// A server that was stopped is stopped again, without asking the guest, which has just begun.
    private func stopAgain(_ instance: inout Instance, _ operation: Operation) async throws {
        instance.vmState = "active"
        instance.taskState = "powering-off"
        instance.progress = 0
        try await services.conductor.save(&instance, context: operation.context)
        try await stop(&instance, isClean: false, operation)
    }

    /// The server is in error, unless it is being deleted.
    private func rebuildFailed(_ instance: inout Instance, _ error: any Error, _ operation: Operation) async throws {
        let exception = NovaException(error)
        await notify(instance, "rebuild", .error, operation.context, fault: exception)
        if ["InstanceNotFound", "UnexpectedDeletingTaskStateError"].contains(exception.className) {
            return operation.logger.info("the instance went away during its rebuild")
        }
        try? await setErrorState(&instance, operation.context)
        throw exception
    }
}
