// nova.objects.Instance: the field names are Nova's; the typed accessors are the ones this service reads and writes.
import JSON

/// A server as Nova knows it.
package struct Instance: NovaObject {
    package static let objectName = "Instance"
    package var object: VersionedObject

    package init(object: VersionedObject) throws(ObjectError) {
        guard object.name == Self.objectName else {
            throw ObjectError(.wrongClass, object: object.name, reason: "expected \(Self.objectName)")
        }
        self.object = object
    }

    package var uuid: String { object["uuid"]?.stringValue ?? "" }
}
