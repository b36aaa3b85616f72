// The periodic tasks of this host by Nova's names, order and options (contract §5.6).
import ComputeDriver
import JSON
import Logging
import NovaObjects
import OsloMessaging
import ServiceConfiguration

package struct HostTasks: Sendable {
    let parts: HostParts
    private let tracker: ResourceTracker
    private let instances: any InstanceStartup
    private let healer: InfoCacheHealer
    var host: String { parts.configuration.host }

    package init(
        parts: HostParts, tracker: ResourceTracker, instances: any InstanceStartup, network: any InstanceNetwork
    ) {
        self.parts = parts
        self.tracker = tracker
        self.instances = instances
        healer = InfoCacheHealer(
            conductor: parts.conductor, network: network, host: parts.configuration.host, logger: parts.logger)
    }

    package var all: [PeriodicTask] {
        let intervals = parts.configuration.intervals
        guard intervals.isPeriodicWorkEnabled else { return [] }
        var tasks: [PeriodicTask?] = [
            task("_sync_scheduler_instance_info", intervals.schedulerInstanceSync, syncSchedulers),
            task("_heal_instance_info_cache", intervals.healInstanceInfoCache) {
                try await healer.healOne(context: $0)
            },
            task("_sync_power_states", intervals.syncPowerState, runsImmediately: true, syncPowerStates),
            task("update_available_resource", intervals.updateResources) {
                try await tracker.audit(isStartup: false, context: $0)
            },
            task(
                "_cleanup_running_deleted_instances", intervals.runningDeletedPoll, runsImmediately: true,
                cleanUpDeletedInstances),
        ]
        if intervals.resizeConfirmWindow > 0 { tasks.append(task("_poll_unconfirmed_resizes", 0, confirmResizes)) }
        // 0 means never for these two.
        let (kept, offload) = (seconds(\.reclaimInterval), seconds(\.shelvedOffloadTime))
        if kept > 0 { tasks.append(task("_reclaim_queued_deletes", kept) { try await due(.delete, "soft-delete", kept, $0) }) }
        if offload > 0 {
            tasks.append(
                task("_poll_shelved_instances", intervals.shelvedPoll) { try await due(.offload, "shelved", offload, $0) })
        }
        let images = parts.configuration.images
        if images.removesUnusedBaseImages {
            tasks.append(task("_run_image_cache_manager_pass", images.cacheManagerInterval, cleanImageCache))
        }
        return tasks.compactMap { $0 }
    }

    private func task(
        _ name: String, _ seconds: Int, runsImmediately: Bool = false,
        _ body: @escaping @Sendable (RequestContext) async throws -> Void
    ) -> PeriodicTask? {
        PeriodicRule(name, option: seconds, runsImmediately: runsImmediately).map { PeriodicTask($0, body) }
    }

    private func cleanImageCache(_ context: RequestContext) async throws {
        let count = try await parts.driver.cleanImageCache(minimumAge: parts.configuration.images.unusedBaseImageAge)
        if count > 0 { parts.logger.info("unused images removed from the cache", metadata: ["images": "\(count)"]) }
    }

    private func seconds(_ option: KeyPath<ComputeOptions, Duration>) -> Int {
        Int(clamping: parts.configuration.compute[keyPath: option].components.seconds)
    }

    /// Asks for `work` on instances that have been in `vmState` for `age` seconds and have no task.
    private func due(_ work: DueWork, _ vmState: String, _ age: Int, _ context: RequestContext) async throws {
        let filters: [String: JSONValue] = ["vm_state": .string(vmState), "task_state": .null, "host": .string(host)]
        for instance in try await parts.conductor.instances(matching: filters, context: context) {
            let since = vmState == "shelved"
                ? (instance.systemMetadata["shelved_at"].flatMap { NovaTime($0) } ?? .now) : (instance.deletedAt ?? .now)
            if NovaTime.now.seconds(since: since) >= Double(age) { await instances.request(work, for: instance, context: context) }
        }
    }

    private func syncSchedulers(_ context: RequestContext) async throws {
        guard parts.configuration.compute.tracksInstanceChanges else { return }
        let list = try await parts.conductor.instances(
            ofHost: host, attributes: [], usesReplica: true, context: context)
        await parts.news.all(try list.elements().map(\.uuid), context: context)
    }

    /// Compares what the database says of each instance with its machine; the decision is `InstanceStartup`'s (contract
    /// §5.7).
    private func syncPowerStates(_ context: RequestContext) async throws {
        let list = try await parts.conductor.instances(
            ofHost: host, attributes: [], usesReplica: true, context: context)
        let recorded = try list.elements()
        let count = try await parts.driver.machines().count
        if count != recorded.count {
            parts.logger.warning(
                "the database and the hypervisor count different numbers of instances",
                metadata: ["database": "\(recorded.count)", "hypervisor": "\(count)"])
        }
        for instance in recorded where instance.taskState == nil {
            try Task.checkCancellation()
            do {
                let state = try await parts.driver.presentState(of: instance.uuid)
                await instances.powerStateChanged(instance, to: state, context: context)
            } catch {
                parts.logger.error("power state not compared", error: error, metadata: ["instance": "\(instance.uuid)"])
            }
        }
    }

    /// Machines whose instance is deleted in the database: `running_deleted_instance_action` says what is done with
    /// them.
    private func cleanUpDeletedInstances(_ context: RequestContext) async throws {
        let action = parts.configuration.compute.runningDeletedAction
        guard action != "noop" else { return }
        let machines = try await parts.driver.machines().map(\.instanceUUID)
        guard !machines.isEmpty else { return }
        let filters: [String: JSONValue] = [
            "deleted": true, "soft_deleted": false, "uuid": .array(machines.sorted().map { .string($0) }),
        ]
        let age = Double(parts.configuration.compute.runningDeletedTimeout.components.seconds)
        for instance in try await parts.conductor.instances(matching: filters, context: context.readingDeleted)
        where instance.isDeleted && NovaTime.now.seconds(since: instance.deletedAt ?? .now) >= age {
            switch action {
            case "reap":
                parts.logger.info(
                    "ending the machine of a deleted instance", metadata: ["instance": "\(instance.uuid)"])
                await instances.reap(instance, context: context)
            case "shutdown":
                do {
                    try await parts.driver.powerOff(instance: instance, timeout: .zero, retryInterval: .zero)
                } catch {
                    parts.logger.warning(
                        "machine of a deleted instance not shut down", error: error,
                        metadata: ["instance": "\(instance.uuid)"])
                }
            default:
                parts.logger.warning(
                    "a machine runs whose instance is deleted", metadata: ["instance": "\(instance.uuid)"])
            }
        }
    }
}

extension ComputeDriver {
    /// The power state; `.noState` where there is no such machine.
    func presentState(of instanceUUID: String) async throws -> PowerState {
        do {
            return try await powerState(of: instanceUUID)
        } catch let error as DriverError where error.novaClass == "InstanceNotFound" {
            return .noState
        }
    }
}
