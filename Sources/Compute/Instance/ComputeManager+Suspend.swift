// suspend, resume (RPC reference §5.3): the machine on disk, without memory and CPU of the host.
import ComputeDriver
import JSON
import NovaObjects
import OsloMessaging

extension ComputeManager {
    func suspend(_ instance: inout Instance, _ operation: Operation) async throws {
        let context = operation.context
        try await load("system_metadata", of: &instance, context: context)
        let before = instance.vmState
        await notify(instance, "suspend", .start, context)
        try await services.driver.suspend(instance: instance)
        // Only now: a server that could not be suspended keeps its metadata as they were.
        instance.systemMetadata["old_vm_state"] = before
        try await endTask(of: &instance, as: "suspended", expecting: ["suspending"], context)
        await notify(instance, "suspend", .end, context)
    }

    func resume(_ instance: inout Instance, _ operation: Operation) async throws {
        let context = operation.context
        try await load("system_metadata", of: &instance, context: context)
        await notify(instance, "resume", .start, context)
        let networkInfo = try await networkInfo(of: &instance, operation)
        try await services.driver.resume(instance: instance, interfaces: networkInfo.map(\.interfaceRequest))
        let before = instance.systemMetadata["old_vm_state"] ?? "active"
        if before == "paused" { try await services.driver.pause(instanceUUID: instance.uuid) }
        instance.systemMetadata["old_vm_state"] = nil
        try await endTask(of: &instance, as: before, expecting: ["resuming"], context)
        await notify(instance, "resume", .end, context)
    }
}
