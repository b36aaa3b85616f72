// nova.objects.InstanceExternalEvent: news from another service about a server, delivered through the API.

package struct InstanceExternalEvent: NovaObject {
    package static let objectName = "InstanceExternalEvent"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    package var instanceUUID: String? { string("instance_uuid") }
    /// "network-vif-plugged", "network-changed", …
    package var name: String { string("name") ?? "" }
    /// "completed", "failed", "in-progress".
    package var status: String { string("status") ?? "" }
    /// What it is about: a port id for network events.
    package var tag: String? { string("tag") }

    /// Nova's key of an event: its name and its tag.
    package var key: String { tag.map { "\(name)-\($0)" } ?? name }
}
