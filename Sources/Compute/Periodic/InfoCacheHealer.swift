// `_heal_instance_info_cache`: one instance a tick, so that a host with many servers does not ask Neutron for all of
// them at once.
import Logging
import NovaObjects
import OsloMessaging

actor InfoCacheHealer {
    private let conductor: Conductor
    private let network: any InstanceNetwork
    private let host: String
    private let logger: Logger
    private var waiting: [String] = []

    init(conductor: Conductor, network: any InstanceNetwork, host: String, logger: Logger) {
        self.conductor = conductor
        self.network = network
        self.host = host
        self.logger = logger
    }

    func healOne(context: RequestContext) async throws {
        guard let instance = try await nextInstance(context) else { return }
        do {
            try await network.heal(instance, context: context)
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            logger.warning(
                "network information not refreshed", error: error, metadata: ["instance": "\(instance.uuid)"])
        }
    }

    /// The next one of the round that is still here and neither comes nor goes; a new round begins when the list is
    /// empty.
    private func nextInstance(_ context: RequestContext) async throws -> Instance? {
        if waiting.isEmpty {
            let list = try await conductor.instances(ofHost: host, attributes: [], usesReplica: true, context: context)
            waiting = try list.elements().filter(Self.isSettled).map(\.uuid)
        }
        while !waiting.isEmpty {
            let uuid = waiting.removeFirst()
            let attributes = ["system_metadata", "info_cache", "flavor"]
            let found = try await conductor.instanceRecord(uuid, attributes: attributes, context: context)
            if let found, found.host == host, Self.isSettled(found) { return found }
        }
        return nil
    }

    private static func isSettled(_ instance: Instance) -> Bool {
        instance.vmState != "building" && instance.taskState != "deleting"
    }
}
