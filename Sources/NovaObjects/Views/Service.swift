// nova.objects.Service: this process's row in `openstack compute service list`.

package struct Service: NovaObject {
    package static let objectName = "Service"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    /// A record to be created, as nova-compute creates it.
    package init(host: String, binary: String, topic: String, profile: ReleaseProfile) {
        self.init(in: profile)
        set("host", to: host)
        set("binary", to: binary)
        set("topic", to: topic)
        set("report_count", to: 0)
        set("version", to: profile.serviceVersion)
    }

    package var id: Int? { integer("id") }
    package var uuid: String? { string("uuid") }
    package var host: String? { string("host") }
    package var isDisabled: Bool { boolean("disabled") }
    package var isForcedDown: Bool { boolean("forced_down") }

    package var version: Int? {
        get { integer("version") }
        set { set("version", to: newValue) }
    }
    /// Counts up with every heartbeat.
    package var reportCount: Int {
        get { integer("report_count") ?? 0 }
        set { set("report_count", to: newValue) }
    }
}
