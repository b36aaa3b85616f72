// prep_resize (RPC reference §5.8): the checks and the claim of a resize, before anything of the server is touched. Whatever
// goes wrong here leaves the server as it was, with a fault that says why; or another host tries, where the scheduler named one.
import ComputeDriver
import JSON
import Logging
import NovaObjects
import OsloMessaging
import ServiceConfiguration

extension ComputeManager {
    func prepareResize(_ instance: inout Instance, _ resize: Resize) async throws {
        let context = resize.context
        let flavor = try resize.flavor()
        await notify(instance, "exists", nil, context)
        await notify(instance, "resize_prep", .start, context, extra: ["new_flavor": flavor.primitive])
        let before = instance
        var (move, isClaimed) = (resize, false)
        var failure: NovaException?
        do {
            try await claim(&instance, &move, flavor, isClaimed: &isClaimed)
            try await sendOn("resize_instance", instance, move, ["image", "flavor", "clean_shutdown", "request_spec"])
        } catch {
            let (left, exception) = (instance, NovaException(error))
            (instance, failure) = await shielded { [move, isClaimed] () async -> (Instance, NovaException?) in
                var instance = left
                let isHandedOn = await self.undoClaim(&instance, before, move, exception, isClaimed: isClaimed)
                return (instance, isHandedOn ? nil : exception)
            }
        }
        await notify(
            instance, "resize_prep", .end, context,
            extra: [
                "new_flavor": flavor.primitive, "new_instance_type": .string(flavor.name),
                "new_instance_type_id": .nullable(flavor.id),
            ])
        if let failure { throw failure }
    }

    private func claim(
        _ instance: inout Instance, _ resize: inout Resize, _ flavor: Flavor, isClaimed: inout Bool
    ) async throws {
        try refuseMove(of: instance, to: flavor)
        try await load("system_metadata", of: &instance, context: resize.context)
        try await loadFlavors(of: &instance, resize.context)
        instance.set("new_flavor", to: flavor.primitive)
        instance.systemMetadata["old_vm_state"] = instance.vmState
        try await services.conductor.save(&instance, context: resize.context)
        try await services.books.claimResize(&instance, &resize.migration, to: flavor, context: resize.context)
        isClaimed = true
    }

    private func refuseMove(of instance: Instance, to flavor: Flavor) throws {
        guard let source = instance.host else { throw NovaException.migration("Instance has no source host") }
        guard source == host else {
            throw NovaException.migration(
                "this compute host cannot take servers over from another one yet, it resizes its own; "
                    + "allow_resize_to_same_host lets the scheduler leave a server where it is")
        }
        // The same flavor on the same host: nothing would move.
        guard flavor.id != instance.instanceTypeID else {
            throw NovaException(
                "UnableToMigrateToSelf", "Unable to migrate instance (\(instance.uuid)) to current host (\(host)).",
                keywords: ["instance_id": .string(instance.uuid), "host": .string(host)])
        }
    }

    /// The flavors come together: a conductor that has to load one of them replaces all.
    func loadFlavors(of instance: inout Instance, _ context: RequestContext) async throws {
        let fields = ["flavor", "old_flavor", "new_flavor"]
        guard !fields.allSatisfy(instance.object.isSet) else { return }
        let answer = try await services.conductor.callClass(
            "Instance", "get_by_uuid", [], ["uuid": .string(instance.uuid), "expected_attrs": ["flavor"]], context: context)
        let loaded = try Instance(primitive: answer)
        for field in fields where !instance.object.isSet(field) {
            instance.object.load(field, loaded.object[field] ?? .null)
        }
    }

    // MARK: What could not be begun

    /// - Returns: true where another host is to try.
    private func undoClaim(
        _ instance: inout Instance, _ before: Instance, _ resize: Resize, _ exception: NovaException, isClaimed: Bool
    ) async -> Bool {
        let (operation, context) = (resize.operation, resize.context)
        var (left, migration) = (instance, resize.migration)
        left.object.resetChanges()
        if isClaimed {
            await tried("give the claim up", operation) {
                try await self.services.books.endResize(&left, &migration, as: .failed, context: context)
            }
        }
        await giveAllocationsBack(of: resize, to: left, exception)
        instance = left
        // Somebody else has the server now, or it is gone.
        if exception.isTakenOver { return false }
        let isHandedOn = await handOn(&left, resize, exception)
        if !isHandedOn {
            left.object.resetChanges()
            left.vmState = before.vmState
            left.taskState = nil
            left.forgetResize()
            await tried("leave the server as it was", operation) {
                try await self.services.conductor.save(&left, expecting: ["resize_prep"], context: context)
            }
        }
        instance = left
        return isHandedOn
    }

    /// Asks the conductor for another host (`_reschedule_resize_or_reraise`).
    private func handOn(_ instance: inout Instance, _ resize: Resize, _ exception: NovaException) async -> Bool {
        let (operation, context) = (resize.operation, resize.context)
        guard var properties = resize.received["filter_properties"]?.objectValue,
            var retry = properties["retry"]?.objectValue,
            // With an empty list the conductor would only say that it has no further host.
            resize.received["host_list"]?.arrayValue?.isEmpty != true
        else { return false }
        retry["exc"] = .array([.string(exception.message)])
        properties["retry"] = .object(retry)
        var changed = instance
        changed.taskState = "resize_prep"
        do {
            try await services.conductor.save(&changed, context: context)
            _ = try await services.conductor.callTask(
                "migrate_server", version: "1.20",
                [
                    "instance": changed.primitive, "scheduler_hint": ["filter_properties": .object(properties)],
                    "live": false, "rebuild": false, "flavor": resize.received["flavor"] ?? .null, "block_migration": .null,
                    "disk_over_commit": .null, "reservations": .null, "clean_shutdown": .bool(resize.isClean),
                    "request_spec": resize.received["request_spec"] ?? .null,
                    "host_list": resize.received["host_list"] ?? .null,
                ], timeout: services.configuration.messaging.longRPCTimeout, context: context)
        } catch {
            operation.logger.error("the resize could not be handed on", metadata: ["error": "\(error)"])
            let further = NovaException(error)
            await addFault(further, operation, instance)
            await notify(instance, "resize", .error, context, fault: further)
            return false
        }
        instance = changed
        operation.logger.warning("the resize goes to another host", metadata: ["error": "\(exception.details)"])
        await addFault(exception, operation, instance)
        await notify(instance, "resize", .error, context, fault: exception)
        var migration = resize.migration
        migration.status = "error"
        await tried("mark the migration", operation) { try await self.services.conductor.save(&migration, context: context) }
        return true
    }
}

extension NovaException {
    static func migration(_ reason: String) -> NovaException {
        NovaException("MigrationError", "Migration error: \(reason)", keywords: ["reason": .string(reason)])
    }

    /// The row is not in the state that this operation left it in: a delete, or somebody's hand.
    var isTakenOver: Bool {
        // A driver that misses the machine says nothing about the row.
        guard !(cause is DriverError) else { return false }
        return ["InstanceNotFound", "UnexpectedTaskStateError", "UnexpectedDeletingTaskStateError"].contains(className)
    }
}
