// nova.objects.BlockDeviceMapping: one disk of a server, local or a volume.
package import JSON

package struct BlockDeviceMapping: NovaObject {
    package static let objectName = "BlockDeviceMapping"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    package var id: Int? { integer("id") }
    package var instanceUUID: String? { string("instance_uuid") }
    /// "blank", "image", "snapshot", "volume".
    package var sourceType: String? { string("source_type") }
    /// "local", "volume".
    package var destinationType: String? { string("destination_type") }
    package var guestFormat: String? { string("guest_format") }
    package var deviceType: String? { string("device_type") }
    package var diskBus: String? { string("disk_bus") }
    package var bootIndex: Int? { integer("boot_index") }
    package var volumeID: String? { string("volume_id") }
    package var volumeSizeGiB: Int? { integer("volume_size") }
    package var imageID: String? { string("image_id") }
    package var attachmentID: String? { string("attachment_id") }
    package var isNoDevice: Bool { boolean("no_device") }
    package var isDeletedOnTermination: Bool { boolean("delete_on_termination") }
    package var isVolume: Bool { destinationType == "volume" }
    package var isRoot: Bool { bootIndex == 0 }

    package var deviceName: String? {
        get { string("device_name") }
        set { set("device_name", to: newValue) }
    }
    /// Parsed from the text the field holds.
    package var connectionInfo: JSONValue? {
        get { string("connection_info").flatMap { try? JSONValue.parse($0) } }
        set { set("connection_info", to: newValue?.serialize()) }
    }
}

package struct BlockDeviceMappingList: NovaListObject {
    package typealias Element = BlockDeviceMapping
    package static let objectName = "BlockDeviceMappingList"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }
}
