// A resize that went wrong, or that a restart of this service found half done. The order is that of what hurts most: the machine,
// its record, what the host and Placement count. No step depends on the one before.
import ComputeDriver
import JSON
import Logging
import NovaObjects
import OsloMessaging

extension ComputeManager {
    /// The server is as it was before: disks, size, power, flavor, allocations. Where its machine does not come up again, it is in
    /// error. Runs to its end also where the operation was cancelled.
    /// - Parameter isTouched: the machine may be off or changed.
    func rollBack(_ instance: inout Instance, _ resize: Resize, _ exception: NovaException, isTouched: Bool) async {
        let left = instance
        instance = await shielded {
            var instance = left
            var isBack = true
            if isTouched { isBack = await self.bringBack(instance, resize) }
            await self.restoreRecord(&instance, resize, exception, isBack: isBack)
            return instance
        }
    }

    /// A last step that finds another task than its own changes nothing: the server may have its new size already. One that is
    /// deleted, or about to be, takes its migration's allocations along.
    func leave(_ resize: Resize, to exception: NovaException) async {
        guard exception.className != "UnexpectedTaskStateError" else { return }
        await shielded {
            await self.tried("drop the migration's allocations", resize.operation) {
                try await self.services.books.dropAllocations(of: resize.migration)
            }
        }
    }

    /// Placement counts the old size by the instance again. A server that is gone takes nothing back.
    func giveAllocationsBack(of resize: Resize, to instance: Instance, _ exception: NovaException) async {
        await tried("give the allocations back", resize.operation) {
            if exception.isTakenOver, exception.className == "InstanceNotFound" {
                try await self.services.books.dropAllocations(of: resize.migration)
            } else {
                try await self.services.books.revertAllocations(of: resize.migration, to: instance.uuid)
            }
        }
    }

    /// - Returns: true where the machine is as it was.
    private func bringBack(_ instance: Instance, _ resize: Resize) async -> Bool {
        do {
            try await services.driver.revertResize(instanceUUID: instance.uuid)
            if instance.stateBeforeResize != "stopped" {
                let interfaces = services.network.cached(instance).map(\.interfaceRequest)
                try await services.driver.powerOn(instance: instance, interfaces: interfaces)
            }
            return true
        } catch {
            resize.operation.logger.error("the machine could not be brought back", metadata: ["error": "\(error)"])
            return false
        }
    }

    private func restoreRecord(
        _ instance: inout Instance, _ resize: Resize, _ exception: NovaException, isBack: Bool
    ) async {
        let (operation, context) = (resize.operation, resize.context)
        var (left, migration) = (instance, resize.migration)
        left.object.resetChanges()
        if let old = left.oldFlavor, left.instanceTypeID != old.id {
            left.take(old)
            left.take(.old, of: left.migrationContext)
        }
        left.vmState = isBack ? left.systemMetadata["old_vm_state"] ?? left.vmState : "error"
        left.taskState = nil
        if let powerState = try? await powerState(of: left) { left.powerState = powerState.rawValue }
        left.forgetResize()
        if !exception.isTakenOver {
            await tried("leave the server as it was", operation) {
                try await self.services.conductor.save(
                    &left, expecting: ["resize_prep", "resize_migrating", "resize_migrated", "resize_finish"], context: context)
            }
        }
        left.object.resetChanges()
        await tried("end the claim of the new size", operation) {
            try await self.services.books.endResize(&left, &migration, as: .failed, context: context)
        }
        await giveAllocationsBack(of: resize, to: left, exception)
        instance = left
    }

    /// The machine runs in its new size and the record of it failed: whether it was written nobody knows. The server is in error as
    /// with Nova, and a hard reboot makes it active; what was kept of the old size goes.
    func keepNewSize(_ instance: inout Instance, _ resize: Resize, _ exception: NovaException) async {
        let (operation, left) = (resize.operation, instance)
        instance = await shielded {
            var instance = left
            if !exception.isTakenOver { try? await self.setErrorState(&instance, operation.context) }
            await self.tried("drop what was kept", operation) {
                try await self.services.driver.confirmResize(instanceUUID: instance.uuid)
            }
            await self.tried("drop the migration's allocations", operation) {
                try await self.services.books.dropAllocations(of: resize.migration)
            }
            return instance
        }
    }

    // MARK: After a restart

    /// A resize that died with the service. In "resize_migrating" the old machine comes back (`_init_instance`). In
    /// "resize_finish", where nova-compute leaves a server for ever, the rest is carried out.
    func requestResizeRepair(_ instance: Instance, _ context: RequestContext) async throws {
        let operation = operation("repair_resize", on: instance, wrappers: [.instanceFault], context: context)
        _ = try await enqueue(operation, .request, instance, waits: false) { instance in
            try await self.repairResize(&instance, operation)
            return .null
        }
    }

    private func repairResize(_ instance: inout Instance, _ operation: Operation) async throws {
        let context = operation.context
        let task = instance.taskState
        let attributes = ["info_cache", "system_metadata", "flavor", "migration_context"]
        guard
            let found = try await services.conductor.instanceRecord(
                instance.uuid, attributes: attributes, context: context), found.taskState == task, found.host == host
        else { return }
        instance = found
        guard let id = instance.migrationContext?.migrationID else {
            instance.taskState = nil
            return try await services.conductor.save(&instance, expecting: [task], context: context)
        }
        let migration = try await services.conductor.migration(id, of: instance.uuid, context: context)
        let resize = Resize(migration, image: instance.imageOfMetadata, operation)
        if task == "resize_finish" {
            let networkInfo = try await networkInfo(of: &instance, operation)
            return try await complete(&instance, resize, networkInfo)
        }
        let exception = NovaException.migration("the compute service ended in the middle of the resize; try it again")
        await addFault(exception, operation, instance)
        await rollBack(&instance, resize, exception, isTouched: true)
    }
}

extension Instance {
    /// The image as the server's system metadata remembers it, in Nova's form (`get_image_from_system_metadata`).
    var imageOfMetadata: JSONValue {
        let properties = systemMetadata.filter { $0.key.hasPrefix("image_") }
            .map { (String($0.key.dropFirst("image_".count)), JSONValue.string($0.value)) }
        return [
            "id": .nullable(imageRef), "disk_format": .nullable(systemMetadata["image_disk_format"]),
            "properties": .object(Dictionary(properties, uniquingKeysWith: { first, _ in first })),
        ]
    }
}
