// The primitive form of an object (contract §2.2): a JSON object whose keys begin with "nova_object.". Nested objects stay
// primitives inside the field that holds them, so that what this program does not know goes back as it came.
package import JSON

extension VersionedObject {
    static let nameKey = "nova_object.name"
    static let namespaceKey = "nova_object.namespace"
    static let versionKey = "nova_object.version"
    static let dataKey = "nova_object.data"
    static let changesKey = "nova_object.changes"

    /// Reads a primitive. Change marks of fields that are not set are dropped.
    package init(primitive: JSONValue) throws(ObjectError) {
        guard case .object(let members) = primitive, let name = members[Self.nameKey]?.stringValue else {
            throw ObjectError(.notAnObject, object: "?", reason: "a value without \(Self.nameKey)")
        }
        guard members[Self.namespaceKey]?.stringValue == "nova" else {
            throw ObjectError(.wrongClass, object: name, reason: "its \(Self.namespaceKey) is not \"nova\"")
        }
        guard let version = members[Self.versionKey]?.stringValue else {
            throw ObjectError(.notAnObject, object: name, reason: "no \(Self.versionKey)")
        }
        guard let data = members[Self.dataKey]?.objectValue else {
            throw ObjectError(.notAnObject, object: name, reason: "no \(Self.dataKey)")
        }
        var changes: Set<String> = []
        if let list = members[Self.changesKey], !list.isNull {
            guard let names = list.arrayValue else {
                throw ObjectError(.wrongType, object: name, reason: "\(Self.changesKey) is not a list")
            }
            changes = Set(names.compactMap(\.stringValue)).intersection(data.keys)
        }
        self.init(name: name, version: version, fields: data, changes: changes)
    }

    /// The object as it goes into a message. Change marks are sorted: Nova takes them in any order.
    package var primitive: JSONValue {
        var members: [String: JSONValue] = [
            Self.nameKey: .string(name), Self.namespaceKey: "nova", Self.versionKey: .string(version),
            Self.dataKey: .object(fields),
        ]
        if !changes.isEmpty { members[Self.changesKey] = .array(changes.sorted().map { .string($0) }) }
        return .object(members)
    }

    /// True for a value in primitive form.
    package static func isPrimitive(_ value: JSONValue) -> Bool { value[nameKey] != nil }
}
