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
        try await endTask(of: &instance, as: "soft-delete", expecting: ["soft-deleting"], context)
        await notify(instance, "soft_delete", .end, context)
    }

    func restore(_ instance: inout Instance, _ operation: Operation) async throws {
        let context = operation.context
        await notify(instance, "restore", .start, context)
        let networkInfo = try await networkInfo(of: &instance, operation)
        try await services.driver.powerOn(instance: instance, interfaces: networkInfo.map(\.interfaceRequest))
        try await endTask(of: &instance, as: "active", expecting: ["restoring"], context)
        await notify(instance, "restore", .end, context)
    }

    func triggerCrashDump(_ instance: Instance, _ operation: Operation) async throws {
        await notify(instance, "trigger_crash_dump", .start, operation.context)
        try await services.driver.injectNMI(instanceUUID: instance.uuid)
        await notify(instance, "trigger_crash_dump", .end, operation.context)
    }
}
