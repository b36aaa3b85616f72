// The fuzzer's bytes as numbers. Past the end everything is zero, so that a short input is a short sequence.

struct Input {
    private let bytes: [UInt8]
    private var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var isEmpty: Bool { position >= bytes.count }

    mutating func byte() -> UInt8 {
        guard position < bytes.count else { return 0 }
        defer { position += 1 }
        return bytes[position]
    }

    mutating func number<Value: FixedWidthInteger>(_ type: Value.Type = Value.self) -> Value {
        var value: UInt64 = 0
        for index in 0..<(Value.bitWidth / 8) { value |= UInt64(byte()) << UInt64(8 * index) }
        return Value(truncatingIfNeeded: value)
    }

    /// A number below `limit`, from as few bytes as it takes.
    mutating func below(_ limit: Int) -> Int {
        switch limit {
        case ...1: 0
        case ...256: Int(byte()) % limit
        case ...65536: Int(number(UInt16.self)) % limit
        default: Int(number(UInt32.self)) % limit
        }
    }

    mutating func take(_ count: Int) -> [UInt8] {
        let end = min(bytes.count, position + count)
        defer { position = end }
        return Array(bytes[position..<end])
    }

    mutating func rest() -> [UInt8] { take(bytes.count) }
}
