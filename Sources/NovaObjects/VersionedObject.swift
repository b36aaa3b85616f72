// An oslo.versionedobjects object as Nova sends it: a name, a version, the fields that are set, the fields that changed.
// "Set to null" and "not set" differ. Typed views (Instance, Migration, …) wrap this value and name the fields.
package import JSON

/// A Nova object of any class. Fields this program does not know stay as they came.
package struct VersionedObject: Sendable, Equatable {
    /// Class name, for example "Instance".
    package let name: String
    /// The version it was received in or is sent in, for example "2.7".
    package var version: String
    /// Set fields, nested objects in primitive form.
    package private(set) var fields: [String: JSONValue]
    /// Fields assigned since it was loaded or saved.
    package private(set) var changes: Set<String>

    package init(name: String, version: String, fields: [String: JSONValue] = [:], changes: Set<String> = []) {
        self.name = name
        self.version = version
        self.fields = fields
        self.changes = changes
    }

    /// The value of a set field, nil where it is not set.
    package subscript(field: String) -> JSONValue? { fields[field] }

    /// True where the field has a value, null included.
    package func isSet(_ field: String) -> Bool { fields[field] != nil }

    /// Assigns a field and marks it changed.
    package mutating func set(_ field: String, to value: JSONValue) {
        fields[field] = value
        changes.insert(field)
    }

    /// Stores a field as loaded: not a change.
    package mutating func load(_ field: String, _ value: JSONValue) {
        fields[field] = value
        changes.remove(field)
    }

    /// Makes a field unset.
    package mutating func unset(_ field: String) {
        fields[field] = nil
        changes.remove(field)
    }

    /// Forgets all change marks but these.
    package mutating func resetChanges(keeping kept: Set<String> = []) {
        changes = kept
    }

    /// Takes over what the conductor answered to `object_action` (contract §4.1): the fields that differ after the call.
    /// All change marks go, those of nested objects too; then `obj_what_changed` names the ones that stay.
    package mutating func apply(updates: [String: JSONValue]) {
        for (field, value) in updates where field != Self.whatChangedKey { fields[field] = value }
        for (field, value) in fields { fields[field] = Self.withoutChanges(value) }
        let named = updates[Self.whatChangedKey]?.arrayValue ?? []
        changes = Set(named.compactMap(\.stringValue)).intersection(fields.keys)
    }

    private static let whatChangedKey = "obj_what_changed"

    private static func withoutChanges(_ value: JSONValue) -> JSONValue {
        switch value {
        case .array(let elements):
            return .array(elements.map(withoutChanges))
        case .object(var members):
            if members[nameKey] != nil { members[changesKey] = nil }
            return .object(members.mapValues(withoutChanges))
        default:
            return value
        }
    }
}

/// A message's object that this program cannot use.
package struct ObjectError: Error, Sendable, CustomStringConvertible {
    package enum Code: Sendable, Equatable { case notAnObject, wrongClass, incompatibleVersion, missingField, wrongType }
    package let code: Code
    package let object: String
    package let reason: String

    package init(_ code: Code, object: String, reason: String) {
        self.code = code
        self.object = object
        self.reason = reason
    }

    package var description: String { "read object \(object): \(reason) (peer)" }
}

/// A typed view of one class of object.
package protocol NovaObject: Sendable {
    static var objectName: String { get }
    var object: VersionedObject { get set }
    /// Wraps an object of this class; `init(object:)` is the one that checks.
    init(unchecked object: VersionedObject)
    /// Checks the class name and that the version is one this program can read.
    init(object: VersionedObject) throws(ObjectError)
}
