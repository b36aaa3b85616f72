// nova.objects.Instance: the field names are Nova's; the typed accessors are the ones this service reads and writes.
package import JSON

/// A server as Nova knows it.
package struct Instance: NovaObject {
    package static let objectName = "Instance"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    package var uuid: String { string("uuid") ?? "" }
    package var id: Int? { integer("id") }
    package var userID: String? { string("user_id") }
    package var projectID: String? { string("project_id") }
    package var reservationID: String? { string("reservation_id") }
    package var displayName: String? { string("display_name") }
    package var hostname: String? { string("hostname") }
    package var imageRef: String? { string("image_ref") }
    package var kernelID: String? { string("kernel_id") }
    package var ramdiskID: String? { string("ramdisk_id") }
    package var keyName: String? { string("key_name") }
    package var keyData: String? { string("key_data") }
    package var userData: String? { string("user_data") }
    package var configDrive: String? { string("config_drive") }
    package var architecture: String? { string("architecture") }
    package var osType: String? { string("os_type") }
    package var availabilityZone: String? { string("availability_zone") }
    package var launchIndex: Int { integer("launch_index") ?? 0 }
    package var instanceTypeID: Int? { integer("instance_type_id") }
    package var memoryMiB: Int { integer("memory_mb") ?? 0 }
    package var vcpus: Int { integer("vcpus") ?? 0 }
    package var rootGiB: Int { integer("root_gb") ?? 0 }
    package var ephemeralGiB: Int { integer("ephemeral_gb") ?? 0 }
    package var createdAt: NovaTime? { time("created_at") }
    package var deletedAt: NovaTime? { time("deleted_at") }
    package var isDeleted: Bool { boolean("deleted") }
    package var isShutdownTerminate: Bool { boolean("shutdown_terminate") }
    package var metadata: [String: String] { dictionary("metadata") }
    package var flavor: Flavor? { nested("flavor") }
    package var oldFlavor: Flavor? { nested("old_flavor") }
    package var newFlavor: Flavor? { nested("new_flavor") }
    package var keypairs: [VersionedObject] {
        (object["keypairs"]?[VersionedObject.dataKey]?["objects"]?.arrayValue ?? [])
            .compactMap { try? VersionedObject(primitive: $0) }
    }

    /// Nova's words: "active", "building", "stopped", "error", …
    package var vmState: String? {
        get { string("vm_state") }
        set { set("vm_state", to: newValue) }
    }
    package var taskState: String? {
        get { string("task_state") }
        set { set("task_state", to: newValue) }
    }
    package var powerState: Int? {
        get { integer("power_state") }
        set { set("power_state", to: newValue) }
    }
    package var host: String? {
        get { string("host") }
        set { set("host", to: newValue) }
    }
    package var node: String? {
        get { string("node") }
        set { set("node", to: newValue) }
    }
    package var launchedOn: String? {
        get { string("launched_on") }
        set { set("launched_on", to: newValue) }
    }
    package var launchedAt: NovaTime? {
        get { time("launched_at") }
        set { set("launched_at", to: newValue) }
    }
    package var terminatedAt: NovaTime? {
        get { time("terminated_at") }
        set { set("terminated_at", to: newValue) }
    }
    package var rootDeviceName: String? {
        get { string("root_device_name") }
        set { set("root_device_name", to: newValue) }
    }
    package var progress: Int? {
        get { integer("progress") }
        set { set("progress", to: newValue) }
    }
    package var systemMetadata: [String: String] {
        get { dictionary("system_metadata") }
        set { set("system_metadata", to: newValue) }
    }
    package var infoCache: InstanceInfoCache? {
        get { nested("info_cache") }
        set { set("info_cache", to: newValue?.primitive ?? .null) }
    }
}

/// Instances in the order the conductor gave them.
package struct InstanceList: NovaListObject {
    package typealias Element = Instance
    package static let objectName = "InstanceList"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }
}

/// The network information the API shows, as text: a JSON array inside a string inside the message (contract §7.6).
package struct InstanceInfoCache: NovaObject {
    package static let objectName = "InstanceInfoCache"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    package var instanceUUID: String? {
        get { string("instance_uuid") }
        set { set("instance_uuid", to: newValue) }
    }

    /// The VIFs; empty where there are none, or where the text is no JSON array.
    package var networkInfo: [JSONValue] {
        get { string("network_info").flatMap { try? JSONValue.parse($0) }?.arrayValue ?? [] }
        set { set("network_info", to: JSONValue.array(newValue).serialize()) }
    }
}
