// ACPI tables as one image with the places that must be patched once its address is known: pointers between tables, then the
// checksums over them. Without firmware we patch; with firmware the table loader script tells it to (QEMU, hw/acpi/bios-linker-loader).

struct TableImage: Sendable {
    struct Pointer: Sendable, Equatable {
        /// Where it is, and how wide (4 or 8).
        let offset: Int, byteCount: Int
    }
    struct Checksum: Sendable, Equatable {
        let offset: Int, start: Int, byteCount: Int
    }
    private(set) var bytes: [UInt8] = []
    private(set) var pointers: [Pointer] = []
    private(set) var checksums: [Checksum] = []

    /// Appends a table without a header, FACS.
    mutating func append(_ table: [UInt8], alignment: Int = 16) -> Int {
        while bytes.count % alignment != 0 { bytes.append(0) }
        bytes += table
        return bytes.count - table.count
    }

    /// Appends a table with the header of §5.2.6. `targets`: offset in the table → offset of what it points to, width.
    mutating func append(_ signature: String, revision: UInt8, _ body: [UInt8], targets: [(offset: Int, target: Int, byteCount: Int)] = []) -> Int {
        let start = append(ACPITables.header(signature, revision: revision, byteCount: 36 + body.count) + body)
        for (offset, target, byteCount) in targets { point(start + offset, to: target, byteCount: byteCount) }
        checksums.append(Checksum(offset: start + 9, start: start, byteCount: 36 + body.count))
        return start
    }

    /// A number that is known already.
    mutating func put(_ value: UInt64, at offset: Int, byteCount: Int) {
        bytes.replaceSubrange(offset..<(offset + byteCount), with: AML.little(value, byteCount))
    }

    mutating func point(_ offset: Int, to target: Int, byteCount: Int) {
        bytes.replaceSubrange(offset..<(offset + byteCount), with: AML.little(UInt64(target), byteCount))
        pointers.append(Pointer(offset: offset, byteCount: byteCount))
    }

    /// The bytes as they are to lie at `base`.
    func placed(at base: UInt64) -> [UInt8] {
        var placed = bytes
        for pointer in pointers {
            let range = pointer.offset..<(pointer.offset + pointer.byteCount)
            let target = placed[range].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            placed.replaceSubrange(range, with: AML.little(target + base, pointer.byteCount))
        }
        for sum in checksums {
            placed[sum.offset] = 0
            placed[sum.offset] = ACPITables.checksum(placed[sum.start..<(sum.start + sum.byteCount)])
        }
        return placed
    }
}

/// The script by which firmware places the tables: commands of 128 bytes.
struct TableLoader {
    private enum Command { static let allocate: UInt64 = 1, addPointer: UInt64 = 2, addChecksum: UInt64 = 3, writePointer: UInt64 = 4 }
    enum Zone: UInt8 { case high = 1, fSegment = 2 }
    private(set) var bytes: [UInt8] = []

    private static func name(_ text: String) -> [UInt8] {
        let name = Array(text.utf8.prefix(55))
        return name + [UInt8](repeating: 0, count: 56 - name.count)
    }

    private mutating func add(_ command: UInt64, _ fields: [UInt8]) {
        let entry = AML.little(command, 4) + fields
        bytes += entry + [UInt8](repeating: 0, count: 128 - entry.count)
    }

    mutating func allocate(_ file: String, alignment: Int, zone: Zone) {
        add(Command.allocate, Self.name(file) + AML.little(UInt64(alignment), 4) + [zone.rawValue])
    }

    mutating func addPointer(in file: String, at offset: Int, byteCount: Int, to target: String) {
        add(Command.addPointer, Self.name(file) + Self.name(target) + AML.little(UInt64(offset), 4) + [UInt8(byteCount)])
    }

    mutating func addChecksum(in file: String, at offset: Int, start: Int, byteCount: Int) {
        add(Command.addChecksum, Self.name(file) + AML.little(UInt64(offset), 4) + AML.little(UInt64(start), 4) + AML.little(UInt64(byteCount), 4))
    }

    /// Firmware writes where it put `target`, and `addend` more, into a file of ours.
    mutating func writePointer(in file: String, at offset: Int, byteCount: Int, to target: String, plus addend: Int) {
        add(
            Command.writePointer,
            Self.name(file) + Self.name(target) + AML.little(UInt64(offset), 4) + AML.little(UInt64(addend), 4) + [UInt8(byteCount)])
    }
}
