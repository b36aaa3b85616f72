// What instances and moves in progress take from the host (nova.compute.resource_tracker, contract §6.3 step 4): pure
// sums over what the conductor answered. Amounts may exceed the host: over-commitment is the scheduler's decision, not
// an error here.
package import NovaObjects

/// Resources one instance or one move takes.
package struct ResourceUsage: Sendable, Equatable {
    package var vcpus = 0
    package var memoryMiB = 0
    package var rootGiB = 0
    package var ephemeralGiB = 0
    package var swapMiB = 0
    /// Of the host's cells; empty for an instance without cells.
    var cells = CellUsage()

    /// - Parameter isVolumeBacked: the root disk is a volume and takes nothing of this host.
    package init(flavor: Flavor, isVolumeBacked: Bool) {
        vcpus = flavor.vcpus
        memoryMiB = flavor.memoryMiB
        rootGiB = isVolumeBacked ? 0 : flavor.rootGiB
        ephemeralGiB = flavor.ephemeralGiB
        swapMiB = flavor.swapMiB
    }

    package init(instance: Instance, isVolumeBacked: Bool) {
        // The row has the flavor's amounts too, except for the swap disk.
        vcpus = instance.flavor?.vcpus ?? instance.vcpus
        memoryMiB = instance.flavor?.memoryMiB ?? instance.memoryMiB
        rootGiB = isVolumeBacked ? 0 : instance.flavor?.rootGiB ?? instance.rootGiB
        ephemeralGiB = instance.flavor?.ephemeralGiB ?? instance.ephemeralGiB
        swapMiB = instance.flavor?.swapMiB ?? 0
        cells = CellUsage(instance.numaTopology)
    }

    var localGiB: Int { rootGiB &+ ephemeralGiB &+ swapMiB / 1024 }
}

/// Used amounts of the host, and which instance and move caused them.
package struct NodeUsage: Sendable, Equatable {
    package private(set) var vcpus: Int
    package private(set) var memoryMiB: Int
    package private(set) var localGiB: Int
    private(set) var cells = CellUsage()
    private var instances: [String: ResourceUsage] = [:]
    private var migrations: [String: ResourceUsage] = [:]
    package private(set) var statistics: NodeStatistics

    /// What is reserved for the host itself; failed builds go on from `statistics`.
    package init(reservedVCPUs: Int, reservedMemoryMiB: Int, reservedDiskMiB: Int, statistics: NodeStatistics) {
        vcpus = reservedVCPUs
        memoryMiB = reservedMemoryMiB
        localGiB = reservedDiskMiB / 1024
        self.statistics = statistics
        self.statistics.clear()
    }

    package func isTracking(_ instanceUUID: String) -> Bool { instances[instanceUUID] != nil }
    package var trackedInstances: Set<String> { Set(instances.keys) }

    /// Counts an instance: its usage when it is new, its state each time; takes it out when it holds nothing any more.
    package mutating func update(_ instance: Instance, usage: @autoclosure () -> ResourceUsage, isRemoved: Bool = false)
    {
        let holdsNothing =
            isRemoved || isResourceRemovalAllowed(vmState: instance.vmState, taskState: instance.taskState)
        if let known = instances[instance.uuid] {
            if holdsNothing {
                instances[instance.uuid] = nil
                add(known, sign: -1)
            }
        } else if !holdsNothing {
            let usage = usage()
            instances[instance.uuid] = usage
            add(usage, sign: 1)
        }
        statistics.update(instance, isRemoved: holdsNothing)
    }

    /// Counts what a move holds here besides its instance: the new size before it arrives, the old size until it is
    /// confirmed.
    package mutating func update(
        _ migration: Migration, of instance: Instance, host: String, node: String, isVolumeBacked: Bool
    ) {
        guard Self.isMoving(instance), migrations[instance.uuid] == nil else { return }
        let isIncoming = migration.destinationCompute == host && migration.destinationNode == node
        let isOutgoing = migration.sourceCompute == host && migration.sourceNode == node
        let flavor: Flavor?
        switch (isIncoming, isOutgoing) {
        case (true, true):
            // Until the instance has the new flavor it takes the old one by itself, and the other way round after.
            flavor =
                instance.instanceTypeID == migration.oldInstanceTypeID
                ? Self.newFlavor(instance, migration) : Self.oldFlavor(instance, migration)
        case (true, false) where !isTracking(instance.uuid): flavor = Self.newFlavor(instance, migration)
        case (false, true) where !isTracking(instance.uuid): flavor = Self.oldFlavor(instance, migration)
        default: flavor = nil
        }
        guard let flavor else { return }
        let usage = ResourceUsage(flavor: flavor, isVolumeBacked: isVolumeBacked)
        migrations[instance.uuid] = usage
        add(usage, sign: 1)
    }

    /// A move on this host is over, however: its instance alone is counted, with `usage`.
    package mutating func endMove(of instance: Instance, usage: ResourceUsage) {
        if let held = migrations.removeValue(forKey: instance.uuid) { add(held, sign: -1) }
        guard let known = instances[instance.uuid] else { return }
        instances[instance.uuid] = usage
        add(known, sign: -1)
        add(usage, sign: 1)
    }

    package mutating func buildFinished(successfully: Bool) {
        if successfully { statistics.buildSucceeded() } else { statistics.buildFailed() }
    }

    private mutating func add(_ usage: ResourceUsage, sign: Int) {
        // Flavors are the cloud's; wrapping keeps a nonsensical one from ending the service.
        vcpus = vcpus &+ sign &* usage.vcpus
        memoryMiB = memoryMiB &+ sign &* usage.memoryMiB
        localGiB = localGiB &+ sign &* usage.localGiB
        cells.add(usage.cells, sign: sign)
    }

    private static func oldFlavor(_ instance: Instance, _ migration: Migration) -> Flavor? {
        isResize(migration) ? instance.oldFlavor : instance.flavor
    }

    private static func newFlavor(_ instance: Instance, _ migration: Migration) -> Flavor? {
        isResize(migration) ? instance.newFlavor : instance.flavor
    }

    private static func isResize(_ migration: Migration) -> Bool {
        migration.migrationType == "resize" || migration.migrationType == "migration"
    }

    /// Resizing, or resized and not confirmed, or migrating live (`_instance_in_resize_state`,
    /// `_instance_is_live_migrating`).
    private static func isMoving(_ instance: Instance) -> Bool {
        let resizeTasks = ["resize_prep", "resize_migrating", "resize_migrated", "resize_finish"]
        if instance.vmState == "resized" { return true }
        if instance.vmState == "active" || instance.vmState == "stopped" || instance.vmState == "paused",
            let task = instance.taskState
        {
            return resizeTasks.contains(task) || task == "rebuilding" || task == "migrating"
        }
        return false
    }
}
