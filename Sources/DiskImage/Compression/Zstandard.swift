// Zstandard frames (RFC 8878), as qcow2 compresses clusters. The input is hostile: a damaged stream is nil, never more output
// than asked for, never a read outside of the input. Dictionaries are not supported; content checksums are not compared, as
// qcow2's other implementation does not have them either.

/// Usage: Zstandard.decompress(bytes, byteCount: 65536)
struct Zstandard {
    /// Exactly `byteCount` bytes; nil where the stream is damaged or ends before. What follows in the input is not looked at.
    static func decompress(_ input: [UInt8], byteCount: Int) -> [UInt8]? {
        var decoder = Zstandard(input: input, limit: byteCount)
        while decoder.output.count < byteCount {
            guard decoder.decodeFrame() else { return nil }
        }
        return decoder.output.count == byteCount ? decoder.output : nil
    }

    static let magic: UInt32 = 0xFD2F_B528
    /// Block_Maximum_Size, RFC 8878 §3.1.1.2.4
    private static let blockLimit = 128 << 10

    private let input: ZstandardInput
    private var position = 0
    private let limit: Int
    private var output: [UInt8] = []
    private var frameStart = 0
    // What a block may take over from the one before it in the same frame.
    private var huffman: ZstandardHuffman?
    private var literalLengths: ZstandardFSE?
    private var offsets: ZstandardFSE?
    private var matchLengths: ZstandardFSE?
    private var repeated = (1, 4, 8)

    private init(input: [UInt8], limit: Int) {
        self.input = ZstandardInput(input)
        self.limit = limit
        output.reserveCapacity(limit)
    }

    /// One frame, or a skippable one. §3.1.1, §3.1.2
    private mutating func decodeFrame() -> Bool {
        guard input.count - position >= 8 else { return false }
        let found = UInt32(truncatingIfNeeded: input.number(at: position, byteCount: 4))
        if found & 0xFFFF_FFF0 == 0x184D_2A50 {
            let size = Int(input.number(at: position + 4, byteCount: 4))
            position += 8
            guard size <= input.count - position else { return false }
            position += size
            return true
        }
        guard found == Self.magic else { return false }
        let descriptor = input.byte(position + 4)
        let isSingleSegment = descriptor & 0x20 != 0
        guard descriptor & 0x08 == 0, descriptor & 0x03 == 0 else { return false }  // reserved bit; a dictionary
        let contentSizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][Int(descriptor >> 6)]
        position += 5 + (isSingleSegment ? 0 : 1) + contentSizeBytes
        frameStart = output.count
        huffman = nil
        (literalLengths, offsets, matchLengths) = (nil, nil, nil)
        repeated = (1, 4, 8)
        while true {
            guard input.count - position >= 3 else { return false }
            let header = Int(input.number(at: position, byteCount: 3))
            position += 3
            let size = header >> 3
            switch (header >> 1) & 3 {
            case 0:
                guard size <= input.count - position else { return false }
                input.append(position..<(position + min(size, limit - output.count)), to: &output)
                position += size
            case 1:
                guard position < input.count, size <= Self.blockLimit else { return false }
                output += [UInt8](repeating: input.byte(position), count: min(size, limit - output.count))
                position += 1
            case 2:
                guard size <= Self.blockLimit, size <= input.count - position, decodeBlock(end: position + size) else {
                    return false
                }
                position += size
            default: return false
            }
            if output.count >= limit { return true }
            if header & 1 != 0 { break }
        }
        if descriptor & 0x04 != 0 { position += 4 }
        return true
    }

    private mutating func decodeBlock(end: Int) -> Bool {
        var cursor = position
        guard let literals = decodeLiterals(&cursor, end) else { return false }
        return decodeSequences(literals, &cursor, end)
    }

    /// §3.1.1.3.1
    private mutating func decodeLiterals(_ cursor: inout Int, _ end: Int) -> [UInt8]? {
        guard cursor < end else { return nil }
        let first = Int(input.byte(cursor))
        let format = (first >> 2) & 3
        if first & 3 < 2 {
            let headerSize = [1, 2, 1, 3][format]
            guard end - cursor >= headerSize else { return nil }
            let size = Int(input.number(at: cursor, byteCount: headerSize)) >> (headerSize == 1 ? 3 : 4)
            cursor += headerSize
            guard size <= Self.blockLimit else { return nil }
            if first & 3 == 1 {
                guard cursor < end else { return nil }
                cursor += 1
                return [UInt8](repeating: input.byte(cursor - 1), count: size)
            }
            guard size <= end - cursor else { return nil }
            cursor += size
            var literals: [UInt8] = []
            input.append((cursor - size)..<cursor, to: &literals)
            return literals
        }
        let headerSize = [3, 3, 4, 5][format]
        let width = [10, 10, 14, 18][format]
        guard end - cursor >= headerSize else { return nil }
        let header = input.number(at: cursor, byteCount: headerSize)
        let size = Int(header >> 4) & ((1 << width) - 1)
        let compressedSize = Int(header >> UInt64(4 + width)) & ((1 << width) - 1)
        cursor += headerSize
        guard size <= Self.blockLimit, compressedSize <= end - cursor else { return nil }
        let streamsEnd = cursor + compressedSize
        if first & 3 == 2 {
            guard let tree = ZstandardHuffman(input, &cursor, streamsEnd) else { return nil }
            huffman = tree
        }
        guard let huffman else { return nil }
        var literals: [UInt8] = []
        literals.reserveCapacity(size)
        if format == 0 {
            guard huffman.decode(input, cursor..<streamsEnd, count: size, into: &literals) else { return nil }
        } else {
            // Three lengths, then four streams.
            guard streamsEnd - cursor >= 6 else { return nil }
            let lengths = (0..<3).map { Int(input.number(at: cursor + $0 * 2, byteCount: 2)) }
            cursor += 6
            let part = (size + 3) / 4
            for stream in 0..<4 {
                let streamEnd = stream < 3 ? cursor + lengths[stream] : streamsEnd
                let count = stream < 3 ? part : size - 3 * part
                guard count >= 0, streamEnd <= streamsEnd, cursor < streamEnd,
                    huffman.decode(input, cursor..<streamEnd, count: count, into: &literals)
                else { return nil }
                cursor = streamEnd
            }
        }
        cursor = streamsEnd
        return literals
    }

    /// §3.1.1.3.2 and §3.1.1.4
    private mutating func decodeSequences(_ literals: [UInt8], _ cursor: inout Int, _ end: Int) -> Bool {
        guard cursor < end else { return false }
        var count = Int(input.byte(cursor))
        cursor += 1
        if count >= 128 {
            let extra = count == 255 ? 2 : 1
            guard end - cursor >= extra else { return false }
            count =
                extra == 2
                ? Int(input.number(at: cursor, byteCount: 2)) + 0x7F00 : (count - 128) << 8 + Int(input.byte(cursor))
            cursor += extra
        }
        var literal = 0
        if count > 0 {
            guard cursor < end else { return false }
            let modes = Int(input.byte(cursor))
            cursor += 1
            guard modes & 3 == 0,
                let literalLengths = ZstandardFSE.table(
                    modes >> 6, input, &cursor, end, previous: literalLengths, ZstandardFSE.literalLengthDefaults,
                    defaultAccuracy: 6, accuracyLimit: 9, symbolLimit: 36),
                let offsets = ZstandardFSE.table(
                    (modes >> 4) & 3, input, &cursor, end, previous: offsets, ZstandardFSE.offsetDefaults,
                    defaultAccuracy: 5, accuracyLimit: 8, symbolLimit: 32),
                let matchLengths = ZstandardFSE.table(
                    (modes >> 2) & 3, input, &cursor, end, previous: matchLengths, ZstandardFSE.matchLengthDefaults,
                    defaultAccuracy: 6, accuracyLimit: 9, symbolLimit: 53),
                var bits = ZstandardBits(input, cursor..<end)
            else { return false }
            (self.literalLengths, self.offsets, self.matchLengths) = (literalLengths, offsets, matchLengths)
            var literalState = Int(bits.read(literalLengths.accuracy))
            var offsetState = Int(bits.read(offsets.accuracy))
            var matchState = Int(bits.read(matchLengths.accuracy))
            for number in 0..<count {
                let offsetCode = Int(offsets.entries[offsetState].symbol)
                let matchCode = Int(matchLengths.entries[matchState].symbol)
                let literalCode = Int(literalLengths.entries[literalState].symbol)
                guard offsetCode < 32, matchCode < 53, literalCode < 36 else { return false }
                let offsetValue = 1 << offsetCode + Int(bits.read(offsetCode))
                let (matchBase, matchBits) = ZstandardFSE.matchLength(matchCode)
                let matchLength = matchBase + Int(bits.read(matchBits))
                let (literalBase, literalBits) = ZstandardFSE.literalLength(literalCode)
                let literalLength = literalBase + Int(bits.read(literalBits))
                if number + 1 < count {
                    literalState = literalLengths.next(literalState, &bits)
                    matchState = matchLengths.next(matchState, &bits)
                    offsetState = offsets.next(offsetState, &bits)
                }
                guard bits.position >= 0, literalLength <= literals.count - literal,
                    let offset = resolve(offsetValue, literalLength)
                else { return false }
                output += literals[literal..<(literal + min(literalLength, limit - output.count))]
                literal += literalLength
                if output.count >= limit { return true }
                guard offset <= output.count - frameStart else { return false }
                copy(from: offset, count: min(matchLength, limit - output.count))
                if output.count >= limit { return true }
            }
            guard bits.position == 0 else { return false }
        }
        output += literals[literal..<min(literals.count, literal + limit - output.count)]
        return true
    }

    private mutating func copy(from offset: Int, count: Int) {
        // Byte by byte, as the match may reach into itself. A slice of the output would make appending copy all of it.
        let start = output.count - offset
        for index in start..<(start + count) { output.append(output[index]) }
    }

    /// Offsets 1 to 3 stand for those used last. §3.1.1.5
    private mutating func resolve(_ value: Int, _ literalLength: Int) -> Int? {
        if value > 3 {
            repeated = (value - 3, repeated.0, repeated.1)
            return repeated.0
        }
        switch value + (literalLength == 0 ? 1 : 0) {
        case 1: break
        case 2: repeated = (repeated.1, repeated.0, repeated.2)
        case 3: repeated = (repeated.2, repeated.0, repeated.1)
        default: repeated = (repeated.0 - 1, repeated.0, repeated.1)
        }
        return repeated.0 > 0 ? repeated.0 : nil
    }
}
