// nova.objects.NetworkRequest: one network interface a build asks for.

package struct NetworkRequest: NovaObject {
    package static let objectName = "NetworkRequest"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    /// "auto" and "none" are words here, not identifiers.
    package var networkID: String? { string("network_id") }
    package var portID: String? { string("port_id") }
    /// A fixed IP address.
    package var address: String? { string("address") }
    package var tag: String? { string("tag") }
    package var pciRequestID: String? { string("pci_request_id") }

    package var isNone: Bool { networkID == "none" }
    package var isAuto: Bool { networkID == "auto" }
}

package struct NetworkRequestList: NovaListObject {
    package typealias Element = NetworkRequest
    package static let objectName = "NetworkRequestList"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }
}

/// The record of a port in Nova's database.
package struct VirtualInterface: NovaObject {
    package static let objectName = "VirtualInterface"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }

    /// A record to be created. Nova writes "<mac>/<port id>" as the address, which its unique index needs.
    package init(address: String, instanceUUID: String, portID: String, tag: String?, profile: ReleaseProfile) {
        self.init(in: profile)
        set("address", to: address)
        set("instance_uuid", to: instanceUUID)
        set("network_id", to: 0)
        set("uuid", to: portID)
        set("tag", to: tag)
    }

    package var uuid: String? { string("uuid") }
}

package struct VirtualInterfaceList: NovaListObject {
    package typealias Element = VirtualInterface
    package static let objectName = "VirtualInterfaceList"
    package var object: VersionedObject

    package init(unchecked object: VersionedObject) { self.object = object }
}
