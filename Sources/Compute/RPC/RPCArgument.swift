// What an argument of a compute RPC method must be (RPC reference §3), so that a message of another shape is an error of that
// message, before an operation has begun.
package import JSON
import NovaObjects

/// One keyword argument of a method.
package struct RPCArgument: Sendable {
    package enum Kind: Sendable, Equatable {
        case text, integer, flag, dictionary, array, any
        /// A Nova object of this class.
        case object(String)
        /// A plain list of objects of this class.
        case objects(String)
    }
    package let name: String
    package let kind: Kind
    /// True where null is a value of it, and absence is the same.
    package let isOptional: Bool

    init(_ name: String, _ kind: Kind, isOptional: Bool = false) {
        self.name = name
        self.kind = kind
        self.isOptional = isOptional
    }

    var optional: RPCArgument { RPCArgument(name, kind, isOptional: true) }

    static let instance = object("Instance", "instance")
    static let migration = object("Migration", "migration")
    static let requestSpec = object("RequestSpec", "request_spec")
    static let image = dictionary("image")
    static let cleanShutdown = flag("clean_shutdown")

    static func text(_ name: String) -> RPCArgument { RPCArgument(name, .text) }
    static func integer(_ name: String) -> RPCArgument { RPCArgument(name, .integer) }
    static func flag(_ name: String) -> RPCArgument { RPCArgument(name, .flag) }
    static func dictionary(_ name: String) -> RPCArgument { RPCArgument(name, .dictionary) }
    static func array(_ name: String) -> RPCArgument { RPCArgument(name, .array) }
    static func any(_ name: String) -> RPCArgument { RPCArgument(name, .any, isOptional: true) }
    static func object(_ className: String, _ name: String) -> RPCArgument { RPCArgument(name, .object(className)) }
    static func objects(_ className: String, _ name: String) -> RPCArgument { RPCArgument(name, .objects(className)) }

    /// Why `value` cannot be this argument; nil where it can.
    package func problem(with value: JSONValue?) -> NovaException? {
        guard let value, !value.isNull else {
            return isOptional ? nil : .invalidArgument(name, "it is missing")
        }
        switch kind {
        case .any: return nil
        case .text: return value.stringValue == nil ? .invalidArgument(name, "it is no text") : nil
        case .integer: return value.intValue == nil ? .invalidArgument(name, "it is no whole number") : nil
        case .flag: return value.boolValue == nil ? .invalidArgument(name, "it is no truth value") : nil
        case .dictionary: return value.objectValue == nil ? .invalidArgument(name, "it is no dictionary") : nil
        case .array: return value.arrayValue == nil ? .invalidArgument(name, "it is no list") : nil
        case .object(let className): return Self.problem(with: value, as: className, name: name)
        case .objects(let className):
            guard let elements = value.arrayValue else { return .invalidArgument(name, "it is no list") }
            return elements.lazy.compactMap { Self.problem(with: $0, as: className, name: name) }.first
        }
    }

    private static func problem(with value: JSONValue, as className: String, name: String) -> NovaException? {
        do {
            let object = try VersionedObject(primitive: value)
            // Driver-specific classes stand for their parent.
            let isExpected =
                object.name == className || (className == "LiveMigrateData" && object.name.hasSuffix("LiveMigrateData"))
            guard isExpected else { return .invalidArgument(name, "a \(object.name) where a \(className) is expected") }
            guard let received = ObjectVersion(object.version) else {
                return .incompatibleObject(name, "\(object.name) has the version \"\(object.version)\"")
            }
            if let ours = ObjectCatalogue.newestVersion(of: object.name), !ours.canRead(received) {
                return .incompatibleObject(name, "\(object.name) \(object.version) where \(ours) can be read")
            }
            return nil
        } catch {
            return .invalidArgument(name, error.reason)
        }
    }
}
