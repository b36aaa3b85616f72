// What goes into a body: {"oslo.version": "2.0", "oslo.message": "<JSON text>"}, and the keys of requests and replies inside.
package import JSON

/// A body that is no message, by what is wrong with it.
package struct EnvelopeError: Error, Sendable, Equatable, CustomStringConvertible {
    package var reason: DropReason
    package var detail: String
    package var description: String { "read message: \(detail) (peer)" }
}

package enum Envelope {
    package static let version = "2.0"

    package static func encode(_ message: [String: JSONValue]) -> [UInt8] {
        JSONValue.object([
            "oslo.version": .string(version), "oslo.message": .string(JSONValue.object(message).serialize()),
        ]).serializedBytes()
    }

    /// The message of a body. A body without the envelope's keys is the message itself (version 1.0).
    package static func decode(_ body: [UInt8]) throws(EnvelopeError) -> [String: JSONValue] {
        let outer = try parse(body)
        guard case .object(let members) = outer else {
            throw EnvelopeError(reason: .notAMessage, detail: "the body is no JSON object")
        }
        guard let version = members["oslo.version"], let inner = members["oslo.message"] else { return members }
        guard case .string(let text) = version, isCompatible(text) else {
            throw EnvelopeError(reason: .envelopeVersion, detail: "envelope version \(version), not \(Self.version)")
        }
        guard case .string(let text) = inner else {
            throw EnvelopeError(reason: .notAMessage, detail: "oslo.message is no text")
        }
        guard case .object(let message) = try parse(Array(text.utf8)) else {
            throw EnvelopeError(reason: .notAMessage, detail: "oslo.message holds no JSON object")
        }
        return message
    }

    private static func parse(_ bytes: [UInt8]) throws(EnvelopeError) -> JSONValue {
        do {
            // Python's json reads and writes NaN.
            return try JSONValue.parse(bytes, limits: JSONLimits(depth: 96, allowsNonFinite: true))
        } catch {
            throw EnvelopeError(reason: .notJSON, detail: "\(error)")
        }
    }

    private static func isCompatible(_ text: String) -> Bool {
        RPCVersion(text).map { RPCVersion(major: 2, minor: 0).serves($0) } ?? false
    }
}

/// "major.minor" of an endpoint or a request.
package struct RPCVersion: Sendable, Equatable {
    package var major: Int
    package var minor: Int

    package init(major: Int, minor: Int) {
        self.major = major
        self.minor = minor
    }

    package init?(_ text: String) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard (1...3).contains(parts.count), let major = Int(parts[0]), major >= 0 else { return nil }
        guard let minor = parts.count > 1 ? Int(parts[1]) : 0, minor >= 0 else { return nil }
        self.init(major: major, minor: minor)
    }

    /// Same major, and a minor no higher than ours.
    package func serves(_ requested: RPCVersion) -> Bool {
        major == requested.major && requested.minor <= minor
    }
}

extension RequestContext {
    private static let prefix = "_context_"

    /// The entries under their names on the wire.
    package var wireEntries: [String: JSONValue] {
        Dictionary(entries.map { (Self.prefix + $0.key, $0.value) }, uniquingKeysWith: { first, _ in first })
    }

    package init(wire message: [String: JSONValue]) {
        self.init()
        for (key, value) in message where key.hasPrefix(Self.prefix) {
            entries[String(key.dropFirst(Self.prefix.count))] = value
        }
    }
}
