import Firmware
import Glibc
import GuestMemory
import Testing

struct SMBIOSTests {
    /// A structure as DSP0134 §6.1 lays it out, read back without the builder's help.
    private struct Structure {
        let type: UInt8, handle: Int, formatted: [UInt8], strings: [String]
        func string(at offset: Int) -> String? {
            let number = Int(formatted[offset])
            return number == 0 ? "" : (number <= strings.count ? strings[number - 1] : nil)
        }
        func number(at offset: Int, _ count: Int) -> UInt64 { (0..<count).reduce(0) { $0 | UInt64(formatted[offset + $1]) << (UInt64($1) * 8) } }
    }

    private func structures(memoryMiB: UInt64, processors: Int = 2, system: SystemInformation) throws -> [Structure] {
        let bytes = SMBIOSTables.build(system, memoryByteCount: memoryMiB << 20, processors: processors)
        var found: [Structure] = [], at = 0
        while at < bytes.count {
            let length = Int(bytes[at + 1])
            let formatted = Array(bytes[at..<(at + length)])
            at += length
            var strings: [String] = []
            while bytes[at] != 0 {
                let end = try #require(bytes[at...].firstIndex(of: 0))
                strings.append(String(decoding: bytes[at..<end], as: UTF8.self))
                at = end + 1
            }
            at += strings.isEmpty ? 2 : 1
            found.append(Structure(type: formatted[0], handle: Int(formatted[2]) | Int(formatted[3]) << 8, formatted: formatted, strings: strings))
        }
        return found
    }

    private let nova = SystemInformation(
        manufacturer: "OpenStack Foundation", product: "OpenStack Nova", version: "26.2.0", serial: "host-serial",
        uuid: (0..<16).map { UInt8($0) * 0x11 }, family: "Virtual Machine")

    @Test func everyTypeIsThereOnceHandlesAreUniqueAndTheEndIsLast() throws {
        let found = try structures(memoryMiB: 512, system: nova)
        #expect(Set(found.map(\.type)) == [0, 1, 3, 4, 16, 17, 19, 32, 127])
        #expect(Set(found.map(\.handle)).count == found.count && found.last?.type == 127)
        #expect(found.filter { $0.type == 4 }.count == 2)
    }

    /// Lengths of the SMBIOS 3.0 forms.
    @Test func everyStructureHasTheLengthOfItsVersion() throws {
        let lengths: [UInt8: Int] = [0: 0x18, 1: 0x1B, 3: 0x16, 4: 0x30, 16: 0x17, 17: 0x28, 19: 0x1F, 32: 0x0B, 127: 4]
        for structure in try structures(memoryMiB: 512, system: nova) { #expect(structure.formatted.count == lengths[structure.type]) }
    }

    @Test func systemCarriesNovasIdentityWithTheUUIDsFirstFieldsSwapped() throws {
        let system = try #require(try structures(memoryMiB: 512, system: nova).first { $0.type == 1 })
        #expect((4...7).map { system.string(at: $0) } == ["OpenStack Foundation", "OpenStack Nova", "26.2.0", "host-serial"])
        #expect(system.string(at: 0x1A) == "Virtual Machine")
        #expect(Array(system.formatted[8..<24]) == [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF])
    }

    @Test func everyStringNumberNamesAStringThatIsThere() throws {
        let fields: [UInt8: [Int]] = [0: [4, 5, 8], 1: [4, 5, 6, 7, 0x19, 0x1A], 3: [4, 6, 7, 8], 4: [4, 7, 0x10, 0x20, 0x21, 0x22], 17: [0x10, 0x11, 0x17, 0x18, 0x19, 0x1A]]
        for structure in try structures(memoryMiB: 512, system: nova) {
            for offset in fields[structure.type] ?? [] { #expect(structure.string(at: offset) != nil, "type \(structure.type), offset \(offset)") }
        }
    }

    @Test func emptyAndHostileStringsDoNotBreakTheList() throws {
        var system = nova
        system.version = ""
        system.serial = "a\0b" + String(repeating: "x", count: 500)
        system.uuid = [1, 2, 3]
        let found = try structures(memoryMiB: 512, system: system)
        #expect(found.last?.type == 127 && found.first { $0.type == 1 }?.string(at: 6) == "Not Specified")
        #expect(found.first { $0.type == 1 }?.string(at: 7)?.utf8.count == 63)
    }

    @Test(arguments: [(UInt64(512), UInt64(512), UInt64(0)), (32766, 32766, 0), (32767, 0x7FFF, 32767), (4 << 20, 0x7FFF, 4 << 20)])
    func memoryDeviceUsesTheExtendedSizeFrom32GiB(mebibytes: UInt64, size: UInt64, extended: UInt64) throws {
        let device = try #require(try structures(memoryMiB: mebibytes, system: nova).first { $0.type == 17 })
        #expect(device.number(at: 0x0C, 2) == size && device.number(at: 0x1C, 4) == extended)
    }

    @Test func mappedRangesLeaveTheHoleBelow4GiBOut() throws {
        let ranges = try structures(memoryMiB: 8192, system: nova).filter { $0.type == 19 }.map { [$0.number(at: 4, 4), $0.number(at: 8, 4)] }
        #expect(ranges == [[0, (0xB000_0000 >> 10) - 1], [0x1_0000_0000 >> 10, ((0x1_0000_0000 + (8192 << 20) - 0xB000_0000) >> 10) - 1]])
    }

    @Test func entryPointIsFoundInTheFSegmentWithItsChecksum() throws {
        let memory = try GuestMemory(byteCount: 64 << 20)
        try SMBIOSTables.place(nova, processors: 2, in: memory)
        let entry = try memory.bytes(at: GuestAddress(0xF0000), count: 24)
        #expect(Array(entry[..<5]) == Array("_SM3_".utf8) && entry.reduce(0, &+) == 0 && entry[6] == 24 && entry[7] == 3)
        let address = try memory.load(UInt64.self, at: GuestAddress(0xF0010))
        #expect(address == 0xF0020)
        #expect(try memory.load(UInt8.self, at: GuestAddress(address)) == 0)
    }

    @Test func tooManyProcessorsAreRefusedInWords() throws {
        let memory = try GuestMemory(byteCount: 64 << 20)
        #expect(throws: LoaderError.self) { try SMBIOSTables.place(nova, processors: 5000, in: memory) }
    }
}
