// resize_instance and finish_resize (RPC reference §5.8) on one host: the machine goes off, is kept as it was, gets its new size
// and goes on again. Until it is on again, what goes wrong brings the old machine back; Nova, whose machine may be on another
// host by then, leaves a server in error.
import ComputeDriver
import JSON
import Logging
import NovaObjects
import OsloMessaging
import ServiceConfiguration

extension ComputeManager {
    func beginResize(_ instance: inout Instance, _ resize: Resize) async throws {
        try refuseForeign(resize.migration)
        let context = resize.context
        let flavor = try resize.flavor()
        var (move, isTouched) = (resize, false)
        do {
            try await load("system_metadata", of: &instance, context: context)
            try await loadFlavors(of: &instance, context)
            let networkInfo = try await networkInfo(of: &instance, resize.operation)
            move.migration.status = "migrating"
            try await services.conductor.save(&move.migration, context: context)
            instance.taskState = "resize_migrating"
            try await services.conductor.save(&instance, expecting: ["resize_prep"], context: context)
            await notify(instance, "resize", .start, context, networkInfo: networkInfo)

            let request = ResizeRequest(instance: instance, flavor: flavor, image: resize.image)
            try await services.driver.checkResize(request)
            isTouched = true
            try await powerOff(&instance, isClean: resize.isClean, resize.operation)
            try await services.driver.beginResize(request)

            try await services.network.activateBindings(of: instance, on: host, context: context)
            move.migration.status = "post-migrating"
            try await services.conductor.save(&move.migration, context: context)
            instance.host = move.migration.destinationCompute
            instance.node = move.migration.destinationNode
            // Set here, so that an audit of the host sees both sizes from now on.
            instance.set("old_flavor", to: instance.object["flavor"] ?? .null)
            instance.taskState = "resize_migrated"
            try await services.conductor.save(&instance, expecting: ["resize_migrating"], context: context)
            try await sendOn("finish_resize", instance, move, ["image", "disk_info", "request_spec"])
            await notify(instance, "resize", .end, context, networkInfo: networkInfo)
            externalEvents.drop(instanceUUID: instance.uuid)
        } catch {
            await rollBack(&instance, move, NovaException(error), isTouched: isTouched)
            throw error
        }
    }

    /// A move from or to another host: this service neither sends machines nor receives them.
    func refuseForeign(_ migration: Migration) throws {
        guard migration.sourceCompute == host, migration.destinationCompute == host else {
            throw NovaException.migration("this compute host moves no servers to or from other hosts yet; it resizes its own")
        }
    }

    func finishResize(_ instance: inout Instance, _ resize: Resize) async throws {
        try refuseForeign(resize.migration)
        let networkInfo: NetworkInfo
        do { networkInfo = try await takeNewSize(&instance, resize) } catch {
            let exception = NovaException(error)
            if exception.isTakenOver {
                await leave(resize, to: exception)
            } else {
                await rollBack(&instance, resize, exception, isTouched: true)
            }
            throw error
        }
        await notify(instance, "resize_finish", .start, resize.context, networkInfo: networkInfo)
        try await complete(&instance, resize, networkInfo)
    }

    /// Up to the saved "resize_finish": the record has the new flavor.
    private func takeNewSize(_ instance: inout Instance, _ resize: Resize) async throws -> NetworkInfo {
        let context = resize.context
        try await load("system_metadata", of: &instance, context: context)
        try await loadFlavors(of: &instance, context)
        instance.set("old_flavor", to: instance.object["flavor"] ?? .null)
        guard let flavor = instance.newFlavor else { throw NovaException.migration("the server's new flavor is not known") }
        instance.take(flavor)
        instance.take(.new, of: instance.migrationContext)
        try await services.network.bindPorts(of: instance, to: host, context: context)
        let networkInfo = try await networkInfo(of: &instance, resize.operation)
        instance.taskState = "resize_finish"
        try await services.conductor.save(&instance, expecting: ["resize_migrated"], context: context)
        return networkInfo
    }

    /// From "resize_finish" to the server that waits for its user's word; also what a restart goes on with.
    func complete(_ instance: inout Instance, _ resize: Resize, _ networkInfo: NetworkInfo) async throws {
        let context = resize.context
        var move = resize
        do {
            guard let flavor = instance.flavor else { throw NovaException.migration("the server's flavor is not known") }
            try await services.driver.finishResize(
                ResizeRequest(instance: instance, flavor: flavor, image: resize.image))
            if instance.stateBeforeResize != "stopped" {
                try await services.driver.powerOn(instance: instance, interfaces: networkInfo.map(\.interfaceRequest))
            }
        } catch {
            await rollBack(&instance, move, NovaException(error), isTouched: true)
            throw error
        }
        do {
            move.migration.status = "finished"
            try await services.conductor.save(&move.migration, context: context)
            instance.vmState = "resized"
            instance.taskState = nil
            instance.launchedAt = .now
            try await services.conductor.save(&instance, expecting: ["resize_finish"], context: context)
        } catch {
            await keepNewSize(&instance, move, NovaException(error))
            throw error
        }
        await services.books.tellSchedulers(updated: instance, context: context)
        await notify(instance, "resize_finish", .end, context, networkInfo: networkInfo)
    }
}
