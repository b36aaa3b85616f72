// terminate_instance (RPC reference §5.2). What is already gone is no error: a delete may be the second one, or the end of one
// that a restart interrupted.
import ComputeDriver
import JSON
import Logging
import NovaObjects
import OpenStackHTTP
import OsloMessaging

extension ComputeManager {
    func terminate(_ instance: inout Instance, _ operation: Operation) async throws {
        externalEvents.drop(instanceUUID: instance.uuid)
        do {
            try await delete(&instance, operation)
        } catch where NovaException.isClass("InstanceNotFound", error) {
            operation.logger.info("the instance is already gone")
        } catch {
            try? await setErrorState(&instance, operation.context)
            throw error
        }
    }

    private func delete(_ instance: inout Instance, _ operation: Operation) async throws {
        let context = operation.context
        await notify(instance, "delete", .start, context)
        try await shutdown(&instance, operation)
        instance.vmState = "deleted"
        instance.taskState = nil
        instance.powerState = PowerState.noState.rawValue
        instance.terminatedAt = .now
        try await services.conductor.save(&instance, context: context)
        try await complete(&instance, operation)
        await notify(instance, "delete", .end, context)
    }

    /// From a saved "deleted" to the end of the record; also what a restart finishes.
    func complete(_ instance: inout Instance, _ operation: Operation) async throws {
        let context = operation.context
        await services.books.updateUsage(instance, context: context)
        await deleteAllocations(of: instance, operation)
        await services.books.tellSchedulers(deleted: instance.uuid, context: context)
        try await services.conductor.call(&instance, "destroy", context: context)
    }

    /// Ends the machine and gives its network back.
    private func shutdown(_ instance: inout Instance, _ operation: Operation) async throws {
        let context = operation.context
        await notify(instance, "shutdown", .start, context)
        try await load("info_cache", of: &instance, context: context)
        var interfaces = services.network.cached(instance)
        if interfaces.isEmpty {
            interfaces = (try? await services.network.refresh(instance, portID: nil, context: context)) ?? []
        }
        do {
            try await services.driver.destroy(
                instance: instance, interfaces: interfaces.map(\.interfaceRequest), destroysDisks: true)
        } catch where NovaException.isClass("InstanceNotFound", error) {
            operation.logger.debug("there is no machine to end")
        } catch {
            // A machine that may still run keeps its ports: their addresses must not go to somebody else.
            if !NovaException.isClass("InstancePowerOffFailure", error), !(error is CancellationError) {
                await tried("give the network back", operation) {
                    try await self.services.network.deallocate(for: instance, requested: nil, context: context)
                }
            }
            throw error
        }
        try await deallocate(instance, operation)
        await notify(instance, "shutdown", .end, context)
    }

    /// Tries again where Neutron cannot be reached.
    private func deallocate(_ instance: Instance, _ operation: Operation) async throws {
        for attempt in 1...Self.deallocateAttempts {
            do {
                return try await services.network.deallocate(for: instance, requested: nil, context: operation.context)
            } catch where Self.isUnreachable(error) && attempt < Self.deallocateAttempts {
                operation.logger.warning(
                    "could not give the network back", metadata: ["error": "\(error)", "attempt": "\(attempt)"])
                try await Task.sleep(for: .seconds(attempt))
            }
        }
    }

    private static let deallocateAttempts = 4

    private static func isUnreachable(_ error: any Error) -> Bool {
        if let fault = error as? ServiceFault { return fault.kind == .unreachable }
        if let cause = (error as? NovaException)?.cause { return isUnreachable(cause) }
        return false
    }
}
