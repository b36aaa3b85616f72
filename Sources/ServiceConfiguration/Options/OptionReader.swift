// Reads options by their oslo.config type. A wrong value is a problem with its place and the default in its stead, so that
// one run names all problems. `$name`, `${name}` and `$group.name` stand for other options, `$$` for a dollar.

struct OptionReader {
    private let store: OptionStore
    /// Values of options that nobody wrote, for references to them.
    private let presets: [OptionKey: String]
    private(set) var problems: [String]
    /// One line for each deprecated name in use.
    private(set) var notices: [String] = []
    private var known: Set<OptionKey> = []
    /// What was read, in the order of reading.
    private(set) var effective: [EffectiveOption] = []

    init(store: OptionStore, presets: [OptionKey: String]) {
        self.store = store
        self.presets = presets
        problems = store.problems
    }

    /// Options that were written but never asked for.
    var unknownOptions: [String] { store.keys.subtracting(known).map(\.description).sorted() }

    // MARK: Types

    mutating func string(_ group: String, _ name: String, or preset: String, aliases: [OptionKey] = []) -> String {
        string(group, name, aliases: aliases) ?? defaulted(group, name, preset)
    }

    mutating func string(_ group: String, _ name: String, aliases: [OptionKey] = []) -> String? {
        let key = OptionKey(group: group, name: name)
        guard let raw = raw(key, aliases) else {
            guard let preset = presets[key] else { return nil }
            return noted(key, expand(preset, in: key, at: .preset, depth: 0), .preset)
        }
        return noted(key, expand(raw.text, in: key, at: raw.origin, depth: 0), raw.origin)
    }

    mutating func choice(
        _ group: String, _ name: String, or preset: String, of choices: [String], aliases: [OptionKey] = []
    ) -> String {
        guard let text = string(group, name, aliases: aliases) else { return defaulted(group, name, preset) }
        guard let choice = choices.first(where: { $0.lowercased() == text.lowercased() }) else {
            fail(group, name, "\"\(text)\" is none of \(choices.joined(separator: ", "))")
            return preset
        }
        return choice
    }

    mutating func integer(
        _ group: String, _ name: String, or preset: Int, in range: ClosedRange<Int> = Int.min...Int.max,
        aliases: [OptionKey] = []
    ) -> Int {
        guard let text = scalar(group, name, aliases) else { return defaulted(group, name, preset) }
        guard let value = Int(text) else {
            fail(group, name, "\"\(text)\" is not an integer")
            return preset
        }
        guard range.contains(value) else {
            let lower = range.lowerBound == Int.min ? "" : "at least \(range.lowerBound) "
            let upper = range.upperBound == Int.max ? "" : "at most \(range.upperBound) "
            fail(group, name, "\(value) is out of range: \(lower)\(upper)is allowed")
            return preset
        }
        return value
    }

    mutating func double(_ group: String, _ name: String, aliases: [OptionKey] = []) -> Double? {
        guard let text = scalar(group, name, aliases) else { return nil }
        guard let value = Double(text), value.isFinite else {
            fail(group, name, "\"\(text)\" is not a number")
            return nil
        }
        return value
    }

    mutating func flag(_ group: String, _ name: String, or preset: Bool, aliases: [OptionKey] = []) -> Bool {
        guard let text = scalar(group, name, aliases) else { return defaulted(group, name, preset) }
        switch text.lowercased() {
        case "true", "1", "on", "yes": return true
        case "false", "0", "off", "no": return false
        default:
            fail(group, name, "\"\(text)\" is not a truth value (true, false, yes, no, on, off, 1, 0)")
            return preset
        }
    }

    mutating func list(_ group: String, _ name: String, or preset: [String] = [], aliases: [OptionKey] = []) -> [String]
    {
        guard let text = string(group, name, aliases: aliases) else {
            _ = defaulted(group, name, preset.joined(separator: ","))
            return preset
        }
        return Self.items(of: text)
    }

    /// "key:value,key:value".
    mutating func dictionary(_ group: String, _ name: String) -> [String: String] {
        guard let text = string(group, name) else { return [:] }
        var result: [String: String] = [:]
        for item in Self.items(of: text) {
            guard let colon = item.firstIndex(of: ":") else {
                fail(group, name, "\"\(item)\" has no \":\" between key and value")
                continue
            }
            result[Self.trimmed(item[..<colon])] = Self.trimmed(item[item.index(after: colon)...])
        }
        return result
    }

    /// A MultiStr: each value that was written, in order.
    mutating func strings(_ group: String, _ name: String, aliases: [OptionKey] = []) -> [String] {
        let key = OptionKey(group: group, name: name)
        var found: [RawValue] = []
        for candidate in [key] + aliases {
            known.insert(candidate)
            found += store.values(of: candidate)
        }
        return found.map { noted(key, expand($0.text, in: key, at: $0.origin, depth: 0), $0.origin) }.filter {
            !$0.isEmpty
        }
    }

    mutating func seconds(
        _ group: String, _ name: String, or preset: Int, in range: ClosedRange<Int> = 0...Int.max
    ) -> Duration {
        .seconds(integer(group, name, or: preset, in: range))
    }

    /// A problem of an option that another check found.
    mutating func fail(_ group: String, _ name: String, _ reason: String) {
        let key = OptionKey(group: group, name: name)
        let origin = store.values(of: key).last?.origin ?? .preset
        problems.append("\(origin): \(key): \(reason)")
    }

    // MARK: Keeping account

    /// Options that are ours and not read this time.
    mutating func recognize(_ group: String, _ names: [String]) {
        known.formUnion(names.map { OptionKey(group: group, name: $0) })
    }

    private mutating func noted(_ key: OptionKey, _ text: String, _ origin: OptionOrigin) -> String {
        effective.append(EffectiveOption(group: key.group, name: key.name, text: text, origin: origin))
        return text
    }

    private mutating func defaulted<Value>(_ group: String, _ name: String, _ value: Value) -> Value {
        _ = noted(OptionKey(group: group, name: name), "\(value)", .preset)
        return value
    }

    // MARK: Finding and expanding

    private mutating func raw(_ key: OptionKey, _ aliases: [OptionKey]) -> RawValue? {
        known.insert(key)
        known.formUnion(aliases)
        if let value = store.values(of: key).last { return value }
        for alias in aliases {
            guard let value = store.values(of: alias).last else { continue }
            notices.append("\(value.origin): \(alias) is deprecated; write \(key)")
            return value
        }
        return nil
    }

    /// A value that is not text: white space around it does not count, and an empty one is none.
    private mutating func scalar(_ group: String, _ name: String, _ aliases: [OptionKey]) -> String? {
        guard let text = string(group, name, aliases: aliases).map({ Self.trimmed($0[...]) }), !text.isEmpty else {
            return nil
        }
        return text
    }

    private mutating func expand(_ text: String, in key: OptionKey, at origin: OptionOrigin, depth: Int) -> String {
        guard text.contains("$") else { return text }
        guard depth < 16 else {
            problems.append("\(origin): \(key): its references go in a circle")
            return ""
        }
        var result = ""
        var rest = text[...]
        while let dollar = rest.firstIndex(of: "$") {
            if rest[..<dollar].hasSuffix("\\") {
                result += rest[..<dollar].dropLast() + "$"
                rest = rest[rest.index(after: dollar)...]
                continue
            }
            result += rest[..<dollar]
            rest = rest[rest.index(after: dollar)...]
            if rest.first == "$" {
                result += "$"
                rest = rest.dropFirst()
                continue
            }
            guard let name = Self.takeReference(&rest) else {
                result += "$"
                continue
            }
            result += value(of: name, for: key, at: origin, depth: depth)
        }
        return result + rest
    }

    private mutating func value(of name: String, for key: OptionKey, at origin: OptionOrigin, depth: Int) -> String {
        let parts = name.split(separator: ".", maxSplits: 1).map(String.init)
        let candidates =
            parts.count == 2
            ? [OptionKey(group: INIParser.normalizedGroup(parts[0]), name: INIParser.normalizedName(parts[1]))]
            : [
                OptionKey(group: key.group, name: INIParser.normalizedName(name)),
                OptionKey(group: "DEFAULT", name: INIParser.normalizedName(name)),
            ]
        for candidate in candidates {
            if let raw = store.values(of: candidate).last {
                known.insert(candidate)
                return expand(raw.text, in: candidate, at: raw.origin, depth: depth + 1)
            }
            if let preset = presets[candidate] {
                return expand(preset, in: candidate, at: .preset, depth: depth + 1)
            }
        }
        problems.append("\(origin): \(key): \"$\(name)\" names no option with a value; write $$ for a dollar")
        return ""
    }

    /// The name after a dollar: letters, digits, "_" and ".", in braces or bare. Nil: a dollar that is just one.
    private static func takeReference(_ rest: inout Substring) -> String? {
        let isBraced = rest.first == "{"
        let body = isBraced ? rest.dropFirst() : rest
        guard let first = body.first, first.isASCII, first.isLetter || first == "_" else { return nil }
        var name = body.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_" || $0 == ".") }
        if isBraced {
            guard body[name.endIndex...].first == "}" else { return nil }
            rest = body[name.endIndex...].dropFirst()
        } else {
            // A full stop at the end is the sentence's.
            while name.last == "." { name = name.dropLast() }
            rest = body[name.endIndex...]
        }
        return String(name)
    }

    private static func items(of text: String) -> [String] {
        guard !trimmed(text[...]).isEmpty else { return [] }
        return text.split(separator: ",", omittingEmptySubsequences: false).map(trimmed)
    }

    private static func trimmed(_ text: Substring) -> String {
        var text = text.drop(while: \.isWhitespace)
        while let last = text.last, last.isWhitespace { text = text.dropLast() }
        return String(text)
    }
}
