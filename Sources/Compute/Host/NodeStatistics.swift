// Counts of instances by state, as nova.compute.stats keeps them: ComputeNode.stats, all values text. The scheduler
// reads num_instances, io_workload and failed_builds.
package import NovaObjects

/// States in which an instance holds nothing of the host (vm_states.allow_resource_removal).
package func isResourceRemovalAllowed(vmState: String?, taskState: String?) -> Bool {
    (vmState == "deleted" || vmState == "shelved_offloaded") && taskState != "unshelving"
}

package struct NodeStatistics: Sendable, Equatable {
    private struct Snapshot: Sendable, Equatable {
        var vmState: String?
        var taskState: String?
        var osType: String?
        var projectID: String?

        /// Nova prints an absent value as Python does.
        var keys: [String] {
            [
                "num_vm_\(vmState ?? "None")", "num_task_\(taskState ?? "None")", "num_os_type_\(osType ?? "None")",
                "num_proj_\(projectID ?? "None")",
            ]
        }
    }
    private var counts: [String: Int] = [:]
    private var snapshots: [String: Snapshot] = [:]
    package private(set) var failedBuilds = 0

    package init() {}

    package var instanceCount: Int { snapshots.count }

    /// Operations that load the host's disks: builds, rebuilds, snapshots, …
    package var ioWorkload: Int {
        count("num_vm_building")
            + [
                "resize_migrating", "rebuilding", "resize_prep", "image_snapshot", "image_backup", "rescuing",
                "unshelving",
            ].reduce(0) { $0 + count("num_task_\($1)") }
    }

    /// Instances with any task (ComputeNode.current_workload).
    package var currentWorkload: Int {
        counts.filter { $0.key.hasPrefix("num_task_") && $0.key != "num_task_None" }.reduce(0) { $0 + $1.value }
    }

    /// Forgets the instances, not the failed builds: those are of this process's life.
    package mutating func clear() {
        counts = [:]
        snapshots = [:]
    }

    /// Counts an instance by its present state instead of the one before.
    package mutating func update(_ instance: Instance, isRemoved: Bool) {
        for key in snapshots.removeValue(forKey: instance.uuid)?.keys ?? [] { counts[key, default: 0] -= 1 }
        guard !isRemoved, !isResourceRemovalAllowed(vmState: instance.vmState, taskState: instance.taskState) else {
            return
        }
        let snapshot = Snapshot(
            vmState: instance.vmState, taskState: instance.taskState, osType: instance.osType,
            projectID: instance.projectID)
        snapshots[instance.uuid] = snapshot
        for key in snapshot.keys { counts[key, default: 0] += 1 }
    }

    package mutating func buildFailed() { failedBuilds += 1 }
    package mutating func buildSucceeded() { failedBuilds = 0 }

    /// The field's value.
    package var fieldValue: [String: String] {
        var value = counts.mapValues(String.init)
        value["failed_builds"] = String(failedBuilds)
        // A host that never had an instance says nothing about instances, as nova-compute does.
        guard !counts.isEmpty else { return value }
        value["num_instances"] = String(instanceCount)
        value["io_workload"] = String(ioWorkload)
        return value
    }

    private func count(_ key: String) -> Int { counts[key] ?? 0 }
}
