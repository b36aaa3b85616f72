// confirm_resize, revert_resize and finish_revert_resize (RPC reference §5.8): the user's word on the new size. Source and
// destination are this host; the revert is two messages all the same, as a control plane sees it.
import ComputeDriver
import JSON
import Logging
import NovaObjects
import OsloMessaging

extension ComputeManager {
    func confirmResize(_ instance: inout Instance, _ resize: Resize) async throws {
        let (operation, context) = (resize.operation, resize.context)
        guard ["finished", "confirming"].contains(resize.migration.status) else {
            return operation.logger.info(
                "the migration is not to be confirmed", metadata: ["status": "\(resize.migration.status ?? "-")"])
        }
        // As it is now: a delete may have been faster.
        do { instance = try await fetchResized(instance.uuid, context) } catch
            where NovaException.isClass("InstanceNotFound", error) {
            return operation.logger.info("the instance is gone")
        }
        do {
            try await settle(&instance, resize)
            await forgetResize(&instance, resize)
        } catch {
            // The server has its new size however this went: what is held for the old one goes.
            await forgetResize(&instance, resize)
            try await setErrorState(&instance, context)
            throw error
        }
    }

    private func fetchResized(_ uuid: String, _ context: RequestContext) async throws -> Instance {
        let answer = try await services.conductor.callClass(
            "Instance", "get_by_uuid", [.string(uuid)], ["expected_attrs": ["metadata", "system_metadata", "flavor"]],
            context: context)
        return try Instance(primitive: answer)
    }

    private func settle(_ instance: inout Instance, _ resize: Resize) async throws {
        let context = resize.context
        var migration = resize.migration
        await notify(instance, "resize_confirm", .start, context)
        try await services.network.clearMoveMarks(of: instance, context: context)
        let networkInfo = try await networkInfo(of: &instance, resize.operation)
        try await services.driver.confirmResize(instanceUUID: instance.uuid)
        try await services.books.endResize(&instance, &migration, as: .confirmed, context: context)
        // A server that was stopped may have been started since, to see whether it works.
        instance.vmState = instance.powerState == PowerState.shutdown.rawValue ? "stopped" : "active"
        instance.taskState = nil
        try await services.conductor.save(&instance, expecting: [nil, "deleting", "soft-deleting"], context: context)
        await notify(instance, "resize_confirm", .end, context, networkInfo: networkInfo)
    }

    /// What a resize held for the way back, once there is none. The flavors go last: the audit counts by them.
    private func forgetResize(_ instance: inout Instance, _ resize: Resize) async {
        let (operation, context, left) = (resize.operation, resize.context, instance)
        instance = await shielded {
            var instance = left
            instance.object.resetChanges()
            await self.tried("drop the migration's allocations", operation) {
                try await self.services.books.dropAllocations(of: resize.migration)
            }
            // nova-compute tells of a server that left, which is true of the source host; this one still has it.
            await self.services.books.tellSchedulers(updated: instance, context: context)
            instance.forgetResize()
            await self.tried("forget the flavors of the resize", operation) {
                try await self.services.conductor.save(&instance, context: context)
            }
            return instance
        }
    }

    // MARK: Revert

    func revertResize(_ instance: inout Instance, _ resize: Resize) async throws {
        try refuseForeign(resize.migration)
        let context = resize.context
        var move = resize
        await notify(instance, "exists", nil, context)
        do {
            try await loadFlavors(of: &instance, context)
            try await services.network.clearMoveMarks(of: instance, context: context)
            try await services.network.activateBindings(of: instance, on: host, context: context)
            let networkInfo = try await networkInfo(of: &instance, resize.operation)
            // The disks stay: among them are those to come back to.
            try await services.driver.destroy(
                instance: instance, interfaces: networkInfo.map(\.interfaceRequest), destroysDisks: false)
            try await services.books.endResize(&instance, &move.migration, as: .reverted, context: context)
            try await sendOn("finish_revert_resize", instance, move, ["request_spec"])
        } catch {
            try await failRevert(&instance, NovaException(error), context)
            throw error
        }
    }

    func finishRevertResize(_ instance: inout Instance, _ resize: Resize) async throws {
        try refuseForeign(resize.migration)
        let context = resize.context
        do {
            try await load("system_metadata", of: &instance, context: context)
            try await loadFlavors(of: &instance, context)
            try await takeOldSize(&instance, resize)
        } catch {
            if !NovaException(error).isTakenOver { await forgetFlavors(&instance, resize) }
            try await failRevert(&instance, NovaException(error), context)
            throw error
        }
        await forgetFlavors(&instance, resize)
    }

    /// Where the row is somebody else's, its state is too.
    private func failRevert(
        _ instance: inout Instance, _ exception: NovaException, _ context: RequestContext
    ) async throws {
        if !exception.isTakenOver { try await setErrorState(&instance, context) }
    }

    private func takeOldSize(_ instance: inout Instance, _ resize: Resize) async throws {
        let (operation, context) = (resize.operation, resize.context)
        let isOn = instance.stateBeforeResize != "stopped"
        await notify(instance, "resize_revert", .start, context)
        guard let flavor = instance.oldFlavor else { throw NovaException.migration("the server's old flavor is not known") }
        instance.take(flavor)
        instance.host = resize.migration.sourceCompute
        instance.node = resize.migration.sourceNode
        try await services.conductor.save(&instance, expecting: ["resize_reverting"], context: context)
        try await services.books.revertAllocations(of: resize.migration, to: instance.uuid)
        try await services.network.bindPorts(of: instance, to: host, context: context)
        let networkInfo = try await networkInfo(of: &instance, operation)
        try await services.driver.revertResize(instanceUUID: instance.uuid)
        if isOn {
            try await services.driver.powerOn(instance: instance, interfaces: networkInfo.map(\.interfaceRequest))
        }
        try await services.conductor.call(&instance, "drop_migration_context", context: context)
        instance.launchedAt = .now
        try await services.conductor.save(&instance, expecting: ["resize_reverting"], context: context)
        if isOn {
            instance.vmState = "active"
            instance.taskState = nil
            try await services.conductor.save(&instance, context: context)
        } else {
            instance.taskState = "powering-off"
            try await services.conductor.save(&instance, context: context)
            let stop = self.operation("stop_instance", on: instance, context: context)
            _ = try await wrapped(stop, &instance) { instance in
                try await self.stop(&instance, isClean: true, stop)
                return .null
            }
        }
        await notify(instance, "resize_revert", .end, context, networkInfo: networkInfo)
    }

    private func forgetFlavors(_ instance: inout Instance, _ resize: Resize) async {
        let left = instance
        instance = await shielded {
            var instance = left
            instance.object.resetChanges()
            instance.forgetResize()
            await self.tried("forget the flavors of the resize", resize.operation) {
                try await self.services.conductor.save(&instance, context: resize.context)
            }
            return instance
        }
    }
}
