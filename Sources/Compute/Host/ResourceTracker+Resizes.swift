// A resize on this host in the host's books (RPC reference §5.8.1): from its claim to its end both sizes are counted, because the
// user may come back to the old one. Placement holds the same: the new size by the instance, the old one by the migration.
import JSON
import Logging
package import NovaObjects
package import OsloMessaging
import Placement

/// How a resize ends.
package enum ResizeEnd: String, Sendable {
    /// The new size stays.
    case confirmed
    /// The old size comes back.
    case reverted
    /// It went wrong; the instance has its old size.
    case failed = "error"
}

extension ResourceTracker {
    package func claimResize(
        _ instance: inout Instance, _ migration: inout Migration, to flavor: Flavor, context: RequestContext
    ) async throws {
        (instance, migration) = try await turns.run { [instance, migration] in
            var (instance, migration) = (instance, migration)
            try Self.refuseDevices(instance)
            try Self.refuseWhatIsNotOffered(from: instance, to: flavor)
            if node == nil { _ = try await auditNode(context.elevated) }
            guard let name = node?.record.hypervisorHostname else { throw Self.unavailable("the host has not reported itself yet") }
            migration.set("dest_compute", to: settings.host)
            migration.set("dest_node", to: name)
            migration.set("dest_host", to: settings.address)
            migration.status = "pre-migrating"
            try await conductor.save(&migration, context: context)
            let moved = MigrationContext(instanceUUID: instance.uuid, migrationID: migration.id, profile: settings.profile)
            instance.set("migration_context", to: moved.primitive)
            instance.set("resources", to: .null)
            try await conductor.save(&instance, context: context)
            let isVolume = try await isVolumeBacked(instance, context)
            // What an earlier resize that went wrong may have left.
            node?.usage.endMove(of: instance, usage: ResourceUsage(instance: instance, isVolumeBacked: isVolume))
            node?.usage.update(migration, of: instance, host: settings.host, node: name, isVolumeBacked: isVolume)
            await publishAfterChange(instance.uuid, context)
            return (instance, migration)
        }
    }

    package func endResize(
        _ instance: inout Instance, _ migration: inout Migration, as end: ResizeEnd, context: RequestContext
    ) async throws {
        (instance, migration) = try await turns.run { [instance, migration] in
            var (instance, migration) = (instance, migration)
            migration.status = end.rawValue
            try await conductor.save(&migration, context: context)
            if end == .reverted, instance.migrationContext == nil {
                let moved = try await conductor.migrationContext(of: instance.uuid, context: context)
                instance.object.load("migration_context", moved?.primitive ?? .null)
            }
            let isVolume = try await isVolumeBacked(instance, context)
            // A revert gives the instance its old flavor back in its next step.
            let old = end == .reverted ? instance.oldFlavor : nil
            node?.usage.endMove(
                of: instance,
                usage: old.map { ResourceUsage(flavor: $0, isVolumeBacked: isVolume) }
                    ?? ResourceUsage(instance: instance, isVolumeBacked: isVolume))
            await publishAfterChange(instance.uuid, context)
            if end == .reverted {
                instance.take(.old, of: instance.migrationContext)
                try await conductor.save(&instance, expecting: ["resize_reverting"], context: context)
            } else {
                try await conductor.call(&instance, "drop_migration_context", context: context)
                instance.object.load("migration_context", .null)
            }
            return (instance, migration)
        }
    }

    package func revertAllocations(of migration: Migration, to instanceUUID: String) async throws {
        guard let consumer = migration.uuid else { return }
        var held = try await placement.allocations(ofConsumer: consumer)
        guard !held.byProvider.isEmpty else {
            logger.warning(
                "the migration holds no allocation to give back",
                metadata: ["instance": "\(instanceUUID)", "migration": "\(consumer)"])
            return
        }
        var returned = held
        returned.consumerGeneration = try await placement.allocations(ofConsumer: instanceUUID).consumerGeneration
        held.byProvider = [:]
        do { try await placement.setAllocations([consumer: held, instanceUUID: returned]) } catch let error
            where !(error is CancellationError)
        {
            throw NovaException(
                "AllocationMoveFailed",
                "Failed to move allocations from consumer \(consumer) to consumer \(instanceUUID); try again later.",
                details: "move allocations: \(error)", cause: error)
        }
    }

    package func dropAllocations(of migration: Migration) async throws {
        guard let consumer = migration.uuid else { return }
        var held = try await placement.allocations(ofConsumer: consumer)
        guard !held.byProvider.isEmpty else { return }
        held.byProvider = [:]
        do { try await placement.setAllocations(held, ofConsumer: consumer) } catch let error
            where !(error is CancellationError)
        {
            throw NovaException(
                "AllocationDeleteFailed", "Failed to delete allocations for consumer \(consumer); try again later.",
                details: "delete allocations: \(error)", keywords: ["consumer_uuid": .string(consumer)], cause: error)
        }
    }

    /// The newest move of each instance; an older one was left behind by a failure and holds nothing.
    static func newest(_ migrations: [Migration]) -> [Migration] {
        var newest: [String: Int] = [:]
        for migration in migrations {
            guard let uuid = migration.instanceUUID, let id = migration.id else { continue }
            newest[uuid] = max(newest[uuid] ?? id, id)
        }
        return migrations.filter { migration in
            guard let uuid = migration.instanceUUID, let id = migration.id else { return true }
            return newest[uuid] == id
        }
    }

    /// Cells are placed by the claim of a build alone: the context of a move has none of either side. And what the scheduler does not
    /// ask for because only a flavor's extra specs name it.
    private static func refuseWhatIsNotOffered(from instance: Instance, to flavor: Flavor) throws {
        let specs = flavor.extraSpecs
        let needsCells = specs.keys.contains { $0.hasPrefix("hw:numa_") || $0 == "hw:mem_page_size" }
        let hasCells = instance.object["numa_topology"].map { !$0.isNull } ?? false
        guard !needsCells, !hasCells else { throw unavailable("this host does not resize servers with NUMA cells or huge pages") }
        guard specs["hw:cpu_policy"] ?? "shared" == "shared" else { throw unavailable("this host does not pin CPUs") }
        guard specs["pci_passthrough:alias"] == nil else { throw unavailable("this host passes no PCI devices through") }
    }
}
