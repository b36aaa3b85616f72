// Bodies that are no request.
import JSON

@testable import OsloMessaging

/// 500 bodies no request should look like, cut and bent from a good one.
func malformedBodies() -> [[UInt8]] {
    let good = Envelope.encode(["method": "note", "args": ["value": 1], "version": "6.0", "_unique_id": "x"])
    var bodies: [[UInt8]] = (0..<good.count).map { Array(good.prefix($0)) }
    let messages: [[String: JSONValue]] = [
        [:], ["method": 3], ["method": "note", "args": [1]], ["method": "note", "args": "x"], ["args": [:]],
        ["method": ""], ["method": nil],
    ]
    bodies += messages.map { Envelope.encode($0) }
    bodies += [
        #"{"oslo.version": "9.0", "oslo.message": "{}"}"#, #"{"oslo.version": null, "oslo.message": "{}"}"#,
        #"{"oslo.version": "2.0", "oslo.message": 5}"#, #"{"oslo.version": "2.0", "oslo.message": "[]"}"#, "[]", "1",
        "null",
        String(repeating: "[", count: 10_000), String(repeating: #"{"a":"#, count: 10_000), "\"", "\u{0}",
        #"{"oslo.version": "2.0", "oslo.message": "{\"method\""}"#,
    ].map { Array($0.utf8) }
    bodies.append([0xFF, 0xFE, 0x00])
    bodies.append([UInt8](repeating: UInt8(ascii: " "), count: 1 << 20))
    var generator = SystemRandomNumberGenerator()
    while bodies.count < 500 {
        // Noise that cannot be an object by chance.
        bodies.append([0x21] + (0..<64).map { _ in UInt8.random(in: .min ... .max, using: &generator) })
    }
    return bodies
}
