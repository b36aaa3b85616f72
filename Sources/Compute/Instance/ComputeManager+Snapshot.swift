// snapshot_instance, backup_instance and the snapshot of a shelve (RPC reference §5.7): the API has made the image's record, its data
// and fields come from here. A snapshot that fails leaves no image behind and the server as it was.
import ComputeDriver
import Glance
import JSON
import Logging
import NovaObjects
import OpenStackHTTP
import OsloMessaging
import ServiceConfiguration

/// Where the task state goes while a snapshot is made.
struct SnapshotTasks: Sendable {
    let begin: String
    let pendingUpload: String
    let uploading: String

    static func image(begin: String) -> SnapshotTasks {
        SnapshotTasks(begin: begin, pendingUpload: "image_pending_upload", uploading: "image_uploading")
    }
    static let shelve = SnapshotTasks(
        begin: "shelving", pendingUpload: "shelving_image_pending_upload", uploading: "shelving_image_uploading")
}

extension ComputeManager {
    func snapshot(_ instance: inout Instance, imageID: String, _ operation: Operation) async throws {
        instance.taskState = "image_snapshot"
        do {
            try await services.conductor.save(&instance, expecting: ["image_snapshot_pending"], context: operation.context)
        } catch where Self.isGone(error) {
            return operation.logger.info("the instance went away before its snapshot")
        }
        try await takeSnapshot(&instance, imageID: imageID, .image(begin: "image_snapshot"), operation)
    }

    /// - Parameter rotation: how many backups of this kind are kept, this one included.
    func backup(_ instance: inout Instance, imageID: String, kind: String, rotation: Int, _ operation: Operation) async throws {
        guard rotation >= 0 else {
            throw NovaException("RotationRequiredForBackup", "Rotation param is required for backup image_type")
        }
        try await takeSnapshot(&instance, imageID: imageID, .image(begin: "image_backup"), operation)
        try await rotateBackups(instance, kind: kind, rotation: rotation, operation)
    }

    private static func isGone(_ error: any Error) -> Bool {
        NovaException.isClass("InstanceNotFound", error) || NovaException.isClass("UnexpectedDeletingTaskStateError", error)
    }

    private func takeSnapshot(
        _ instance: inout Instance, imageID: String, _ tasks: SnapshotTasks, _ operation: Operation
    ) async throws {
        let context = operation.context
        let extra: [String: JSONValue] = ["snapshot_image_id": .string(imageID)]
        do {
            instance.powerState = try await powerState(of: instance).rawValue
            try await services.conductor.save(&instance, context: context)
            await notify(instance, "snapshot", .start, context, extra: extra)
            try await uploadRootDisk(of: &instance, imageID: imageID, tasks, operation)
            instance.taskState = nil
            try await services.conductor.save(&instance, expecting: [tasks.uploading], context: context)
            await notify(instance, "snapshot", .end, context, extra: extra)
        } catch {
            await shielded { await self.removeImage(imageID, operation) }
            if Self.isGone(error) || NovaException.isClass("InstanceNotRunning", error) {
                return operation.logger.info("no snapshot: the instance went away", metadata: ["image": "\(imageID)"])
            }
            guard NovaException.isClass("ImageNotFound", error) else { throw error }
            operation.logger.warning("no snapshot: its image was deleted meanwhile", metadata: ["image": "\(imageID)"])
            instance.taskState = nil
            try await services.conductor.save(&instance, context: context)
        }
    }

    /// The root disk becomes the data of image `imageID`, which has no data yet.
    func uploadRootDisk(
        of instance: inout Instance, imageID: String, _ tasks: SnapshotTasks, _ operation: Operation
    ) async throws {
        let context = operation.context
        try await snapshotLimit.withSlotKeeping(&instance) { instance in
            try await self.load("system_metadata", of: &instance, context: context)
            instance.taskState = tasks.pendingUpload
            try await self.services.conductor.save(&instance, expecting: [tasks.begin], context: context)
            let format = self.services.configuration.compute.snapshotImageFormat.flatMap(DiskSnapshot.Format.init) ?? .qcow2
            var changed = instance
            defer { instance = changed }
            try await self.services.driver.withSnapshot(of: changed, format: format) { snapshot in
                changed.taskState = tasks.uploading
                try await self.services.conductor.save(&changed, expecting: [tasks.pendingUpload], context: context)
                try await self.upload(snapshot, of: changed, to: imageID, context)
            }
        }
    }

    private func upload(
        _ snapshot: DiskSnapshot, of instance: Instance, to imageID: String, _ context: RequestContext
    ) async throws {
        let authorization = context.imageAuthorization
        do {
            try await services.glance.update(imageID, fields: Self.fields(of: snapshot, instance), as: authorization)
            try await services.glance.upload(
                imageID, from: snapshot.descriptor, byteCount: snapshot.byteCount, as: authorization)
        } catch where !(error is CancellationError) {
            throw NovaException.image(imageID, error)
        }
    }

    /// What Nova's libvirt driver says of a snapshot (contract §8.3).
    private static func fields(of snapshot: DiskSnapshot, _ instance: Instance) -> [String: JSONValue] {
        let source = instance.systemMetadata
        var fields: [String: JSONValue] = [
            "disk_format": .string(source["image_disk_format"] == "ami" ? "ami" : snapshot.format.rawValue),
            "container_format": .string(source["image_container_format"] ?? "bare"),
            "image_location": "snapshot", "image_state": "available", "owner_id": .nullable(instance.projectID),
        ]
        for (name, value) in [
            ("kernel_id", instance.kernelID), ("ramdisk_id", instance.ramdiskID), ("os_type", instance.osType),
        ] {
            if let value, !value.isEmpty { fields[name] = .string(value) }
        }
        return fields
    }

    /// An image that will get no data, where it has none.
    func removeImage(_ id: String, _ operation: Operation) async {
        let authorization = operation.context.imageAuthorization
        await tried("remove the image of a failed snapshot", operation) {
            do {
                let image = try await services.glance.image(id, as: authorization)
                if image["status"]?.stringValue == "active" { return }
                try await services.glance.delete(id, as: authorization)
            } catch let fault as ServiceFault where fault.status == 404 {}
        }
    }

    private func rotateBackups(_ instance: Instance, kind: String, rotation: Int, _ operation: Operation) async throws {
        let authorization = operation.context.imageAuthorization
        let backups = try await services.glance.images(
            where: [("image_type", "backup"), ("backup_type", kind), ("instance_uuid", instance.uuid)], as: authorization)
        for old in backups.dropFirst(rotation) {
            guard let id = old["id"]?.stringValue else { continue }
            await tried("delete backup \(id)", operation) { try await services.glance.delete(id, as: authorization) }
        }
    }
}
