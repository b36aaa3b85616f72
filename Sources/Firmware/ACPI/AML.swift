// ACPI Machine Language, built bottom up (ACPI 6.4 §20). Each function returns the bytes of one term.

package enum AML {
    /// A NameSeg of four characters, or a path of them: "_SB_.PCI0", "\\_S5_".
    package static func name(_ path: String) -> [UInt8] {
        var rest = Substring(path)
        var bytes: [UInt8] = []
        while let first = rest.first, first == "\\" || first == "^" {
            bytes += Array(String(first).utf8)
            rest = rest.dropFirst()
        }
        let segments = rest.split(separator: ".").map { Array(($0 + "____").utf8.prefix(4)) }
        switch segments.count {
        case 0: bytes.append(0)
        case 1: break
        case 2: bytes.append(0x2E)
        default: bytes += [0x2F, UInt8(truncatingIfNeeded: segments.count)]
        }
        return bytes + segments.flatMap { $0 }
    }

    /// PkgLength (§20.2.4): counts itself.
    static func packageLength(_ byteCount: Int) -> [UInt8] {
        if byteCount + 1 < 0x40 { return [UInt8(byteCount + 1)] }
        let width = byteCount + 2 < 0x1000 ? 2 : (byteCount + 3 < 0x10_0000 ? 3 : 4)
        let total = byteCount + width
        return [UInt8((width - 1) << 6 | total & 0xF)] + (1..<width).map { UInt8(truncatingIfNeeded: total >> (4 + 8 * ($0 - 1))) }
    }

    private static func packaged(_ opcode: [UInt8], _ body: [UInt8]) -> [UInt8] { opcode + packageLength(body.count) + body }

    package static func integer(_ value: UInt64) -> [UInt8] {
        switch value {
        case 0: [0x00]
        case 1: [0x01]
        case ...0xFF: [0x0A] + little(value, 1)
        case ...0xFFFF: [0x0B] + little(value, 2)
        case ...0xFFFF_FFFF: [0x0C] + little(value, 4)
        default: [0x0E] + little(value, 8)
        }
    }

    static func little(_ value: UInt64, _ byteCount: Int) -> [UInt8] {
        (0..<byteCount).map { UInt8(truncatingIfNeeded: value >> (UInt64($0) * 8)) }
    }

    package static func string(_ text: String) -> [UInt8] { [0x0D] + Array(text.utf8) + [0] }

    /// An EISA id such as "PNP0A08" (§19.3.4).
    package static func eisaID(_ id: String) -> [UInt8] {
        let text = Array(id.utf8)
        guard text.count == 7 else { return string(id) }
        let letters = text[0..<3].reduce(UInt32(0)) { $0 << 5 | UInt32($1 &- 0x40) & 0x1F }
        let number = UInt32(String(decoding: text[3...], as: UTF8.self), radix: 16) ?? 0
        return [0x0C] + little(UInt64((letters << 16 | number).byteSwapped), 4)
    }

    package static func define(_ path: String, _ value: [UInt8]) -> [UInt8] { [0x08] + name(path) + value }
    package static func scope(_ path: String, _ terms: [UInt8]...) -> [UInt8] { packaged([0x10], name(path) + terms.flatMap { $0 }) }
    package static func device(_ path: String, _ terms: [UInt8]...) -> [UInt8] { packaged([0x5B, 0x82], name(path) + terms.flatMap { $0 }) }
    package static func package_(_ elements: [[UInt8]]) -> [UInt8] { packaged([0x12], [UInt8(truncatingIfNeeded: elements.count)] + elements.flatMap { $0 }) }
    package static func buffer(_ bytes: [UInt8]) -> [UInt8] { packaged([0x11], integer(UInt64(bytes.count)) + bytes) }
    /// - Parameter isSerialized: needed where the method makes named objects.
    package static func method(
        _ path: String, arguments: Int, isSerialized: Bool = false, _ terms: [UInt8]...
    ) -> [UInt8] {
        packaged([0x14], name(path) + [UInt8(arguments & 7) | (isSerialized ? 8 : 0)] + terms.flatMap { $0 })
    }
    package static func if_(_ condition: [UInt8], _ terms: [UInt8]...) -> [UInt8] {
        packaged([0xA0], condition + terms.flatMap { $0 })
    }
    package static func equal(_ left: [UInt8], _ right: [UInt8]) -> [UInt8] { [0x93] + left + right }
    /// As a value: nothing keeps it.
    package static func and(_ left: [UInt8], _ right: [UInt8]) -> [UInt8] { [0x7B] + left + right + [0] }
    package static func store(_ value: [UInt8], to target: [UInt8]) -> [UInt8] { [0x70] + value + target }
    package static let pciConfiguration: UInt8 = 2
    package static func operationRegion(_ path: String, space: UInt8, offset: UInt64, byteCount: UInt64) -> [UInt8] {
        [0x5B, 0x80] + name(path) + [space] + integer(offset) + integer(byteCount)
    }
    /// Bytes of a region by name, with byte access, nothing locked, other bits preserved. An empty name skips bits.
    package static func field(_ region: String, _ units: [(name: String, bits: UInt64)]) -> [UInt8] {
        let list = units.flatMap { unit in (unit.name.isEmpty ? [0] : name(unit.name)) + fieldLength(unit.bits) }
        return packaged([0x5B, 0x81], name(region) + [0x01] + list)
    }
    /// A PkgLength that does not count itself.
    private static func fieldLength(_ bits: UInt64) -> [UInt8] {
        bits < 0x40 ? [UInt8(bits)] : [0x40 | UInt8(bits & 0xF), UInt8(truncatingIfNeeded: bits >> 4)]
    }
    package static func or(_ left: [UInt8], _ right: [UInt8], into target: [UInt8]) -> [UInt8] { [0x7D] + left + right + target }
    /// Names the 32 bits at byte `index` of a buffer.
    package static func doubleWordField(_ path: String, of buffer: [UInt8], at index: UInt64) -> [UInt8] {
        [0x8A] + buffer + integer(index) + name(path)
    }

    /// A UUID as ToUUID lays it out (§19.6.142): the first three fields little-endian.
    package static func uuid(_ text: String) -> [UInt8] {
        let digits = text.utf8.filter { $0 != 0x2D }
        let bytes = stride(from: 0, to: digits.count - 1, by: 2).map { at in
            UInt8(String(decoding: digits[at...(at + 1)], as: UTF8.self), radix: 16) ?? 0
        }
        guard bytes.count == 16 else { return buffer([UInt8](repeating: 0, count: 16)) }
        return buffer([3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map { bytes[$0] })
    }
    package static func return_(_ value: [UInt8]) -> [UInt8] { [0xA4] + value }
    package static func local(_ index: UInt8) -> [UInt8] { [0x60 + min(index, 7)] }
    /// As values: nothing keeps them.
    package static func add(_ left: [UInt8], _ right: [UInt8]) -> [UInt8] { [0x72] + left + right + [0] }
    package static func element(_ index: UInt64, of package: [UInt8]) -> [UInt8] { [0x88] + package + integer(index) + [0] }
    package static func emptyPackage(_ count: UInt8) -> [UInt8] { packaged([0x12], [count]) }
    package static func notify(_ device: String, _ value: UInt64) -> [UInt8] { [0x86] + name(device) + integer(value) }
    package static func argument(_ index: UInt8) -> [UInt8] { [0x68 + min(index, 6)] }

    // MARK: Resource descriptors (§6.4)

    /// A resource template: the descriptors and their end tag.
    package static func resources(_ descriptors: [UInt8]...) -> [UInt8] { buffer(descriptors.flatMap { $0 } + [0x79, 0]) }
    package static func ioPorts(_ base: UInt16, count: UInt8) -> [UInt8] {
        [0x47, 0x01] + little(UInt64(base), 2) + little(UInt64(base), 2) + [1, count]
    }
    /// A DMA channel (§6.4.2.2): compatible speed, 8 bits.
    package static func dma(_ channel: UInt8) -> [UInt8] { [0x2A, 1 << min(channel, 7), 0] }
    package static func irq(_ number: UInt8) -> [UInt8] { [0x22] + little(1 << UInt64(number), 2) }
    /// Extended interrupts (§6.4.3.6): level, high, shared.
    package static func interrupts(_ numbers: [UInt64]) -> [UInt8] {
        [0x89] + little(UInt64(2 + 4 * numbers.count), 2) + [0x09, UInt8(truncatingIfNeeded: numbers.count)] + numbers.flatMap { little($0, 4) }
    }
    package static func fixedMemory(_ base: UInt32, byteCount: UInt32) -> [UInt8] {
        [0x86, 9, 0, 1] + little(UInt64(base), 4) + little(UInt64(byteCount), 4)
    }
    package static func busNumbers(_ first: UInt16, _ last: UInt16) -> [UInt8] {
        wordSpace(type: 2, flags: 0, first, last)
    }
    package static func portWindow(_ first: UInt16, _ last: UInt16) -> [UInt8] {
        wordSpace(type: 1, flags: 3, first, last)
    }
    private static func wordSpace(type: UInt8, flags: UInt8, _ first: UInt16, _ last: UInt16) -> [UInt8] {
        [0x88, 13, 0, type, 0x0C, flags] + [0, UInt64(first), UInt64(last), 0, UInt64(last) - UInt64(first) + 1].flatMap { little($0, 2) }
    }
    package static func memoryWindow(_ first: UInt32, _ last: UInt32) -> [UInt8] {
        [0x87, 23, 0, 0, 0x0C, 1] + [0, UInt64(first), UInt64(last), 0, UInt64(last) - UInt64(first) + 1].flatMap { little($0, 4) }
    }
    package static func memoryWindow64(_ first: UInt64, _ last: UInt64) -> [UInt8] {
        [0x8A, 43, 0, 0, 0x0C, 1] + [0, first, last, 0, last - first + 1].flatMap { little($0, 8) }
    }
}
