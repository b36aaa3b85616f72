// nova.objects.InstanceFault: what `openstack server show` prints as the fault of a server.

package struct InstanceFault: NovaObject {
    package static let objectName = "InstanceFault"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    /// A record to be created. `message` is what a tenant reads (255 characters at most); `details` what an administrator
    /// reads besides.
    package init(
        instanceUUID: String, code: Int, message: String, details: String, host: String, profile: ReleaseProfile
    ) {
        self.init(in: profile)
        set("instance_uuid", to: instanceUUID)
        set("code", to: code)
        set("message", to: String(message.prefix(255)))
        set("details", to: details)
        set("host", to: host)
    }

    package var code: Int? { integer("code") }
    package var message: String? { string("message") }
}
