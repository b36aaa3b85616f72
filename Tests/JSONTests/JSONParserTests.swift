import JSON
import Testing

struct JSONParserTests {
    @Test(arguments: [
        ("null", JSONValue.null), (" true ", .bool(true)), ("[]", .array([])), ("{}", .object([:])), ("-0", .integer(0)),
        ("9223372036854775807", .integer(.max)), ("9223372036854775808", .double(9223372036854775808)), ("1e3", .double(1000)),
        ("\"a\\u00e9\\ud83d\\ude00\\n\"", .string("aé😀\n")), ("\"\\ud83d!\"", .string("\u{FFFD}!")),
        ("{\"a\": [1, {\"b\": null}], \"a\": 2}", .object(["a": 2])),
    ])
    func readsValue(text: String, expected: JSONValue) throws {
        #expect(try JSONValue.parse(text) == expected)
    }

    @Test(arguments: [
        "", " ", "nul", "truE", "[1,]", "[1 2]", "{\"a\"}", "{\"a\":}", "{a:1}", "01", "1.", "1e", "-", "+1", ".5", "\"", "\"\\x\"", "\"\\u12\"",
        "\"\u{1}\"", "1 2", "NaN", "Infinity", "1e999", "'a'", "[", "{", "\u{FEFF}1",
    ])
    func refusesText(text: String) {
        #expect(throws: JSONError.self) { try JSONValue.parse(text) }
    }

    @Test func everyPrefixOfAMessageIsRefusedWithoutATrap() {
        let text = Array("{\"oslo.version\": \"2.0\", \"a\": [1.5e-3, true, \"\\ud83d\\ude00é\"], \"b\": {\"c\": null}}".utf8)
        for count in 0..<text.count {
            #expect(throws: JSONError.self) { try JSONValue.parse(Array(text[..<count])) }
        }
    }

    @Test func nestingBeyondTheLimitIsRefusedAndUpToItRead() throws {
        let limits = JSONLimits(depth: 10)
        #expect(throws: JSONError.self) {
            try JSONValue.parse(String(repeating: "[", count: 100_000), limits: limits)
        }
        let ten = String(repeating: "[", count: 10) + String(repeating: "]", count: 10)
        #expect(try JSONValue.parse(ten, limits: limits).arrayValue?.count == 1)
        #expect(throws: JSONError.self) { try JSONValue.parse("[" + ten + "]", limits: limits) }
    }

    @Test func textOverTheSizeLimitIsRefused() {
        #expect(throws: JSONError.self) { try JSONValue.parse("[1, 2]", limits: JSONLimits(byteCount: 5)) }
    }

    @Test func bytesThatAreNotUTF8AreRefused() {
        for bad: [UInt8] in [[0x22, 0xFF, 0x22], [0x22, 0xC3, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22]] {
            #expect(throws: JSONError.self) { try JSONValue.parse(bad) }
        }
    }

    @Test func nonFiniteNumbersAreNullWhereAllowed() throws {
        #expect(try JSONValue.parse("[NaN, -Infinity, Infinity]", limits: JSONLimits(allowsNonFinite: true)) == [nil, nil, nil])
    }

    @Test func whatIsWrittenReadsBackEqual() throws {
        let value: JSONValue = [
            "integer": .integer(.min), "double": 0.1, "large": 1e300, "text": "\"\\/\u{8}\u{c}\n\r\t\u{7f}é😀", "list": [nil, true, [], [:]],
        ]
        #expect(try JSONValue.parse(value.serialize()) == value)
    }

    @Test func keysAreWrittenInOrder() {
        #expect((["b": 1, "a": 2] as JSONValue).serialize() == "{\"a\": 2, \"b\": 1}")
    }
}
