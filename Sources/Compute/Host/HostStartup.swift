// What happens before the first request is taken, in nova-compute's order (contract §5.1). Until the conductor has
// answered nothing else is tried; after that a failure ends the start, and the process with it, unless it concerns one
// instance or the report that the periodic audit will repeat.
//
//   ping -> version floor -> driver -> instances -> identity -> evacuated -> repair each -> interrupted builds -> schedulers
//        -> service record -> audit -> (requests, heartbeats, periodic work)
import ComputeDriver
import Foundation
import JSON
import Logging
import NovaObjects
import OsloMessaging
import Placement
import ServiceConfiguration

/// A start that must not go on.
package struct StartupError: Error, Sendable, CustomStringConvertible {
    package let reason: String
    package init(_ reason: String) { self.reason = reason }
    package var description: String { "start nova-compute: \(reason) (host)" }
}

package struct HostStartup: Sendable {
    private let parts: HostParts
    private let tracker: ResourceTracker
    private let service: ServiceRecord
    private let configurationFiles: [String]
    private let instances: any InstanceStartup
    private let network: any InstanceNetwork
    private var conductor: Conductor { parts.conductor }
    private var host: String { parts.configuration.host }
    private var logger: Logger { parts.logger }

    package init(
        parts: HostParts, tracker: ResourceTracker, service: ServiceRecord, configurationFiles: [String],
        instances: any InstanceStartup, network: any InstanceNetwork
    ) {
        self.parts = parts
        self.tracker = tracker
        self.service = service
        self.configurationFiles = configurationFiles
        self.instances = instances
        self.network = network
    }

    package func run() async throws {
        let context = RequestContext.administrator()
        try await waitForConductor(context)
        try await checkVersionFloor(context)
        parts.health.waitsFor = "the driver"
        try await parts.driver.initialize()
        let nodeName = try await parts.driver.hostResources().hypervisorHostname
        parts.health.driverReady()

        parts.health.waitsFor = "the instances of this host"
        let list = try await conductor.instances(
            ofHost: host, attributes: ["info_cache", "metadata", "numa_topology"], context: context)
        let found = try list.elements()
        let node = try await identify(nodeName, context)
        let evacuated = try await removeEvacuated(node, context)
        for (index, instance) in found.enumerated() where !evacuated.contains(instance.uuid) {
            parts.health.waitsFor = "the repair of instance \(index + 1) of \(found.count)"
            try Task.checkCancellation()
            await instances.initInstance(instance, context: context)
        }
        parts.health.waitsFor = "Placement, for builds that were interrupted"
        if let node { await failInterruptedBuilds(node, known: Set(found.map(\.uuid)), context) }
        if !found.isEmpty { await parts.news.updated(found, context: context) }

        parts.health.waitsFor = "the service record"
        try await service.join(context: context)
        parts.health.conductorAnswered()
        parts.health.waitsFor = "the first report to the conductor and Placement"
        do {
            try await tracker.audit(isStartup: true, context: RequestContext.administrator())
        } catch let error where !(error is CancellationError) {
            logger.error("this host could not report its resources; the next pass tries again", error: error)
        }
    }

    /// Ten short tries, then patient ones, until a conductor answers.
    private func waitForConductor(_ context: RequestContext) async throws {
        parts.health.waitsFor = "a conductor"
        for attempt in 1... {
            let timeout: Duration = attempt <= 10 ? .seconds(10) : parts.configuration.messaging.responseTimeout
            do {
                try await conductor.ping(context: context, timeout: timeout)
                parts.health.conductorAnswered()
                return
            } catch is CancellationError {
                throw CancellationError()
            } catch is MessagingTimeout {
                logger.warning("no conductor has answered yet", metadata: ["attempt": "\(attempt)"])
            } catch {
                // The broker is not there: the client has waited its own time, a little more keeps a refusal from
                // spinning.
                logger.warning("the conductor cannot be asked", error: error, metadata: ["attempt": "\(attempt)"])
                try await Task.sleep(for: .seconds(1))
            }
        }
    }

    private func checkVersionFloor(_ context: RequestContext) async throws {
        guard let oldest = conductor.profile.oldestServiceVersion else { return }
        let found = try await conductor.minimumServiceVersion(binary: ServiceRecord.binary, context: context)
        guard found > 0, found < oldest else { return }
        let reason =
            "a compute service of version \(found) is registered in this cell; release \(conductor.profile.name) works beside"
            + " \(oldest) and newer"
        guard parts.configuration.compute.ignoresServiceVersionFloor else { throw StartupError(reason) }
        logger.warning("\(reason)")
    }

    /// Finds out who this host is before anything of it is touched. - Returns: the database's record of it.
    private func identify(_ nodeName: String, _ context: RequestContext) async throws -> ComputeNode? {
        let statePath = parts.configuration.statePath
        let node = try await conductor.computeNode(host: host, node: nodeName, context: context)
        if let identity = try NodeIdentity.read(configurationFiles: configurationFiles, statePath: statePath) {
            try await check(identity, nodeName, node, context)
            await tracker.identify(as: identity)
            return node
        }
        try await refuseLostIdentity(nodeName, node, context)
        let identity = try NodeIdentity.create(uuid: node?.uuid ?? UUID().uuidString, statePath: statePath)
        logger.info(
            "identity of this host written", metadata: ["uuid": "\(identity.uuid)", "file": "\(identity.path)"])
        await tracker.identify(as: identity)
        return node
    }

    private func check(
        _ identity: NodeIdentity, _ nodeName: String, _ node: ComputeNode?, _ context: RequestContext
    ) async throws {
        if let node {
            guard let uuid = node.uuid, uuid != identity.uuid else { return }
            throw IdentityError(
                "\(identity.path) says \(identity.uuid), the control plane knows compute node \(nodeName) of host \(host) as"
                    + " \(uuid)")
        }
        // The node may exist under another name: that is a rename, not a new host.
        guard let other = try await conductor.computeNode(uuid: identity.uuid, context: context) else { return }
        throw IdentityError(
            "\(identity.path) belongs to compute node \(other.hypervisorHostname ?? "-") of host \(other.host ?? "-"), but this"
                + " is \(nodeName) of host \(host); a host in use cannot be renamed")
    }

    /// Without a file: a control plane that expects one, or guests of a host that the control plane does not know.
    private func refuseLostIdentity(_ nodeName: String, _ node: ComputeNode?, _ context: RequestContext) async throws {
        if conductor.profile.serviceVersion >= NodeIdentity.requiredFromServiceVersion,
            let record = try await conductor.service(host: host, binary: ServiceRecord.binary, context: context),
            record.version ?? 0 >= NodeIdentity.requiredFromServiceVersion
        {
            throw IdentityError("host \(host) is registered and its file \(NodeIdentity.fileName) is missing")
        }
        let count = try await parts.driver.machines().count
        guard node == nil, count > 0 else { return }
        throw IdentityError(
            "\(count) guests are here, but the control plane knows no compute node \(nodeName) of host \(host); was it renamed?"
        )
    }

    /// Guests that were evacuated while this host was down and still exist here (contract §5.4). - Returns: their
    /// instances.
    private func removeEvacuated(_ node: ComputeNode?, _ context: RequestContext) async throws -> Set<String> {
        let evacuations = try await conductor.evacuations(from: host, context: context.readingDeleted)
        guard !evacuations.isEmpty else { return [] }
        let machines = Set(try await parts.driver.machines().map(\.instanceUUID))
        var removed: Set<String> = []
        for var migration in evacuations {
            guard let uuid = migration.instanceUUID else { continue }
            let record = try await conductor.instanceRecord(
                uuid, attributes: ["info_cache"], context: context.readingDeleted)
            // It may have come back since; then it is one of ours again.
            guard let instance = record, instance.host != host else { continue }
            if machines.contains(uuid) {
                logger.info("removing an evacuated guest", metadata: ["instance": "\(uuid)"])
                do {
                    try await parts.driver.destroy(
                        instance: instance, interfaces: network.cached(instance).map(\.interfaceRequest),
                        destroysDisks: true)
                } catch {
                    logger.error("evacuated guest not removed", error: error, metadata: ["instance": "\(uuid)"])
                    continue
                }
            }
            removed.insert(uuid)
            guard let node, migration.sourceNode == node.hypervisorHostname else { continue }
            do {
                try await releaseProvider(node, of: uuid)
                migration.status = "completed"
                try await conductor.call(&migration, "save", context: context)
            } catch {
                logger.error("evacuation not completed", error: error, metadata: ["instance": "\(uuid)"])
            }
        }
        return removed
    }

    private func releaseProvider(_ node: ComputeNode, of instanceUUID: String) async throws {
        guard let provider = node.uuid else { return }
        var allocations = try await parts.placement.allocations(ofConsumer: instanceUUID)
        guard allocations.byProvider.removeValue(forKey: provider) != nil else { return }
        try await parts.placement.setAllocations(allocations, ofConsumer: instanceUUID)
    }

    /// Builds that had an allocation here but no claim when the service ended: nobody else would ever finish them.
    private func failInterruptedBuilds(_ node: ComputeNode, known: Set<String>, _ context: RequestContext) async {
        guard let provider = node.uuid else { return }
        do {
            let consumers = Set(try await parts.placement.allocations(onProvider: provider).keys).subtracting(known)
            guard !consumers.isEmpty else { return }
            let building = try await conductor.instances(
                matching: ["vm_state": "building", "uuid": .array(consumers.sorted().map { .string($0) })],
                context: context)
            for var instance in building {
                instance.vmState = "error"
                instance.taskState = nil
                try await conductor.save(&instance, context: context)
                logger.warning("its build was interrupted", metadata: ["instance": "\(instance.uuid)"])
            }
        } catch {
            logger.error("interrupted builds not looked for", error: error)
        }
    }
}
