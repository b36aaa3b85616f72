// What an audit clears away: allocations of servers that are deleted, and records of nodes this host no longer has.
import Logging
import NovaObjects
import OsloMessaging
import Placement

extension ResourceTracker {
    /// `_remove_deleted_instances_allocations`: only an instance that the database calls deleted loses its allocation.
    /// Everything else that is not tracked here may be on its way in or out.
    func dropStaleAllocations(known: [Instance], _ migrations: [Migration], _ context: RequestContext) async {
        guard let uuid = node?.record.uuid, let tracked = node?.usage.trackedInstances else { return }
        let moving = Set(migrations.compactMap(\.uuid))
        do {
            for consumer in try await placement.allocations(onProvider: uuid).keys.sorted()
            where !tracked.contains(consumer) && !moving.contains(consumer) {
                let here = known.first { $0.uuid == consumer }
                let found =
                    here == nil
                    ? try await conductor.instanceRecord(consumer, context: context.readingDeleted) : here
                guard let instance = found, !instance.boolean("hidden") else { continue }
                if instance.isDeleted {
                    try await placement.deleteAllocations(ofConsumer: consumer)
                    logger.info("allocation of a deleted instance dropped", metadata: ["instance": "\(consumer)"])
                } else if let host = instance.host, host != settings.host {
                    logger.warning(
                        "an instance of another host has an allocation here; it goes when its move is confirmed",
                        metadata: ["instance": "\(consumer)", "its_host": "\(host)"])
                }
            }
        } catch {
            logger.error("allocations on this host not checked", error: error)
        }
    }

    /// A record of this host under a name the driver does not report.
    func removeOrphan(_ orphan: ComputeNode, _ context: RequestContext) async {
        let name = orphan.hypervisorHostname ?? "-"
        logger.info(
            "deleting orphan compute node", metadata: ["node": "\(name)", "id": "\(orphan.id.map(String.init) ?? "-")"])
        do {
            var record = orphan
            try await conductor.call(&record, "destroy", context: context)
            if let uuid = orphan.uuid { try await provider.remove(uuid: uuid) }
        } catch {
            logger.error("orphan compute node not deleted", error: error, metadata: ["node": "\(name)"])
        }
    }
}
