// The pieces of a build request that this service reads: nova.objects.RequestSpec, Selection and SchedulerLimits. The
// rest of them passes through untouched, on a reschedule.
import JSON

package struct RequestSpec: NovaObject {
    package static let objectName = "RequestSpec"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    package var instanceUUID: String? { string("instance_uuid") }
    package var flavor: Flavor? { nested("flavor") }
    package var isBootFromVolume: Bool { boolean("is_bfv") }
    /// ImageMeta; null for boot from volume.
    package var image: VersionedObject? {
        object["image"].flatMap { try? VersionedObject(primitive: $0) }
    }
}

/// A host the scheduler chose.
package struct Selection: NovaObject {
    package static let objectName = "Selection"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    package var serviceHost: String? { string("service_host") }
    package var nodeName: String? { string("nodename") }
    package var computeNodeUUID: String? { string("compute_node_uuid") }
}
