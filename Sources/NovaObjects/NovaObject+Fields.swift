// Typed reading and writing of fields, for the views. A field of a type its class does not have reads as nil: a peer that
// sends such a thing gets the error of the operation that needed the field, not a trap.
package import JSON

extension NovaObject {
    package init(object: VersionedObject) throws(ObjectError) {
        guard object.name == Self.objectName else {
            throw ObjectError(.wrongClass, object: object.name, reason: "expected \(Self.objectName)")
        }
        guard let received = ObjectVersion(object.version) else {
            throw ObjectError(
                .incompatibleVersion, object: object.name, reason: "\"\(object.version)\" is not a version")
        }
        if let ours = ObjectCatalogue.newestVersion(of: object.name), !ours.canRead(received) {
            throw ObjectError(
                .incompatibleVersion, object: object.name,
                reason: "it has version \(object.version); this service reads \(ours.major).0 to \(ours)")
        }
        self.init(unchecked: object)
    }

    package init(primitive: JSONValue) throws(ObjectError) {
        try self.init(object: VersionedObject(primitive: primitive))
    }

    /// A new object of this class in the version of a release, with nothing set.
    package init(in profile: ReleaseProfile) {
        self.init(
            unchecked: VersionedObject(name: Self.objectName, version: profile.version(of: Self.objectName)))
    }

    package var primitive: JSONValue { object.primitive }

    package func string(_ field: String) -> String? { object[field]?.stringValue }
    package func integer(_ field: String) -> Int? { object[field]?.intValue }
    package func double(_ field: String) -> Double? { object[field]?.doubleValue }
    package func boolean(_ field: String) -> Bool { object[field]?.boolValue ?? false }
    package func time(_ field: String) -> NovaTime? { string(field).flatMap(NovaTime.init) }

    package func strings(_ field: String) -> [String] {
        object[field]?.arrayValue?.compactMap(\.stringValue) ?? []
    }

    /// A Dict field; entries whose value is null are left out.
    package func dictionary(_ field: String) -> [String: String] {
        object[field]?.objectValue?.compactMapValues(\.stringValue) ?? [:]
    }

    /// A field that holds an object; nil where it is unset, null or of another class.
    package func nested<View: NovaObject>(_ field: String, as type: View.Type = View.self) -> View? {
        guard let value = object[field], !value.isNull else { return nil }
        return try? View(primitive: value)
    }

    /// A field that holds a list of objects, or a list object.
    package func elements<View: NovaObject>(_ field: String, as type: View.Type = View.self) -> [View] {
        let value = object[field]
        let primitives = value?.arrayValue ?? value?[VersionedObject.dataKey]?["objects"]?.arrayValue ?? []
        return primitives.compactMap { try? View(primitive: $0) }
    }

    package mutating func set(_ field: String, to value: JSONValue) { object.set(field, to: value) }
    package mutating func set(_ field: String, to value: String?) { object.set(field, to: .nullable(value)) }
    package mutating func set(_ field: String, to value: Int?) { object.set(field, to: .nullable(value)) }
    package mutating func set(_ field: String, to value: NovaTime?) {
        object.set(field, to: .nullable(value?.fieldText))
    }
    package mutating func set(_ field: String, to value: [String: String]) {
        object.set(field, to: .object(value.mapValues { .string($0) }))
    }

    /// Assigns a field where its value differs from what it has.
    package mutating func update(_ field: String, to value: JSONValue) {
        if object[field] != value { object.set(field, to: value) }
    }
}

extension JSONValue {
    package static func nullable(_ value: String?) -> JSONValue { value.map { .string($0) } ?? .null }
    package static func nullable(_ value: Int?) -> JSONValue { value.map { .integer(Int64($0)) } ?? .null }
}
