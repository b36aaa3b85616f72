// A parser for RFC 8259 over bytes. Recursive, with a depth bound that keeps the stack small; every index is checked against
// the end before it is read, so that a text cut at any byte is an error with its offset and nothing else.

/// What a caller allows a text to be.
package struct JSONLimits: Sendable {
    /// How many arrays and objects may lie in one another.
    package var depth: Int
    /// How many bytes a text may have.
    package var byteCount: Int
    /// Python's json writes NaN and Infinity; RFC 8259 has no such numbers. True reads them as null.
    package var allowsNonFinite: Bool

    package init(depth: Int = 64, byteCount: Int = 64 << 20, allowsNonFinite: Bool = false) {
        self.depth = depth
        self.byteCount = byteCount
        self.allowsNonFinite = allowsNonFinite
    }
}

extension JSONValue {
    /// Parses one JSON text, with nothing but white space after it.
    package static func parse(_ bytes: [UInt8], limits: JSONLimits = JSONLimits()) throws(JSONError) -> JSONValue {
        guard bytes.count <= limits.byteCount else {
            throw JSONError(offset: limits.byteCount, reason: "more than \(limits.byteCount) bytes")
        }
        var parser = JSONParser(bytes: bytes, limits: limits)
        return try parser.parseText()
    }

    /// Parses one JSON text, with nothing but white space after it.
    package static func parse(_ text: String, limits: JSONLimits = JSONLimits()) throws(JSONError) -> JSONValue {
        try parse(Array(text.utf8), limits: limits)
    }
}

struct JSONParser {
    private let bytes: [UInt8]
    private let limits: JSONLimits
    private var position = 0
    private var depth = 0

    init(bytes: [UInt8], limits: JSONLimits) {
        self.bytes = bytes
        self.limits = limits
    }

    mutating func parseText() throws(JSONError) -> JSONValue {
        let value = try parseValue()
        skipSpace()
        guard position == bytes.count else { throw error("text goes on after its value") }
        return value
    }

    private func error(_ reason: String) -> JSONError { JSONError(offset: position, reason: reason) }

    private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

    private mutating func skipSpace() {
        while let byte = next, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { position += 1 }
    }

    private mutating func parseValue() throws(JSONError) -> JSONValue {
        skipSpace()
        guard let byte = next else { throw error("text ends where a value should be") }
        switch byte {
        case UInt8(ascii: "{"): return try parseObject()
        case UInt8(ascii: "["): return try parseArray()
        case UInt8(ascii: "\""): return .string(try parseString())
        case UInt8(ascii: "t"): return try parseWord("true", .bool(true))
        case UInt8(ascii: "f"): return try parseWord("false", .bool(false))
        case UInt8(ascii: "n"): return try parseWord("null", .null)
        case UInt8(ascii: "N") where limits.allowsNonFinite: return try parseWord("NaN", .null)
        case UInt8(ascii: "I") where limits.allowsNonFinite: return try parseWord("Infinity", .null)
        default: return try parseNumber()
        }
    }

    private mutating func parseWord(_ word: StaticString, _ value: JSONValue) throws(JSONError) -> JSONValue {
        for expected in "\(word)".utf8 {
            guard next == expected else { throw error("not a JSON value") }
            position += 1
        }
        return value
    }

    private mutating func enter() throws(JSONError) {
        depth += 1
        guard depth <= limits.depth else { throw error("nested deeper than \(limits.depth)") }
        position += 1
    }

    private mutating func parseObject() throws(JSONError) -> JSONValue {
        try enter()
        var members: [String: JSONValue] = [:]
        skipSpace()
        if next == UInt8(ascii: "}") { return leave(.object(members)) }
        while true {
            skipSpace()
            guard next == UInt8(ascii: "\"") else { throw error("no key in an object") }
            let key = try parseString()
            skipSpace()
            guard next == UInt8(ascii: ":") else { throw error("no colon after a key") }
            position += 1
            members[key] = try parseValue()
            skipSpace()
            switch next {
            case UInt8(ascii: ","): position += 1
            case UInt8(ascii: "}"): return leave(.object(members))
            default: throw error("no comma or brace in an object")
            }
        }
    }

    private mutating func parseArray() throws(JSONError) -> JSONValue {
        try enter()
        var elements: [JSONValue] = []
        skipSpace()
        if next == UInt8(ascii: "]") { return leave(.array(elements)) }
        while true {
            elements.append(try parseValue())
            skipSpace()
            switch next {
            case UInt8(ascii: ","): position += 1
            case UInt8(ascii: "]"): return leave(.array(elements))
            default: throw error("no comma or bracket in an array")
            }
        }
    }

    private mutating func leave(_ value: JSONValue) -> JSONValue {
        depth -= 1
        position += 1
        return value
    }

    private mutating func parseNumber() throws(JSONError) -> JSONValue {
        let start = position
        if next == UInt8(ascii: "-") { position += 1 }
        if limits.allowsNonFinite, next == UInt8(ascii: "I") { return try parseWord("Infinity", .null) }
        guard let first = next, isDigit(first) else { throw error("not a JSON value") }
        if first == UInt8(ascii: "0") { position += 1 } else { skipDigits() }
        var isInteger = true
        if next == UInt8(ascii: ".") {
            isInteger = false
            position += 1
            guard let digit = next, isDigit(digit) else { throw error("no digit after a decimal point") }
            skipDigits()
        }
        if next == UInt8(ascii: "e") || next == UInt8(ascii: "E") {
            isInteger = false
            position += 1
            if next == UInt8(ascii: "+") || next == UInt8(ascii: "-") { position += 1 }
            guard let digit = next, isDigit(digit) else { throw error("no digit in an exponent") }
            skipDigits()
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if isInteger, let value = Int64(text) { return .integer(value) }
        guard let value = Double(text), value.isFinite else { throw error("a number too large") }
        return .double(value)
    }

    private func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }

    private mutating func skipDigits() {
        while let byte = next, isDigit(byte) { position += 1 }
    }

    /// A string from its opening quote on. Runs without escapes are taken over whole.
    private mutating func parseString() throws(JSONError) -> String {
        position += 1
        var text = ""
        var run = position
        while let byte = next {
            switch byte {
            case UInt8(ascii: "\""):
                text += try take(from: run)
                position += 1
                return text
            case UInt8(ascii: "\\"):
                text += try take(from: run)
                position += 1
                text.unicodeScalars.append(try parseEscape())
                run = position
            case 0..<0x20:
                throw error("a control character in a string")
            default:
                position += 1
            }
        }
        throw error("text ends in a string")
    }

    private func take(from start: Int) throws(JSONError) -> String {
        guard start < position else { return "" }
        guard let text = String(validating: bytes[start..<position], as: UTF8.self) else {
            throw JSONError(offset: start, reason: "a string that is not UTF-8")
        }
        return text
    }

    private mutating func parseEscape() throws(JSONError) -> Unicode.Scalar {
        guard let byte = next else { throw error("text ends in an escape") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""): return "\""
        case UInt8(ascii: "\\"): return "\\"
        case UInt8(ascii: "/"): return "/"
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{c}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"): break
        default: throw error("an escape that JSON does not have")
        }
        let high = try parseHex()
        if let scalar = Unicode.Scalar(high) { return scalar }
        // A high surrogate and the low one that must follow; a lone one has no character and becomes U+FFFD.
        guard (0xD800..<0xDC00).contains(high), next == UInt8(ascii: "\\"), position + 1 < bytes.count,
            bytes[position + 1] == UInt8(ascii: "u")
        else { return "\u{FFFD}" }
        let restart = position
        position += 2
        let low = try parseHex()
        guard (0xDC00..<0xE000).contains(low),
            let scalar = Unicode.Scalar(0x10000 + ((high & 0x3FF) << 10) + (low & 0x3FF))
        else {
            position = restart
            return "\u{FFFD}"
        }
        return scalar
    }

    private mutating func parseHex() throws(JSONError) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = next, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
                throw error("not four hexadecimal digits after \\u")
            }
            value = value << 4 | UInt32(digit)
            position += 1
        }
        return value
    }
}
