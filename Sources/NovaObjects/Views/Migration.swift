// nova.objects.Migration: one move of a server between hosts or flavors. This service reads it for the host's usage.

package struct Migration: NovaObject {
    package static let objectName = "Migration"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    package var id: Int? { integer("id") }
    package var uuid: String? { string("uuid") }
    package var instanceUUID: String? { string("instance_uuid") }
    package var sourceCompute: String? { string("source_compute") }
    package var destinationCompute: String? { string("dest_compute") }
    package var sourceNode: String? { string("source_node") }
    package var destinationNode: String? { string("dest_node") }
    package var newInstanceTypeID: Int? { integer("new_instance_type_id") }
    package var oldInstanceTypeID: Int? { integer("old_instance_type_id") }
    /// "migration", "resize", "live-migration", "evacuation".
    package var migrationType: String? { string("migration_type") }

    package var status: String? {
        get { string("status") }
        set { set("status", to: newValue) }
    }
}

package struct MigrationList: NovaListObject {
    package typealias Element = Migration
    package static let objectName = "MigrationList"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }
}
