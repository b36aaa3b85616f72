// soft delete, restore, crash dump (RPC reference §5.15).
import ComputeDriver
import JSON
import Logging
import NovaObjects
import OsloMessaging

extension ComputeManager {
    func softDelete(_ instance: inout Instance, _ operation: Operation) async throws {
        let context = operation.context
        await notify(instance, "soft_delete", .start, context)
        do { try await services.driver.powerOff(instance: instance, timeout: .zero, retryInterval: .zero) } catch
            where NovaException.isClass("InstanceNotFound", error) {
            operation.logger.debug("there is no machine to end")
        }
        instance.powerState = try await powerState(of: instance).rawValue
        instance.vmState = "soft-delete"
        instance.taskState = nil
        try await services.conductor.save(&instance, expecting: ["soft-deleting"], context: context)
        await notify(instance, "soft_delete", .end, context)
    }

    func restore(_ instance: inout Instance, _ operation: Operation) async throws {
        let context = operation.context
        await notify(instance, "restore", .start, context)
        let networkInfo = try await networkInfo(of: &instance, operation)
        try await services.driver.powerOn(instance: instance, interfaces: networkInfo.map(\.interfaceRequest))
        instance.powerState = try await powerState(of: instance).rawValue
        instance.vmState = "active"
        instance.taskState = nil
        try await services.conductor.save(&instance, expecting: ["restoring"], context: context)
        await notify(instance, "restore", .end, context)
    }

    func triggerCrashDump(_ instance: Instance, _ operation: Operation) async throws {
        await notify(instance, "trigger_crash_dump", .start, operation.context)
        try await services.driver.injectNMI(instanceUUID: instance.uuid)
        await notify(instance, "trigger_crash_dump", .end, operation.context)
    }
}
