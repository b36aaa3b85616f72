// rescue, unrescue (RPC reference §5.5).
import ComputeDriver
import Glance
import JSON
import Logging
import NovaObjects
import OsloMessaging

extension ComputeManager {
    /// - Parameter imageID: what the user named; nil: what the server was made from.
    func rescue(
        _ instance: inout Instance, password: String?, imageID: String?, isClean: Bool, _ operation: Operation
    ) async throws {
        let context = operation.context
        let networkInfo = try await networkInfo(of: &instance, operation)
        try await load("system_metadata", "flavor", of: &instance, context: context)
        let wanted = [imageID, instance.systemMetadata["image_base_image_ref"], instance.imageRef]
        guard let id = wanted.compactMap({ $0 }).first(where: { !$0.isEmpty }) else {
            throw NovaException.instanceNotRescuable(
                instance.uuid, NovaException("ImageNotFound", "no image was named and the server was made from none"))
        }
        let image = try await imageRecord(id, context)
        await notify(
            instance, "rescue", .start, context, networkInfo: networkInfo,
            extra: ["rescue_image_name": image["name"] ?? "", "rescue_image_ref": .string(id)])
        do {
            try await powerOff(&instance, isClean: isClean, operation)
            let order = MachineOrder(image: image, adminPassword: password ?? Self.password(), operation: operation)
            let rescued = instance.booting(image)
            try await services.driver.rescue(try await spawnRequest(rescued, order, networkInfo, startsPaused: false))
        } catch where !(error is CancellationError) {
            let exception = NovaException.instanceNotRescuable(instance.uuid, NovaException(error))
            try? await setErrorState(&instance, context)
            throw exception
        }
        instance.launchedAt = .now
        try await endTask(of: &instance, as: "rescued", expecting: ["rescuing"], context)
        await notify(
            instance, "rescue", .end, context, networkInfo: networkInfo,
            extra: ["rescue_image_name": image["name"] ?? "", "rescue_image_ref": .string(id)])
    }

    func unrescue(_ instance: inout Instance, _ operation: Operation) async throws {
        let context = operation.context
        let networkInfo = try await networkInfo(of: &instance, operation)
        await notify(instance, "unrescue", .start, context, networkInfo: networkInfo)
        try await services.driver.unrescue(instance: instance, interfaces: networkInfo.map(\.interfaceRequest))
        try await endTask(of: &instance, as: "active", expecting: ["unrescuing"], context)
        await notify(instance, "unrescue", .end, context, networkInfo: networkInfo)
    }

    /// Glance's record of an image, as the user may see it.
    func imageRecord(_ id: String, _ context: RequestContext) async throws -> JSONValue {
        do {
            return try await services.glance.image(id, as: context.imageAuthorization)
        } catch where !(error is CancellationError) {
            throw NovaException.image(id, error)
        }
    }

    /// As Nova makes one where nobody gave one: 12 characters that nobody mistakes.
    static func password() -> String {
        String((0..<12).compactMap { _ in "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz".randomElement() })
    }
}

extension Instance {
    /// The record as it would be had the server been made from `image`: its kernel and RAM disk are the image's own.
    func booting(_ image: JSONValue) -> Instance {
        let properties = ImageProperties(image: image)
        var instance = self
        instance.object.load("image_ref", image["id"] ?? .null)
        instance.object.load("kernel_id", .nullable(properties.string("kernel_id") ?? image["kernel_id"]?.stringValue))
        instance.object.load("ramdisk_id", .nullable(properties.string("ramdisk_id") ?? image["ramdisk_id"]?.stringValue))
        return instance
    }
}
