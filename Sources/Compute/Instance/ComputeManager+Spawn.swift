// The middle of a build (RPC reference §5.1 steps 11 to 17): ports, device names, image, machine, and the wait for the ports to
// be wired (contract §7.4). Its own failures leave no machine behind.
import ComputeDriver
import JSON
import Logging
import NovaObjects
import OsloMessaging
import ServiceConfiguration

/// What a machine is made of, besides its record and its ports.
struct MachineOrder: Sendable {
    /// In Nova's form, or Glance's.
    let image: JSONValue
    var files: [(path: String, content: [UInt8])] = []
    var adminPassword: String?
    let operation: Operation
}

extension ComputeManager {
    func spawn(
        _ instance: inout Instance, _ build: Build, _ files: [(path: String, content: [UInt8])]
    ) async throws -> NetworkInfo {
        let networkInfo = try await allocateNetwork(&instance, build)
        instance.vmState = "building"
        instance.taskState = "spawning"
        try await services.conductor.save(&instance, expecting: ["block_device_mapping"], context: build.context)
        do {
            let order = MachineOrder(
                image: build.request.image, files: files, adminPassword: build.request.adminPassword, operation: build.operation)
            try await makeMachine(instance, order, networkInfo)
        } catch {
            build.operation.logger.error("the machine could not be made", metadata: ["error": "\(error)"])
            await removeMachine(of: instance, networkInfo, build.operation)
            throw error
        }
        return networkInfo
    }

    /// After a failure, runs to its end also in a cancelled operation.
    func removeMachine(of instance: Instance, _ networkInfo: NetworkInfo, _ operation: Operation) async {
        await shielded {
            await self.tried("remove what is left of the machine", operation) {
                try await self.services.driver.destroy(
                    instance: instance, interfaces: networkInfo.map(\.interfaceRequest), destroysDisks: true)
            }
        }
    }

    /// Ports are made while device names are recorded; both are done before the machine is begun.
    private func allocateNetwork(_ instance: inout Instance, _ build: Build) async throws -> NetworkInfo {
        let context = build.context
        func aborting(_ error: any Error) -> BuildFailure {
            .aborting("Failed to allocate the network(s), not rescheduling", error, isDeleting: build.isDeleting)
        }
        do {
            if instance.systemMetadata["network_allocated"] == "True" {
                // Left over from a host that did not clean up: its ports are bound to that host.
                try await services.network.deallocate(
                    for: instance, requested: build.request.requestedNetworks, context: context)
            }
            instance.vmState = "building"
            instance.taskState = "networking"
            try await services.conductor.save(&instance, expecting: [nil], context: context)
        } catch {
            throw aborting(error)
        }
        let (network, request, snapshot) = (services.network, build.request, instance)
        async let allocation = network.allocate(
            for: snapshot, requested: request.requestedNetworks, securityGroups: request.securityGroups,
            context: context)
        do {
            try await nameDevices(&instance, build)
        } catch {
            throw BuildFailure.aborting(
                "Failed to prepare the block devices", error, isDeleting: build.isDeleting)
        }
        do {
            let networkInfo = try await allocation
            instance.note(networkInfo: networkInfo)
            instance.systemMetadata["network_allocated"] = "True"
            return networkInfo
        } catch {
            throw aborting(error)
        }
    }

    private func nameDevices(_ instance: inout Instance, _ build: Build) async throws {
        let root = instance.rootDeviceName ?? "/dev/vda"
        let prefix = root.last.map { $0.isNumber ? String(root.dropLast()) : root } ?? root
        var letters = Array("bcdefghijklmnopqrstuvwxyz").makeIterator()
        for var mapping in build.request.blockDeviceMappings where mapping.deviceName == nil {
            if mapping.isRoot {
                mapping.deviceName = root
            } else {
                guard let letter = letters.next() else { break }
                mapping.deviceName = String(prefix.dropLast()) + String(letter)
            }
            try await services.conductor.call(&mapping, "save", context: build.context)
        }
        instance.vmState = "building"
        instance.taskState = "block_device_mapping"
        instance.rootDeviceName = root
        try await services.conductor.save(&instance, context: build.context)
    }

    /// Makes the machine and waits for its ports: builds, rebuilds and unshelves.
    func makeMachine(_ instance: Instance, _ order: MachineOrder, _ networkInfo: NetworkInfo) async throws {
        let ports = portsToWaitFor(networkInfo)
        let wiring = externalEvents.expect("network-vif-plugged", tags: ports, of: instance.uuid)
        defer { wiring.cancel() }
        try await services.driver.spawn(
            try await spawnRequest(instance, order, networkInfo, startsPaused: !ports.isEmpty))
        guard !ports.isEmpty else { return }
        try await waitForPorts(wiring, order.operation)
        try await services.driver.unpause(instanceUUID: instance.uuid)
    }

    func spawnRequest(
        _ instance: Instance, _ order: MachineOrder, _ networkInfo: NetworkInfo, startsPaused: Bool
    ) async throws -> SpawnRequest {
        let context = order.operation.context
        let fetcher = ImageFetcher(glance: services.glance, image: order.image, context: context)
        var configDrive: [String: [UInt8]]?
        if needsConfigDrive(instance, image: order.image) {
            configDrive = try await services.metadata.configDrive(
                for: instance, networkInfo: networkInfo, injectedFiles: order.files, adminPassword: order.adminPassword,
                context: context)
        }
        return SpawnRequest(
            instance: instance, image: order.image, interfaces: networkInfo.map(\.interfaceRequest), configDrive: configDrive,
            fetchImage: { try await fetcher.fetch($0, to: $1) }, startsPaused: startsPaused)
    }

    private func portsToWaitFor(_ networkInfo: NetworkInfo) -> [String] {
        guard services.configuration.network.vifPluggingTimeout > .zero else { return [] }
        return networkInfo.filter { !$0.isActive && $0.vnicType != "remote-managed" }.map(\.id)
    }

    private func waitForPorts(_ wiring: ExternalEvents.Expectation, _ operation: Operation) async throws {
        let options = services.configuration.network
        let reason: String
        switch try await wiring.outcome(within: options.vifPluggingTimeout) {
        case .completed: return
        case .cancelled: throw BuildFailure.disappeared
        case .failed(let keys):
            reason = "the network service reports that \(Self.portNames(keys)) could not be wired"
        case .timedOut(let keys):
            let seconds = options.vifPluggingTimeout.components.seconds
            reason = "the network service did not report \(Self.portNames(keys)) as wired within \(seconds) s"
        }
        guard options.isVIFPluggingFatal else {
            operation.logger.warning("the guest starts without its network", metadata: ["reason": "\(reason)"])
            return
        }
        throw NovaException.virtualInterfaceCreate(reason)
    }

    /// Keys are "network-vif-plugged-<port>".
    private static func portNames(_ keys: [String]) -> String {
        let ids = keys.map { $0.replacingPrefix("network-vif-plugged-") }
        return (ids.count == 1 ? "port " : "ports ") + ids.joined(separator: ", ")
    }
}

extension String {
    fileprivate func replacingPrefix(_ prefix: String) -> String {
        hasPrefix(prefix) ? String(dropFirst(prefix.count)) : self
    }
}
