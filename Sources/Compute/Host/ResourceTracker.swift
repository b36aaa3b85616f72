// nova.compute.resource_tracker: the one place that knows what this host has and what is taken of it. Everything here
// runs in turns (Nova's lock "compute_resources"), so that a claim and the periodic audit never see half of each other.
//
//   audit(): driver's report -> ComputeNode found or created -> usage from zero -> ComputeNode.save -> Placement
//   claim(): counts one instance on top, saves, reports; abortClaim() takes it back; the next audit counts anew anyway
import ComputeDriver
package import JSON
import Logging
package import NovaObjects
package import OsloMessaging
import Placement
import ServiceConfiguration
import Synchronization

package actor ResourceTracker: HostBooks {
    /// What a claim or an audit works on, once the node's record is there.
    struct Node {
        var record: ComputeNode
        /// As the database has it, to send what differs.
        var resources: HostResources
        var topology: HostTopology
        var usage: NodeUsage
    }

    let conductor: Conductor
    let driver: any ComputeDriver
    let placement: any PlacementAPI
    let provider: ProviderReporter
    let settings: NodeSettings
    let rules: InventoryRules
    let excludedImageTypes: [String]
    private let reservedPages: [ReservedPages]
    let logger: Logger
    private let news: SchedulerNews
    private let names: GuestNames
    private let health: HostHealth
    let turns = TurnQueue()
    /// Readable without a turn.
    private let currentNodeName = Mutex<String>("")

    var node: Node?
    /// Whether an instance's root disk is a volume; asked once.
    var volumeBacked: [String: Bool] = [:]
    private var isDisabled = false
    /// Uuid of a node that is to be created.
    private var identity: NodeIdentity?

    package init(parts: HostParts) {
        conductor = parts.conductor
        driver = parts.driver
        placement = parts.placement
        news = parts.news
        health = parts.health
        logger = parts.logger
        names = parts.names
        let configuration = parts.configuration
        let options = configuration.resources
        let profile = parts.conductor.profile
        let ratios = AllocationRatios(
            cpu: options.cpuAllocationRatio, memory: options.ramAllocationRatio, disk: options.diskAllocationRatio,
            initialCPU: options.initialCPUAllocationRatio ?? profile.initialCPUAllocationRatio,
            initialMemory: options.initialRAMAllocationRatio ?? profile.initialRAMAllocationRatio,
            initialDisk: options.initialDiskAllocationRatio)
        settings = NodeSettings(
            host: configuration.host, address: configuration.myIP, profile: profile,
            sharedCPUs: options.cpuSharedSet.flatMap(CPUSet.init)?.numbers, ratios: ratios)
        rules = InventoryRules(
            ratios: ratios, reservedCPUs: options.reservedHostCPUs, reservedMemoryMiB: options.reservedHostMemoryMiB,
            reservedDiskMiB: options.reservedHostDiskMiB)
        excludedImageTypes = options.imageTypeExcludeList
        reservedPages = options.reservedHugePages
        provider = ProviderReporter(
            placement: parts.placement, refreshInterval: options.associationRefresh, logger: parts.logger)
    }

    package nonisolated var nodeName: String { currentNodeName.withLock { $0 } }

    /// Before the first audit.
    func identify(as identity: NodeIdentity) { self.identity = identity }

    /// The whole pass of `update_available_resource`. What cannot be told is logged, the node stays as it was last
    /// told, and the next pass begins anew; only at the start is a failure the caller's to see.
    package func audit(isStartup: Bool, context: RequestContext) async throws {
        let known = try await conductor.computeNodes(ofHost: settings.host, context: context)
        let name = try await turns.run { try await auditNode(context) }
        for orphan in known where orphan.hypervisorHostname != name {
            await removeOrphan(orphan, context)
        }
    }

    /// - Returns: hypervisor_hostname.
    func auditNode(_ context: RequestContext) async throws -> String {
        let resources = try await driver.hostResources()
        let name = resources.hypervisorHostname
        currentNodeName.withLock { $0 = name }
        var usage = emptyUsage(after: node?.usage.statistics ?? NodeStatistics())
        let isNew = try await ensureRecord(resources, usage, context)
        let instances = try await conductor.instances(ofHost: settings.host, node: name, context: context)
        let migrations = try await conductor.migrationsInProgress(host: settings.host, node: name, context: context)
        names.replace(with: instances)
        try await count(instances, migrations, in: &usage, node: name, context)
        node?.usage = usage
        if !isNew { await dropStaleAllocations(known: instances, migrations, context) }
        try await publish(context)
        return name
    }

    private func emptyUsage(after statistics: NodeStatistics) -> NodeUsage {
        NodeUsage(
            reservedVCPUs: rules.reservedCPUs, reservedMemoryMiB: rules.reservedMemoryMiB,
            reservedDiskMiB: rules.reservedDiskMiB, statistics: statistics)
    }

    /// Finds or creates the ComputeNode and describes the host in it. - Returns: true where it was created.
    private func ensureRecord(_ resources: HostResources, _ usage: NodeUsage, _ context: RequestContext) async throws
        -> Bool
    {
        let topology = HostTopology(vcpus: resources.vcpus, memoryMiB: resources.memoryMiB).reserving(reservedPages)
        if var node, node.record.hypervisorHostname == resources.hypervisorHostname {
            settings.describe(resources, in: &node.record)
            (node.resources, node.topology) = (resources, topology)
            self.node = node
            return false
        }
        let found = try await conductor.computeNode(
            host: settings.host, node: resources.hypervisorHostname, context: context)
        if var record = found {
            settings.describe(resources, in: &record)
            node = Node(record: record, resources: resources, topology: topology, usage: usage)
            return false
        }
        guard let identity else { throw StartupError("the identity of this host is not known yet") }
        var record = settings.newNode(uuid: identity.uuid, resources, topology: topology, usage: usage)
        try await conductor.call(&record, "create", context: context)
        logger.info(
            "compute node created",
            metadata: ["node": "\(resources.hypervisorHostname)", "uuid": "\(record.uuid ?? "-")"])
        node = Node(record: record, resources: resources, topology: topology, usage: usage)
        return true
    }

    /// Usage from zero (contract §6.3 step 4).
    private func count(
        _ instances: [Instance], _ migrations: [Migration], in usage: inout NodeUsage, node name: String,
        _ context: RequestContext
    ) async throws {
        let present = Set(instances.map(\.uuid))
        volumeBacked = volumeBacked.filter { present.contains($0.key) }
        for instance in instances
        where !isResourceRemovalAllowed(vmState: instance.vmState, taskState: instance.taskState) {
            let isVolume = try await isVolumeBacked(instance, context)
            usage.update(instance, usage: ResourceUsage(instance: instance, isVolumeBacked: isVolume))
        }
        for migration in Self.newest(migrations) {
            guard let uuid = migration.instanceUUID else { continue }
            let here = instances.first { $0.uuid == uuid }
            let attributes = ["flavor", "system_metadata", "migration_context"]
            let moved =
                here == nil
                ? try await conductor.instanceRecord(uuid, attributes: attributes, context: context) : here
            guard let instance = moved else { continue }
            usage.update(
                migration, of: instance, host: settings.host, node: name,
                isVolumeBacked: try await isVolumeBacked(instance, context))
        }
    }

    func isVolumeBacked(_ instance: Instance, _ context: RequestContext) async throws -> Bool {
        if let known = volumeBacked[instance.uuid] { return known }
        let isVolume = try await conductor.isVolumeBacked(instance, context: context)
        volumeBacked[instance.uuid] = isVolume
        return isVolume
    }

    /// Tells the database what changed, then Placement.
    private func publish(_ context: RequestContext) async throws {
        guard var node else { return }
        settings.account(node.usage, of: node.topology, in: &node.record)
        if !node.record.object.changes.isEmpty {
            try await conductor.call(&node.record, "save", context: context)
        }
        self.node = node
        health.nodeReported()
        guard let uuid = node.record.uuid, let name = node.record.hypervisorHostname else { return }
        // Without an answer the host stays as it was: a silent database must not open a disabled host.
        let service = try await conductor.service(ofComputeHost: settings.host, context: context)
        isDisabled = service?.isDisabled ?? isDisabled
        do {
            try await provider.report(uuid: uuid, name: name, offer: offer(of: node.resources))
            health.placementReported()
        } catch {
            health.placementFailed("\(error)")
            throw error
        }
    }

    private func offer(of resources: HostResources) -> ProviderOffer {
        let (rules, isDisabled, vcpus) = (rules, isDisabled, settings.vcpus(of: resources))
        let own = ProviderTraits.own(
            driver: driver.traits, cpuInfo: resources.cpuInfo, excludedImageTypes: excludedImageTypes,
            ownsByTrait: settings.profile.serviceVersion >= 73)
        return ProviderOffer(
            inventories: {
                rules.inventories(
                    vcpus: vcpus, memoryMiB: resources.memoryMiB, diskGiB: resources.diskGiB, existing: $0)
            },
            traits: { ProviderTraits.merged(existing: $0, own: own, isDisabled: isDisabled) })
    }

    // MARK: HostBooks

    package func claim(_ instance: inout Instance, limits: JSONValue, context: RequestContext) async throws {
        instance = try await turns.run { [instance] in
            var instance = instance
            try Self.refuseDevices(instance)
            if node == nil { _ = try await auditNode(context.elevated) }
            guard var node else { throw Self.unavailable("the host has not reported itself yet") }
            let topology = try cells(for: instance, on: node, limits: limits)
            instance.host = settings.host
            instance.launchedOn = settings.host
            instance.node = node.record.hypervisorHostname
            instance.numaTopology = topology
            try await conductor.save(&instance, context: context)
            names.add(instance)
            // Saved with the next step of the operation, as nova-compute does.
            instance.set("resources", to: .null)
            let isVolume = try await isVolumeBacked(instance, context)
            node.usage.update(instance, usage: ResourceUsage(instance: instance, isVolumeBacked: isVolume))
            self.node = node
            await publishAfterChange(instance.uuid, context)
            return instance
        }
    }

    package func abortClaim(_ instance: inout Instance, context: RequestContext) async {
        do {
            instance = try await turns.run { [instance] in
                var instance = instance
                node?.usage.update(
                    instance, usage: ResourceUsage(instance: instance, isVolumeBacked: false), isRemoved: true)
                volumeBacked[instance.uuid] = nil
                instance.host = nil
                instance.node = nil
                if var topology = instance.numaTopology {
                    topology.forgetHost()
                    instance.numaTopology = topology
                }
                try await conductor.save(&instance, context: context)
                await publishAfterChange(instance.uuid, context)
                return instance
            }
        } catch {
            // The usage is right again with the next audit; a host left in the record is what the API's local delete
            // minds.
            instance.host = nil
            instance.node = nil
            logger.error("claim not undone", error: error, metadata: ["instance": "\(instance.uuid)"])
        }
    }

    package func updateUsage(_ instance: Instance, context: RequestContext) async {
        do {
            try await turns.run {
                // An instance that never claimed is counted by the next audit, not in passing.
                guard node?.usage.isTracking(instance.uuid) == true else { return }
                node?.usage.update(instance, usage: ResourceUsage(instance: instance, isVolumeBacked: false))
                await publishAfterChange(instance.uuid, context)
            }
        } catch {
            logger.debug("usage not updated", error: error, metadata: ["instance": "\(instance.uuid)"])
        }
    }

    /// A change that is counted stays counted where telling it fails: the next audit tells it.
    func publishAfterChange(_ instanceUUID: String, _ context: RequestContext) async {
        do {
            try await publish(context.elevated)
        } catch {
            logger.warning("usage not reported yet", error: error, metadata: ["instance": "\(instanceUUID)"])
        }
    }

    package func deleteAllocations(of instanceUUID: String) async throws {
        try await placement.deleteAllocations(ofConsumer: instanceUUID)
    }

    package func setEnabled(_ isEnabled: Bool, context: RequestContext) async throws {
        try await turns.run {
            isDisabled = !isEnabled
            guard let uuid = node?.record.uuid else { return }
            try await provider.setTrait(ProviderTraits.disabled, isSet: !isEnabled, of: uuid)
        }
    }

    package func buildFinished(successfully: Bool) async {
        // No turn needed: one number, told with the next change.
        node?.usage.buildFinished(successfully: successfully)
    }

    package func tellSchedulers(updated instance: Instance, context: RequestContext) async {
        await news.updated([instance], context: context)
    }

    package func tellSchedulers(deleted instanceUUID: String, context: RequestContext) async {
        await news.deleted(instanceUUID, context: context)
    }

    /// The instance's cells, each with its place on this host; nil where it has none.
    private func cells(for instance: Instance, on node: Node, limits: JSONValue) throws -> InstanceNUMATopology? {
        guard let field = instance.object["numa_topology"], !field.isNull else { return nil }
        guard let topology = instance.numaTopology else { throw Self.unavailable("the server's NUMA topology cannot be read") }
        do throws(CellRefusal) {
            return try CellFit(host: node.topology, usage: node.usage.cells, shared: settings.sharedCPUs, limits: CellLimits(limits)).place(topology)
        } catch {
            throw Self.unavailable(error.reason)
        }
    }

    /// Passed-through devices are not offered by this service; the scheduler should not have come here.
    static func refuseDevices(_ instance: Instance) throws {
        let requests = instance.object["pci_requests"]?["nova_object.data"]?["requests"]?.arrayValue ?? []
        guard requests.isEmpty else { throw unavailable("this host passes no PCI devices through") }
    }

    static func unavailable(_ reason: String) -> NovaException {
        NovaException(
            "ComputeResourcesUnavailable", "Insufficient compute resources: \(reason).",
            keywords: ["reason": .string(reason)])
    }
}
