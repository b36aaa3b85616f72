// nova.objects.ComputeNode: what the scheduler and `openstack hypervisor` know of this host. Its uuid is the uuid of the
// resource provider in Placement.
import JSON

package struct ComputeNode: NovaObject {
    package static let objectName = "ComputeNode"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    package var id: Int? { integer("id") }
    package var uuid: String? { string("uuid") }
    package var host: String? { string("host") }
    package var hypervisorHostname: String? { string("hypervisor_hostname") }
    package var stats: [String: String] { dictionary("stats") }
}

package struct ComputeNodeList: NovaListObject {
    package typealias Element = ComputeNode
    package static let objectName = "ComputeNodeList"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }
}

/// One kind of guest a host can run: architecture, hypervisor type, mode.
package struct HVSpec: NovaObject {
    package static let objectName = "HVSpec"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    package init(architecture: String, hypervisorType: String, mode: String, profile: ReleaseProfile) {
        self.init(in: profile)
        set("arch", to: architecture)
        set("hv_type", to: hypervisorType)
        set("vm_mode", to: mode)
    }
}
