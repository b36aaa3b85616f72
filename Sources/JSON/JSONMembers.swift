// Reads an object's members one by one, each with its type and bounds, and refuses what is left over. A member that is null
// counts as absent. The errors name the place by its path, for example `disks[1].fd`.

/// A value that is not what its reader asks for.
package struct JSONMemberError: Error, Sendable, Equatable, CustomStringConvertible {
    package let path: String
    package let reason: String

    package init(path: String, reason: String) {
        self.path = path
        self.reason = reason
    }

    package var description: String { path.isEmpty ? reason : "\(path): \(reason)" }
}

/// The members of one object that nobody has read yet.
///
///     var members = try JSONMembers(value)
///     let count = try members.integer("count", in: 1...64)
///     try members.refuseRest()
package struct JSONMembers: Sendable {
    private var rest: [String: JSONValue]
    /// Where the object lies in its text; empty for the outermost.
    package let path: String

    package init(_ value: JSONValue, path: String = "") throws(JSONMemberError) {
        guard case .object(let members) = value else { throw JSONMemberError(path: path, reason: "not an object") }
        rest = members
        self.path = path
    }

    /// The error that names a member of this object.
    package func error(_ name: String, _ reason: String) -> JSONMemberError {
        JSONMemberError(path: path.isEmpty ? name : "\(path).\(name)", reason: reason)
    }

    private mutating func take(_ name: String) -> JSONValue? {
        guard let value = rest.removeValue(forKey: name), !value.isNull else { return nil }
        return value
    }

    private func present<Value>(_ value: Value?, _ name: String) throws(JSONMemberError) -> Value {
        guard let value else { throw error(name, "missing") }
        return value
    }

    // MARK: Values

    package mutating func integerIfPresent(_ name: String, in range: ClosedRange<Int>) throws(JSONMemberError) -> Int? {
        guard let value = take(name) else { return nil }
        return try Self.integer(value, in: range, path: path.isEmpty ? name : "\(path).\(name)")
    }

    package mutating func integer(_ name: String, in range: ClosedRange<Int>) throws(JSONMemberError) -> Int {
        try present(try integerIfPresent(name, in: range), name)
    }

    package mutating func stringIfPresent(_ name: String, upTo limit: Int = 4096) throws(JSONMemberError) -> String? {
        guard let value = take(name) else { return nil }
        guard let text = value.stringValue else { throw error(name, "not a string") }
        guard text.utf8.count <= limit else { throw error(name, "longer than \(limit) bytes") }
        return text
    }

    package mutating func string(_ name: String, upTo limit: Int = 4096) throws(JSONMemberError) -> String {
        try present(try stringIfPresent(name, upTo: limit), name)
    }

    package mutating func boolIfPresent(_ name: String) throws(JSONMemberError) -> Bool? {
        guard let value = take(name) else { return nil }
        guard let flag = value.boolValue else { throw error(name, "neither true nor false") }
        return flag
    }

    package mutating func bool(_ name: String) throws(JSONMemberError) -> Bool {
        try present(try boolIfPresent(name), name)
    }

    /// Any value, null too, for whoever gives it back as it came.
    package mutating func valueIfPresent(_ name: String) -> JSONValue? { rest.removeValue(forKey: name) }

    // MARK: Objects and lists

    package mutating func objectIfPresent<Value>(
        _ name: String, _ read: (inout JSONMembers) throws(JSONMemberError) -> Value
    ) throws(JSONMemberError) -> Value? {
        guard let value = take(name) else { return nil }
        return try Self.object(value, path: path.isEmpty ? name : "\(path).\(name)", read)
    }

    package mutating func object<Value>(
        _ name: String, _ read: (inout JSONMembers) throws(JSONMemberError) -> Value
    ) throws(JSONMemberError) -> Value {
        try present(try objectIfPresent(name, read), name)
    }

    /// A list of objects; an absent one is empty.
    package mutating func objects<Value>(
        _ name: String, upTo limit: Int, _ read: (inout JSONMembers) throws(JSONMemberError) -> Value
    ) throws(JSONMemberError) -> [Value] {
        var values: [Value] = []
        for (index, element) in try elements(name, upTo: limit).enumerated() {
            values.append(try Self.object(element, path: "\(path.isEmpty ? name : "\(path).\(name)")[\(index)]", read))
        }
        return values
    }

    /// A list of integers; an absent one is empty.
    package mutating func integers(_ name: String, in range: ClosedRange<Int>, upTo limit: Int) throws(JSONMemberError)
        -> [Int]
    {
        var values: [Int] = []
        for (index, element) in try elements(name, upTo: limit).enumerated() {
            values.append(
                try Self.integer(element, in: range, path: "\(path.isEmpty ? name : "\(path).\(name)")[\(index)]"))
        }
        return values
    }

    private mutating func elements(_ name: String, upTo limit: Int) throws(JSONMemberError) -> [JSONValue] {
        guard let value = take(name) else { return [] }
        guard case .array(let elements) = value else { throw error(name, "not a list") }
        guard elements.count <= limit else { throw error(name, "more than \(limit) elements") }
        return elements
    }

    /// A list of pairs of name and integer; an absent one is empty.
    package mutating func counters(_ name: String) throws(JSONMemberError) -> [String: Int] {
        guard let value = take(name) else { return [:] }
        guard case .object(let members) = value else { throw error(name, "not an object") }
        var counters: [String: Int] = [:]
        for (key, member) in members {
            counters[key] = try Self.integer(
                member, in: Int.min...Int.max, path: "\(path.isEmpty ? name : "\(path).\(name)").\(key)")
        }
        return counters
    }

    /// Refuses members that nothing asked for.
    package func refuseRest() throws(JSONMemberError) {
        guard let name = rest.keys.min() else { return }
        throw error(name.unicodeScalars.count > 64 ? "\(name.unicodeScalars.prefix(64))…" : name, "unknown member")
    }

    private static func integer(_ value: JSONValue, in range: ClosedRange<Int>, path: String) throws(JSONMemberError)
        -> Int
    {
        guard let number = value.intValue else { throw JSONMemberError(path: path, reason: "not a whole number") }
        guard range.contains(number) else {
            throw JSONMemberError(
                path: path, reason: "\(number) is not from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    private static func object<Value>(
        _ value: JSONValue, path: String, _ read: (inout JSONMembers) throws(JSONMemberError) -> Value
    ) throws(JSONMemberError) -> Value {
        var members = try JSONMembers(value, path: path)
        let result = try read(&members)
        try members.refuseRest()
        return result
    }
}
