// List objects (InstanceList, MigrationList, …): one field, `objects`, with the elements as primitives.
import JSON

/// A class of Nova that is a list of another.
package protocol NovaListObject: NovaObject {
    associatedtype Element: NovaObject
}

extension NovaListObject {
    /// The elements; one that cannot be read fails the list.
    package func elements() throws(ObjectError) -> [Element] {
        guard let list = object["objects"]?.arrayValue else {
            throw ObjectError(.missingField, object: object.name, reason: "no objects")
        }
        var elements: [Element] = []
        for primitive in list { elements.append(try Element(primitive: primitive)) }
        return elements
    }

    /// A new list of these elements, marked as changed the way Nova marks a list it has made.
    package init(_ elements: [Element], in profile: ReleaseProfile) {
        self.init(in: profile)
        object.set("objects", to: .array(elements.map(\.primitive)))
    }
}
