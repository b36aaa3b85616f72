// SMBIOS 3.0 structures (DSP0134) with the identity that Nova gives a server: types 0, 1, 3, 4, 16, 17, 19, 32, 127.
package import GuestMemory

/// What type 1 says of the machine. Nova: "OpenStack Foundation", "OpenStack Nova", its version, the host's serial, the server's UUID.
package struct SystemInformation: Sendable, Equatable {
    package var manufacturer: String
    package var product: String
    package var version: String
    package var serial: String
    /// Sixteen bytes in the order the UUID is written.
    package var uuid: [UInt8]
    package var family: String

    package init(manufacturer: String, product: String, version: String, serial: String, uuid: [UInt8], family: String) {
        self.manufacturer = manufacturer
        self.product = product
        self.version = version
        self.serial = serial
        self.uuid = uuid
        self.family = family
    }
}

package enum SMBIOSTables {
    /// Where the entry point goes: the F-segment is what Linux searches.
    package static let entryAddress: UInt64 = 0xF_0000

    /// One structure: its formatted area (the header is added) and its strings, in the order of their numbers.
    private static func structure(_ type: UInt8, handle: UInt16, _ fields: [UInt8], _ strings: [String] = []) -> [UInt8] {
        var bytes = [type, UInt8(truncatingIfNeeded: 4 + fields.count), UInt8(truncatingIfNeeded: handle), UInt8(truncatingIfNeeded: handle >> 8)] + fields
        for string in strings { bytes += Array(string.utf8.filter { $0 != 0 }.prefix(63)) + [0] }
        return bytes + (strings.isEmpty ? [0, 0] : [0])
    }

    package static func build(
        _ system: SystemInformation, memoryByteCount: UInt64, processors: Int, lowMemoryEnd: UInt64 = MemoryMap.lowMemoryEnd
    ) -> [UInt8] {
        func little(_ value: UInt64, _ count: Int) -> [UInt8] { AML.little(value, count) }
        // An empty string may not stand in the list: it would end it.
        func text(_ string: String) -> String { string.isEmpty ? "Not Specified" : string }
        let mebibytes = memoryByteCount >> 20
        var bytes = structure(
            0, handle: 0, [1, 2] + little(0xE800, 2) + [3, 0] + little(1 << 3, 8) + [0, 0x14, 0, 0, 0xFF, 0xFF], ["Apus", "1.0", "01/01/2026"])
        // The first three fields of a UUID are little-endian (§7.2.1).
        let u = system.uuid.count == 16 ? system.uuid : [UInt8](repeating: 0, count: 16)
        let uuid = [u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6]] + u[8...]
        bytes += structure(
            1, handle: 0x100, [1, 2, 3, 4] + uuid + [6, 0, 5], [system.manufacturer, system.product, system.version, system.serial, system.family].map(text))
        bytes += structure(3, handle: 0x300, [1, 1, 2, 0, 0, 3, 3, 3, 2] + little(0, 4) + [0, 0, 0, 0, 0], [text(system.manufacturer), text(system.version)])
        for index in 0..<processors {
            bytes += structure(
                4, handle: 0x400 + UInt16(truncatingIfNeeded: index),
                [1, 3, 1, 2] + little(0, 8) + [0, 0] + little(0, 2) + little(2000, 2) + little(2000, 2) + [0x41, 1] + [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]
                    + [0, 0, 0] + [1, 1, 1] + little(0x0C, 2) + little(1, 2) + little(1, 2) + little(1, 2) + little(1, 2),
                ["CPU \(index)", text(system.manufacturer)])
        }
        let kibibytes = memoryByteCount >> 10
        let extended = kibibytes >= 0x8000_0000
        bytes += structure(
            16, handle: 0x1000, [1, 3, 6] + little(extended ? 0x8000_0000 : kibibytes, 4) + little(0xFFFE, 2) + little(1, 2) + little(extended ? memoryByteCount : 0, 8))
        bytes += structure(
            17, handle: 0x1100,
            little(0x1000, 2) + little(0xFFFE, 2) + little(0xFFFF, 2) + little(0xFFFF, 2) + little(mebibytes < 0x7FFF ? mebibytes : 0x7FFF, 2) + [9, 0, 1, 0, 7]
                + little(2, 2) + little(0, 2) + [2, 0, 0, 0, 0] + little(mebibytes < 0x7FFF ? 0 : mebibytes, 4) + little(0, 2) + little(0, 6),
            ["DIMM 0", text(system.manufacturer)])
        for (index, range) in MemoryMap.ranges(memoryByteCount: memoryByteCount, lowMemoryEnd: lowMemoryEnd).filter({ $0.kind == .ram && $0.base != 0 }).enumerated() {
            let first = range.base == MemoryMap.highMemory ? 0 : range.base, last = range.base + range.byteCount - 1
            let isWide = last >> 10 >= 0xFFFF_FFFF
            bytes += structure(
                19, handle: 0x1300 + UInt16(truncatingIfNeeded: index),
                little(isWide ? 0xFFFF_FFFF : first >> 10, 4) + little(isWide ? 0xFFFF_FFFF : last >> 10, 4) + little(0x1000, 2) + [1]
                    + little(isWide ? first : 0, 8) + little(isWide ? last : 0, 8))
        }
        bytes += structure(32, handle: 0x2000, [0, 0, 0, 0, 0, 0, 0])
        return bytes + structure(127, handle: 0x7F00, [])
    }

    /// The 64-bit entry point (§5.2.2) for structures at `address`.
    package static func entryPoint(structuresAt address: UInt64, byteCount: Int) -> [UInt8] {
        var bytes = Array("_SM3_".utf8) + [0, 24, 3, 0, 0, 1, 0] + AML.little(UInt64(byteCount), 4) + AML.little(address, 8)
        bytes[5] = ACPITables.checksum(bytes)
        return bytes
    }

    package static func place(_ system: SystemInformation, processors: Int, in memory: GuestMemory) throws(LoaderError) {
        let structures = build(system, memoryByteCount: memory.byteCount, processors: processors)
        let address = entryAddress + 0x20
        guard UInt64(structures.count) < MemoryMap.generationPage - address else { throw LoaderError("SMBIOS tables", "\(structures.count) bytes do not fit") }
        do {
            try memory.write(entryPoint(structuresAt: address, byteCount: structures.count), at: GuestAddress(entryAddress))
            try memory.write(structures, at: GuestAddress(address))
        } catch {
            throw LoaderError("SMBIOS tables", "\(error)")
        }
    }
}
