// The entropy codes of Zstandard (RFC 8878 §4): finite state entropy and Huffman, read from bits that start at the end.

/// The compressed bytes, with room behind them so that eight can be read anywhere.
struct ZstandardInput {
    private let bytes: [UInt8]
    let count: Int

    init(_ bytes: [UInt8]) {
        count = bytes.count
        self.bytes = bytes + [UInt8](repeating: 0, count: 8)
    }

    /// 0 behind the end.
    func byte(_ position: Int) -> UInt8 { position >= 0 && position < bytes.count ? bytes[position] : 0 }

    /// A little-endian number of up to 8 bytes; 0 behind the end.
    func number(at position: Int, byteCount: Int) -> UInt64 {
        let word: UInt64 = bytes.littleEndian(at: position)
        return byteCount >= 8 ? word : word & ((1 << UInt64(byteCount * 8)) - 1)
    }

    /// - Parameter range: within `count`.
    func append(_ range: Range<Int>, to output: inout [UInt8]) { output += bytes[range] }
}

/// Bits read backwards: the last byte's highest set bit marks the end, where reading starts. §4.1
struct ZstandardBits {
    private let input: ZstandardInput
    private let start: Int
    /// Bits not read yet; below zero once more were read than there are, which then are zeroes.
    private(set) var position: Int

    init?(_ input: ZstandardInput, _ range: Range<Int>) {
        guard let lastIndex = range.last, input.byte(lastIndex) != 0 else { return nil }
        self.input = input
        start = range.lowerBound
        position = (range.count - 1) * 8 + 7 - input.byte(lastIndex).leadingZeroBitCount
    }

    /// The next `count` (at most 32) bits.
    mutating func read(_ count: Int) -> UInt64 {
        position -= count
        return bits(at: position, count)
    }

    /// The next `count` bits, which stay.
    func peek(_ count: Int) -> UInt64 { bits(at: position - count, count) }

    mutating func skip(_ count: Int) { position -= count }

    private func bits(at place: Int, _ count: Int) -> UInt64 {
        if place < 0 {
            return -place >= count ? 0 : bits(at: 0, count + place) << UInt64(-place)
        }
        return input.number(at: start + place >> 3, byteCount: 8) >> UInt64(place & 7) & ((1 << UInt64(count)) - 1)
    }
}

/// A finite state entropy decoding table. §4.1
struct ZstandardFSE {
    struct Entry {
        var symbol: UInt8
        var bitCount: UInt8
        var base: UInt16
    }
    private(set) var entries: [Entry]
    let accuracy: Int

    /// The state after `state`.
    func next(_ state: Int, _ bits: inout ZstandardBits) -> Int {
        Int(entries[state].base) + Int(bits.read(Int(entries[state].bitCount)))
    }

    /// One symbol for ever.
    init(symbol: UInt8) {
        entries = [Entry(symbol: symbol, bitCount: 0, base: 0)]
        accuracy = 0
    }

    /// - Parameter probabilities: by symbol; -1 is "less than one". They add up to 1 << accuracy.
    init(probabilities: [Int], accuracy: Int) {
        let size = 1 << accuracy
        self.accuracy = accuracy
        entries = Array(repeating: Entry(symbol: 0, bitCount: 0, base: 0), count: size)
        var high = size
        for (symbol, probability) in probabilities.enumerated() where probability == -1 {
            high -= 1
            entries[high].symbol = UInt8(symbol)
        }
        let step = size >> 1 + size >> 3 + 3
        var position = 0
        for (symbol, probability) in probabilities.enumerated() where probability > 0 {
            for _ in 0..<probability {
                entries[position].symbol = UInt8(symbol)
                repeat { position = (position + step) & (size - 1) } while position >= high
            }
        }
        var next = probabilities.map { max($0, 1) }
        for index in 0..<size {
            let symbol = Int(entries[index].symbol)
            let state = next[symbol]
            next[symbol] += 1
            let bitCount = accuracy - (Int.bitWidth - 1 - state.leadingZeroBitCount)
            entries[index].bitCount = UInt8(bitCount)
            entries[index].base = UInt16(state << bitCount - size)
        }
    }

    /// A table description: probabilities in bits read forwards. §4.1.1
    init?(_ input: ZstandardInput, _ cursor: inout Int, _ end: Int, accuracyLimit: Int, symbolLimit: Int) {
        var place = cursor * 8
        func peek(_ count: Int) -> Int {
            Int(input.number(at: place >> 3, byteCount: 8) >> UInt64(place & 7) & ((1 << UInt64(count)) - 1))
        }
        let accuracy = peek(4) + 5
        place += 4
        guard accuracy <= accuracyLimit else { return nil }
        var remaining = 1 << accuracy
        var probabilities: [Int] = []
        while remaining > 0 {
            guard probabilities.count < symbolLimit, place < end * 8 else { return nil }
            let width = Int.bitWidth - (remaining + 1).leadingZeroBitCount
            let low = (1 << (width - 1)) - 1
            let threshold = (1 << width) - 1 - (remaining + 1)
            var value = peek(width)
            if value & low < threshold {
                value &= low
                place += width - 1
            } else {
                if value > low { value -= threshold }
                place += width
            }
            let probability = value - 1
            remaining -= abs(probability)
            probabilities.append(probability)
            if probability == 0 {
                while true {
                    let zeroes = peek(2)
                    place += 2
                    probabilities += [Int](repeating: 0, count: zeroes)
                    if zeroes < 3 { break }
                    guard probabilities.count < symbolLimit, place < end * 8 else { return nil }
                }
            }
        }
        guard remaining == 0, probabilities.count <= symbolLimit, (place + 7) / 8 <= end else { return nil }
        cursor = (place + 7) / 8
        self.init(probabilities: probabilities, accuracy: accuracy)
    }

    /// The table for one of the three kinds of codes by its mode. §3.1.1.3.2.1
    static func table(
        _ mode: Int, _ input: ZstandardInput, _ cursor: inout Int, _ end: Int, previous: ZstandardFSE?,
        _ defaults: [Int],
        defaultAccuracy: Int, accuracyLimit: Int, symbolLimit: Int
    ) -> ZstandardFSE? {
        switch mode {
        case 0: return ZstandardFSE(probabilities: defaults, accuracy: defaultAccuracy)
        case 1:
            guard cursor < end else { return nil }
            cursor += 1
            return ZstandardFSE(symbol: input.byte(cursor - 1))
        case 2: return ZstandardFSE(input, &cursor, end, accuracyLimit: accuracyLimit, symbolLimit: symbolLimit)
        default: return previous
        }
    }

    // §3.1.1.3.2.2
    static let literalLengthDefaults = [
        4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1,
    ]
    static let matchLengthDefaults = [
        1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1,
        1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
    ]
    static let offsetDefaults = [
        1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
    ]

    // §3.1.1.3.2.1.1
    private static let literalLengths = [
        (16, 1), (18, 1), (20, 1), (22, 1), (24, 2), (28, 2), (32, 3), (40, 3), (48, 4), (64, 6), (128, 7), (256, 8),
        (512, 9), (1024, 10), (2048, 11), (4096, 12), (8192, 13), (16384, 14), (32768, 15), (65536, 16),
    ]
    private static let matchLengths = [
        (35, 1), (37, 1), (39, 1), (41, 1), (43, 2), (47, 2), (51, 3), (59, 3), (67, 4), (83, 4), (99, 5), (131, 7),
        (259, 8), (515, 9), (1027, 10), (2051, 11), (4099, 12), (8195, 13), (16387, 14), (32771, 15), (65539, 16),
    ]
    /// Base and further bits of a code below 36.
    static func literalLength(_ code: Int) -> (Int, Int) { code < 16 ? (code, 0) : literalLengths[code - 16] }
    /// Base and further bits of a code below 53.
    static func matchLength(_ code: Int) -> (Int, Int) { code < 32 ? (code + 3, 0) : matchLengths[code - 32] }
}

/// A Huffman decoding table for literals. §4.2
struct ZstandardHuffman {
    /// Symbol << 8 | bits, by the next `width` bits.
    private var entries: [UInt16]
    private let width: Int

    /// Reads a tree description. §4.2.1
    init?(_ input: ZstandardInput, _ cursor: inout Int, _ end: Int) {
        guard cursor < end else { return nil }
        let header = Int(input.byte(cursor))
        cursor += 1
        var weights: [UInt8] = []
        if header >= 128 {
            let count = header - 127
            guard (count + 1) / 2 <= end - cursor else { return nil }
            for index in 0..<count {
                let byte = input.byte(cursor + index / 2)
                weights.append(index % 2 == 0 ? byte >> 4 : byte & 15)
            }
            cursor += (count + 1) / 2
        } else {
            guard header <= end - cursor else { return nil }
            let weightsEnd = cursor + header
            guard let table = ZstandardFSE(input, &cursor, weightsEnd, accuracyLimit: 6, symbolLimit: 256),
                var bits = ZstandardBits(input, cursor..<weightsEnd)
            else { return nil }
            // Two states take turns until the bits are used up.
            var states = (Int(bits.read(table.accuracy)), Int(bits.read(table.accuracy)))
            guard bits.position >= 0 else { return nil }
            while true {
                weights.append(table.entries[states.0].symbol)
                states.0 = table.next(states.0, &bits)
                if bits.position < 0 {
                    weights.append(table.entries[states.1].symbol)
                    break
                }
                states = (states.1, states.0)
                guard weights.count < 255 else { return nil }
            }
            cursor = weightsEnd
        }
        var sum = 0
        for weight in weights where weight > 0 {
            guard weight <= 11 else { return nil }
            sum += 1 << (Int(weight) - 1)
        }
        guard sum > 0 else { return nil }
        // The last weight is what makes the sum a power of two.
        let width = Int.bitWidth - sum.leadingZeroBitCount
        let rest = 1 << width - sum
        guard width <= 11, rest & (rest - 1) == 0, weights.count < 256 else { return nil }
        weights.append(UInt8(rest.trailingZeroBitCount + 1))
        self.width = width
        entries = []
        entries.reserveCapacity(1 << width)
        for weight in 1...width {
            for (symbol, found) in weights.enumerated() where Int(found) == weight {
                let entry = UInt16(symbol) << 8 | UInt16(width + 1 - weight)
                entries += [UInt16](repeating: entry, count: 1 << (weight - 1))
            }
        }
        guard entries.count == 1 << width else { return nil }
    }

    /// Appends `count` symbols of one stream, which must end with them.
    func decode(_ input: ZstandardInput, _ range: Range<Int>, count: Int, into output: inout [UInt8]) -> Bool {
        guard var bits = ZstandardBits(input, range) else { return false }
        for _ in 0..<count {
            let entry = entries[Int(bits.peek(width))]
            bits.skip(Int(entry & 0xFF))
            output.append(UInt8(entry >> 8))
        }
        return bits.position == 0
    }
}
