// What all operations do with an instance: load what the message left out, read its power state, its network, tell of it.
import ComputeDriver
import JSON
import Logging
import NovaObjects
import OsloMessaging

extension ComputeManager {
    /// Loads fields that the sender had not set; one call each, as Nova's objects do.
    func load(_ fields: String..., of instance: inout Instance, context: RequestContext) async throws {
        for field in fields where !instance.object.isSet(field) {
            let answer = try await services.conductor.callClass(
                "Instance", "get_by_uuid", [],
                ["uuid": .string(instance.uuid), "expected_attrs": [.string(field)]], context: context)
            let loaded = try Instance(primitive: answer)
            if let value = loaded.object[field] { instance.object.load(field, value) }
        }
    }

    /// The row of an instance as it is now.
    func fetchInstance(_ uuid: String, context: RequestContext) async throws -> Instance {
        let answer = try await services.conductor.callClass(
            "Instance", "get_by_uuid", [.string(uuid)], ["expected_attrs": ["info_cache", "system_metadata"]],
            context: context)
        return try Instance(primitive: answer)
    }

    /// What the machine does; `.noState` where there is none.
    func powerState(of instance: Instance) async throws -> PowerState {
        do { return try await services.driver.powerState(of: instance.uuid) } catch
            where NovaException.isClass("InstanceNotFound", error) { return .noState }
    }

    /// The end of an operation that went well, in the record: what the guest does, the state the server is in, no task any more.
    /// - Parameter expecting: the tasks that the record may have, as `Conductor.save` has it.
    func endTask(
        of instance: inout Instance, as vmState: String, expecting taskStates: [String?]? = nil, _ context: RequestContext
    ) async throws {
        instance.powerState = try await powerState(of: instance).rawValue
        instance.vmState = vmState
        instance.taskState = nil
        try await services.conductor.save(&instance, expecting: taskStates, context: context)
    }

    func deleteAllocations(of instance: Instance, _ operation: Operation) async {
        await tried("delete the allocations", operation) {
            try await self.services.books.deleteAllocations(of: instance.uuid)
        }
    }

    /// Asks Neutron anew. Where Neutron does not answer the cache will do: a guest is not kept from its power button by it.
    func networkInfo(of instance: inout Instance, _ operation: Operation) async throws -> NetworkInfo {
        try await load("info_cache", of: &instance, context: operation.context)
        do {
            let info = try await services.network.refresh(instance, portID: nil, context: operation.context)
            instance.note(networkInfo: info)
            return info
        } catch where !(error is CancellationError) && !NovaException.isClass("InstanceNotFound", error) {
            operation.logger.warning("network info from the cache: refresh failed", metadata: ["error": "\(error)"])
            return services.network.cached(instance)
        }
    }

    func notify(
        _ instance: Instance, _ action: String, _ phase: NotificationPhase?, _ context: RequestContext,
        networkInfo: NetworkInfo? = nil, extra: [String: JSONValue] = [:], fault: NovaException? = nil
    ) async {
        await services.notifications.instance(
            instance, action: action, phase: phase, networkInfo: networkInfo, extra: extra, fault: fault,
            context: context)
    }
}

extension Instance {
    /// Takes a picture of the network that is already stored: no change of the record.
    mutating func note(networkInfo: NetworkInfo) {
        guard var cache = infoCache else { return }
        cache.networkInfo = networkInfo.map(\.json)
        cache.object.resetChanges()
        object.load("info_cache", cache.primitive)
    }
}
