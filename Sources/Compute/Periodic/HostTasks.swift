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
    private let imageCachePass: (@Sendable () async throws -> Void)?
    var host: String { parts.configuration.host }

    /// - Parameter imageCachePass: removes base images that nothing uses, where the driver keeps such.
    package init(
        parts: HostParts, tracker: ResourceTracker, instances: any InstanceStartup, network: any InstanceNetwork,
        imageCachePass: (@Sendable () async throws -> Void)? = nil
    ) {
        self.parts = parts
        self.tracker = tracker
        self.instances = instances
        healer = InfoCacheHealer(
            conductor: parts.conductor, network: network, host: parts.configuration.host, logger: parts.logger)
        self.imageCachePass = imageCachePass
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
        if let imageCachePass {
            tasks.append(
                task("_run_image_cache_manager_pass", parts.configuration.images.cacheManagerInterval) { _ in
                    try await imageCachePass()
                })
        }
        return tasks.compactMap { $0 }
    }

    private func task(
        _ name: String, _ seconds: Int, runsImmediately: Bool = false,
        _ body: @escaping @Sendable (RequestContext) async throws -> Void
    ) -> PeriodicTask? {
        PeriodicRule(name, option: seconds, runsImmediately: runsImmediately).map { PeriodicTask($0, body) }
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
