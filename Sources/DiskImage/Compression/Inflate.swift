// Raw deflate data (RFC 1951), as qcow2 and VMDK compress clusters. The input is hostile: a damaged stream is nil, never more
// output than asked for, never a read outside of the input.

/// Usage: Inflate.decompress(bytes, byteCount: 65536)
struct Inflate {
    /// Exactly `byteCount` bytes; nil where the stream is damaged or ends before. What follows in the input is not looked at.
    static func decompress(_ input: [UInt8], from start: Int = 0, byteCount: Int) -> [UInt8]? {
        var inflate = Inflate(input: input, position: start, limit: byteCount)
        return inflate.run() ? inflate.output : nil
    }

    private let input: [UInt8]
    private var position: Int
    private let limit: Int
    private var output: [UInt8] = []
    /// Bits taken from the input and not used yet, the next one lowest.
    private var bits: UInt64 = 0
    private var bitCount = 0

    private init(input: [UInt8], position: Int, limit: Int) {
        self.input = input
        self.position = position
        self.limit = limit
        output.reserveCapacity(limit)
    }

    private mutating func run() -> Bool {
        while output.count < limit {
            guard let isLast = take(1), let type = take(2) else { return false }
            let isGood: Bool
            switch type {
            case 0: isGood = copyStored()
            case 1: isGood = decode(literals: Self.fixedLiterals, distances: Self.fixedDistances)
            case 2: isGood = decodeDynamic()
            default: isGood = false
            }
            if !isGood { return false }
            if isLast == 1 { break }
        }
        return output.count == limit
    }

    /// Has at least `count` (up to 32) bits ready where the input has them.
    private mutating func refill(_ count: Int) {
        while bitCount < count, position < input.count {
            bits |= UInt64(input[position]) << UInt64(bitCount)
            position += 1
            bitCount += 8
        }
    }

    private mutating func take(_ count: Int) -> Int? {
        refill(count)
        guard bitCount >= count else { return nil }
        let value = Int(bits & ((1 << UInt64(count)) - 1))
        bits >>= UInt64(count)
        bitCount -= count
        return value
    }

    /// RFC 1951 §3.2.4
    private mutating func copyStored() -> Bool {
        _ = take(bitCount & 7)
        guard let length = take(16), let complement = take(16), length ^ complement == 0xFFFF else { return false }
        for _ in 0..<min(length, limit - output.count) {
            guard let byte = take(8) else { return false }
            output.append(UInt8(byte))
        }
        return true
    }

    /// A canonical Huffman code: a table for codes of up to `fastBits`, and counting for longer ones.
    private struct Code {
        static let fastBits = 10
        /// Symbol << 4 | length, by the next bits; 0: a longer code, or none.
        private var fast = [UInt16](repeating: 0, count: 1 << fastBits)
        private var counts = [Int](repeating: 0, count: 16)
        private var symbols: [UInt16] = []

        /// nil where more codes are given than their lengths allow.
        init?(lengths: ArraySlice<UInt8>) {
            for length in lengths { counts[Int(length & 15)] += 1 }
            counts[0] = 0
            var left = 1
            var offsets = [Int](repeating: 0, count: 17)
            var next = [Int](repeating: 0, count: 17)
            var code = 0
            for length in 1...15 {
                left = left << 1 - counts[length]
                if left < 0 { return nil }
                offsets[length + 1] = offsets[length] + counts[length]
                code = (code + counts[length - 1]) << 1
                next[length] = code
            }
            symbols = Array(repeating: 0, count: lengths.count)
            for (symbol, length) in lengths.enumerated() where length != 0 {
                let length = Int(length & 15)
                symbols[offsets[length]] = UInt16(symbol)
                offsets[length] += 1
                if length <= Self.fastBits {
                    // Codes arrive with their most significant bit first, unlike everything else.
                    var reversed = 0
                    for bit in 0..<length where next[length] & (1 << bit) != 0 { reversed |= 1 << (length - 1 - bit) }
                    for index in stride(from: reversed, to: 1 << Self.fastBits, by: 1 << length) {
                        fast[index] = UInt16(symbol << 4 | length)
                    }
                }
                next[length] += 1
            }
        }

        /// The symbol at the beginning of `bits` and its length in bits; nil where there is none.
        func symbol(_ bits: UInt64, available: Int) -> (symbol: Int, length: Int)? {
            let entry = Int(fast[Int(bits & ((1 << UInt64(Self.fastBits)) - 1))])
            if entry != 0, entry & 15 <= available { return (entry >> 4, entry & 15) }
            var code = 0
            var first = 0
            var index = 0
            for length in 1...15 where length <= available {
                code |= Int((bits >> UInt64(length - 1)) & 1)
                let count = counts[length]
                if code - count < first { return (Int(symbols[index + code - first]), length) }
                index += count
                first = (first + count) << 1
                code <<= 1
            }
            return nil
        }
    }

    private mutating func symbol(_ code: Code) -> Int? {
        refill(15)
        guard let (symbol, length) = code.symbol(bits, available: bitCount) else { return nil }
        bits >>= UInt64(length)
        bitCount -= length
        return symbol
    }

    private static let lengthBases = [
        3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227,
        258,
    ]
    private static let lengthBits = [
        0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
    ]
    private static let distanceBases = [
        1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097,
        6145,
        8193, 12289, 16385, 24577,
    ]
    private static let distanceBits = [
        0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13,
    ]
    /// RFC 1951 §3.2.6
    private static let fixedLiterals = Code(
        lengths: ([UInt8](repeating: 8, count: 144) + [UInt8](repeating: 9, count: 112)
            + [UInt8](repeating: 7, count: 24) + [UInt8](repeating: 8, count: 8))[...])
    private static let fixedDistances = Code(lengths: [UInt8](repeating: 5, count: 30)[...])

    private mutating func decode(literals: Code?, distances: Code?) -> Bool {
        guard let literals, let distances else { return false }
        while output.count < limit {
            guard let symbol = symbol(literals) else { return false }
            if symbol < 256 {
                output.append(UInt8(symbol))
                continue
            }
            if symbol == 256 { return true }
            let index = symbol - 257
            guard index < Self.lengthBases.count, let extra = take(Self.lengthBits[index]) else { return false }
            guard let far = self.symbol(distances), far < Self.distanceBases.count,
                let farExtra = take(Self.distanceBits[far])
            else { return false }
            let length = Self.lengthBases[index] + extra
            let distance = Self.distanceBases[far] + farExtra
            guard distance <= output.count else { return false }
            for _ in 0..<min(length, limit - output.count) { output.append(output[output.count - distance]) }
        }
        return true
    }

    /// RFC 1951 §3.2.7
    private mutating func decodeDynamic() -> Bool {
        guard let literalCount = take(5), let distanceCount = take(5), let lengthCount = take(4) else { return false }
        let order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
        var lengths = [UInt8](repeating: 0, count: 19)
        for index in order.prefix(lengthCount + 4) {
            guard let length = take(3) else { return false }
            lengths[index] = UInt8(length)
        }
        guard let code = Code(lengths: lengths[...]) else { return false }
        let total = literalCount + 257 + distanceCount + 1
        var all: [UInt8] = []
        while all.count < total {
            guard let symbol = symbol(code) else { return false }
            switch symbol {
            case 0...15: all.append(UInt8(symbol))
            case 16:
                guard let last = all.last, let count = take(2) else { return false }
                all += [UInt8](repeating: last, count: count + 3)
            case 17:
                guard let count = take(3) else { return false }
                all += [UInt8](repeating: 0, count: count + 3)
            default:
                guard let count = take(7) else { return false }
                all += [UInt8](repeating: 0, count: count + 11)
            }
        }
        guard all.count == total else { return false }
        return decode(
            literals: Code(lengths: all[0..<(literalCount + 257)]),
            distances: Code(lengths: all[(literalCount + 257)...]))
    }
}
