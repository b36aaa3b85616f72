// shelve_instance, shelve_offload_instance, unshelve_instance (RPC reference §5.10): a server that gives its host back and keeps its disk
// as an image, its ports and its record.
import ComputeDriver
import Glance
import JSON
import Logging
import NovaObjects
import OsloMessaging
import ServiceConfiguration

/// The arguments of unshelve_instance that this service uses.
struct UnshelveRequest: Sendable {
    /// Nil: the server stands on the host still, or has no image.
    var image: JSONValue?
    var limits: JSONValue

    init(_ arguments: ArgumentReader) {
        image = arguments.values["image"].flatMap { $0["id"]?.stringValue == nil ? nil : $0 }
        limits = arguments.values["filter_properties"]?["limits"] ?? .object([:])
    }
}

extension ComputeManager {
    func shelve(_ instance: inout Instance, imageID: String?, isClean: Bool, _ operation: Operation) async throws {
        let context = operation.context
        let shouldOffload = services.configuration.compute.shelvedOffloadTime == .zero
        await notify(instance, "shelve", .start, context)
        try await load("system_metadata", of: &instance, context: context)
        try await powerOff(&instance, isClean: isClean && instance.vmState != "paused", operation)
        instance.systemMetadata["shelved_at"] = NovaTime.now.entityText
        instance.systemMetadata["shelved_host"] = host
        if let imageID {
            do { try await uploadRootDisk(of: &instance, imageID: imageID, .shelve, operation) } catch {
                await shielded { await self.removeImage(imageID, operation) }
                throw error
            }
            instance.systemMetadata["shelved_image_id"] = imageID
        }
        instance.vmState = "shelved"
        instance.taskState = shouldOffload ? "shelving_offloading" : nil
        instance.powerState = try await powerState(of: instance).rawValue
        try await services.conductor.save(&instance, expecting: ["shelving", "shelving_image_uploading"], context: context)
        await notify(instance, "shelve", .end, context)
        if shouldOffload { try await offload(&instance, isClean: false, operation) }
    }

    func offload(_ instance: inout Instance, isClean: Bool, _ operation: Operation) async throws {
        let context = operation.context
        await notify(instance, "shelve_offload", .start, context)
        if try await powerState(of: instance) == .running { try await powerOff(&instance, isClean: isClean, operation) }
        let networkInfo = try await networkInfo(of: &instance, operation)
        try await services.driver.destroy(
            instance: instance, interfaces: networkInfo.map(\.interfaceRequest), destroysDisks: true)
        instance.powerState = try await powerState(of: instance).rawValue
        await deleteAllocations(of: instance, operation)
        instance.vmState = "shelved_offloaded"
        instance.taskState = nil
        try await services.conductor.save(&instance, expecting: ["shelving", "shelving_offloading"], context: context)
        await services.books.updateUsage(instance, context: context)
        instance.host = nil
        instance.node = nil
        instance.launchedOn = nil
        instance.set("availability_zone", to: .null)
        try await services.conductor.save(&instance, context: context)
        await services.books.tellSchedulers(deleted: instance.uuid, context: context)
        await notify(instance, "shelve_offload", .end, context)
    }

    func unshelve(_ instance: inout Instance, _ request: UnshelveRequest, _ operation: Operation) async throws {
        let context = operation.context
        try await load("system_metadata", "flavor", "info_cache", of: &instance, context: context)
        if instance.asksForCells { try await load("numa_topology", of: &instance, context: context) }
        let shelvedImage = instance.systemMetadata["shelved_image_id"]
        await notify(instance, "unshelve", .start, context)
        instance.taskState = "spawning"
        try await services.conductor.save(&instance, context: context)
        let wasShelvedAs = ["shelved_at", "shelved_image_id", "shelved_host"]
        do { try await spawnAnew(&instance, request, operation) } catch {
            let left = instance
            await shielded { await self.deleteAllocations(of: left, operation) }
            throw error
        }
        if let shelvedImage { await deleteShelvedImage(shelvedImage, operation) }
        for key in wasShelvedAs { instance.systemMetadata[key] = nil }
        instance.launchedAt = .now
        try await endTask(of: &instance, as: "active", expecting: ["spawning"], context)
        await services.books.tellSchedulers(updated: instance, context: context)
        await notify(instance, "unshelve", .end, context)
    }

    /// Claims the host and makes the machine there; undone where that fails.
    private func spawnAnew(_ instance: inout Instance, _ request: UnshelveRequest, _ operation: Operation) async throws {
        let context = operation.context
        guard let image = request.image else {
            throw NovaException("ImageNotFound", "This compute host cannot unshelve a server without an image.")
        }
        try await services.books.claim(&instance, limits: request.limits, context: context)
        do {
            try await services.network.bind(instance, context: context)
            let networkInfo = try await services.network.refresh(instance, portID: nil, context: context)
            instance.note(networkInfo: networkInfo)
            let order = MachineOrder(image: image, operation: operation)
            // The shelved image takes the image's place: what it boots is in the record as it was.
            var shelved = instance
            shelved.object.load("image_ref", image["id"] ?? .null)
            do { try await makeMachine(shelved, order, networkInfo) } catch {
                await removeMachine(of: instance, networkInfo, operation)
                throw error
            }
        } catch {
            let books = services.books
            instance = await shielded { [instance] in
                var instance = instance
                await books.abortClaim(&instance, context: context)
                return instance
            }
            throw error
        }
    }

    private func deleteShelvedImage(_ id: String, _ operation: Operation) async {
        await tried("delete the image it was shelved as", operation) {
            try await services.glance.delete(id, as: operation.context.imageAuthorization)
        }
    }
}
