import Firmware
import GuestMemory
import MachineCore
import Testing

/// Firmware as the script sees it: files in memory, joined as the commands say.
private struct Linker {
    var memory: [UInt8] = []
    var bases: [String: Int] = [:]
    /// By file of the machine's: offset, value, width.
    var written: [String: (offset: Int, value: Int, width: Int)] = [:]
    private let files: [String: [UInt8]]

    init(_ files: [String: [UInt8]]) { self.files = files }

    private static func name(_ bytes: ArraySlice<UInt8>) -> String { String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self) }
    private static func number(_ bytes: ArraySlice<UInt8>) -> Int { bytes.reversed().reduce(0) { $0 << 8 | Int($1) } }

    mutating func run(_ script: [UInt8]) throws {
        #expect(script.count % 128 == 0)
        for start in stride(from: 0, to: script.count, by: 128) {
            let fields = Array(script[(start + 4)..<(start + 128)]), first = Self.name(fields[0..<56])
            switch script[start] {
            case 1:
                let alignment = Self.number(fields[56..<60])
                while memory.count % alignment != 0 { memory.append(0) }
                bases[first] = memory.count
                memory += try #require(files[first])
            case 2:
                let target = Self.name(fields[56..<112]), width = Int(fields[116])
                let place = try #require(bases[first]) + Self.number(fields[112..<116])
                let value = Self.number(memory[place..<(place + width)]) + (try #require(bases[target]))
                for index in 0..<width { memory[place + index] = UInt8(truncatingIfNeeded: value >> (8 * index)) }
            case 3:
                let base = try #require(bases[first]), start = base + Self.number(fields[60..<64]), count = Self.number(fields[64..<68])
                memory[base + Self.number(fields[56..<60])] = 0
                memory[base + Self.number(fields[56..<60])] = 0 &- memory[start..<(start + count)].reduce(0, &+)
            case 4:
                let target = try #require(bases[Self.name(fields[56..<112])])
                written[first] = (Self.number(fields[112..<116]), target + Self.number(fields[116..<120]), Int(fields[120]))
            default: Issue.record("command \(script[start])")
            }
        }
    }

    func pointer(_ place: Int, _ width: Int) -> Int { Self.number(memory[place..<(place + width)]) }
    func table(_ address: Int) -> [UInt8] { Array(memory[address..<(address + pointer(address + 4, 4))]) }
}

@Suite struct TableLoaderTests {
    private func description(_ routing: ACPIDescription.InterruptRouting) -> ACPIDescription {
        var description = ACPIDescription(apicIDs: [0, 1], hasSerialPort: true, highMemoryEnd: 1 << 32, hasKeyboardController: true)
        description.routing = routing
        description.hasFirmwareConfiguration = true
        if routing == .piix { description.ecamBase = nil }
        return description
    }

    @Test(arguments: [ACPIDescription.InterruptRouting.piix, .ich9])
    func bothRootsLeadToTheSameTablesWithGoodChecksums(routing: ACPIDescription.InterruptRouting) throws {
        let files = ACPITables.files(description(routing))
        var linker = Linker(files)
        try linker.run(try #require(files[ACPITables.File.loader]))
        let rsdp = try #require(linker.bases[ACPITables.File.rsdp])
        #expect(linker.memory[rsdp..<(rsdp + 20)].reduce(0, &+) == 0 && linker.memory[rsdp..<(rsdp + 36)].reduce(0, &+) == 0)
        let rsdt = linker.table(linker.pointer(rsdp + 16, 4)), xsdt = linker.table(linker.pointer(rsdp + 24, 8))
        func entries(_ root: [UInt8], _ width: Int) -> [Int] {
            stride(from: 36, to: root.count, by: width).map { at in (0..<width).reduce(0) { $0 | Int(root[at + $1]) << (8 * $1) } }
        }
        #expect(String(decoding: rsdt[..<4], as: UTF8.self) == "RSDT" && String(decoding: xsdt[..<4], as: UTF8.self) == "XSDT")
        #expect(entries(rsdt, 4) == entries(xsdt, 8))
        let names = entries(xsdt, 8).map { String(decoding: linker.table($0)[..<4], as: UTF8.self) }
        #expect(names == (routing == .piix ? ["FACP", "APIC", "WAET"] : ["FACP", "APIC", "MCFG", "WAET"]))
        for table in entries(xsdt, 8).map(linker.table) + [rsdt, xsdt] { #expect(table.reduce(0, &+) == 0) }
        let fadt = entries(xsdt, 8)[0]
        #expect(linker.pointer(fadt + 40, 4) == linker.pointer(fadt + 140, 8))
        #expect(String(decoding: linker.table(linker.pointer(fadt + 140, 8))[..<4], as: UTF8.self) == "DSDT")
        #expect(linker.pointer(fadt + 36, 4) % 64 == 0)
    }

    @Test func theGenerationIDsPageIsFoundByTheGuestAndByTheMachine() throws {
        var description = description(.ich9)
        description.hasGenerationID = true
        var files = ACPITables.files(description)
        files[ACPITables.File.generation] = [UInt8](repeating: 0, count: 40) + [0xAB] + [UInt8](repeating: 0, count: 4055)
        var linker = Linker(files)
        // So that no file lies at 0.
        linker.memory = [UInt8](repeating: 0, count: 64)
        try linker.run(try #require(files[ACPITables.File.loader]))
        let page = try #require(linker.bases[ACPITables.File.generation])
        let xsdt = linker.table(linker.pointer(try #require(linker.bases[ACPITables.File.rsdp]) + 24, 8))
        let last = (0..<8).reduce(0) { $0 | Int(xsdt[xsdt.count - 8 + $1]) << (8 * $1) }
        let table = linker.table(last)
        #expect(String(decoding: table[..<4], as: UTF8.self) == "SSDT" && table.reduce(0, &+) == 0)
        #expect(linker.pointer(last + 42, 4) == page && linker.memory[page + 40] == 0xAB)
        let written = try #require(linker.written[ACPITables.File.generationAddress])
        #expect(written.offset == 0 && written.value == page + 40 && written.width == 8)
    }

    @Test func lengthsDoNotDependOnWhereFirmwarePlacedThings() {
        var early = description(.ich9), late = early
        early.ecamBase = 0xB000_0000
        late.ecamBase = 0xE000_0000
        late.pmBase = 0xB000
        late.gpe0Base = 0xB020
        early.windows = [0x8000_0000...0x8000_0FFF, 0x8000_1000...0xFEBF_FFFF]
        late.windows = [0x8000_0000...0xDFFF_FFFF, 0xF000_0000...0xFEBF_FFFF]
        for (name, bytes) in ACPITables.files(early) { #expect(ACPITables.files(late)[name]?.count == bytes.count, "\(name)") }
    }
}

@Suite struct FWCfgTests {
    private func items() -> FirmwareItems {
        var items = FirmwareItems()
        items.add(FirmwareItems.Key.processorCount, UInt16(3))
        items.addFile("etc/b", .bytes([1, 2, 3]))
        items.addFile("etc/a", .bytes([9]))
        return items
    }

    @Test func filesAreNumberedByNameAndReadToTheirEnd() {
        var interface = FWCfg(items())
        interface.select(FirmwareItems.Key.directory)
        let directory = interface.take(4 + 128)
        #expect(Array(directory[..<4]) == [0, 0, 0, 2])
        #expect(Array(directory[4..<12]) == [0, 0, 0, 1, 0, 0x20, 0, 0] && Array(directory[12..<17]) == Array("etc/a".utf8))
        #expect(Array(directory[68..<74]) == [0, 0, 0, 3, 0, 0x21])
        interface.select(0x21)
        #expect(interface.take(2) == [1, 2] && interface.take(4) == [3, 0, 0, 0])
        interface.select(0x7777)
        #expect(interface.take(1) == [0])
    }

    @Test func whatIsMadeStaysUntilTheReset() {
        nonisolated(unsafe) var calls: UInt8 = 0
        var list = FirmwareItems()
        list.addFiles(["made"]) { calls += 1; return ["made": [calls]] }
        var interface = FWCfg(list)
        interface.select(FirmwareItems.Key.directory)
        interface.select(0x20)
        let first = interface.take(1)
        interface.select(0x20)
        #expect(interface.take(1) == first)
        interface.reset()
        interface.select(0x20)
        #expect(interface.take(1) != first)
    }

    @Test func aFileThatMayBeWrittenKeepsWhatIsWrittenUntilTheReset() throws {
        let memory = try GuestMemory(byteCount: 1 << 20)
        nonisolated(unsafe) var heard: [[UInt8]] = []
        var list = items()
        list.addWritableFile("etc/c", byteCount: 8) { heard.append($0) }
        let ports = FirmwarePorts(list, memory: memory)
        func command(_ control: UInt32, _ length: UInt32, _ target: UInt64) throws -> UInt32 {
            try memory.store(control.bigEndian, at: GuestAddress(0x1000))
            try memory.store(length.bigEndian, at: GuestAddress(0x1004))
            try memory.store(target.bigEndian, at: GuestAddress(0x1008))
            ports.write(offset: 8, width: .doubleWord, value: UInt64(UInt32(0x1000).byteSwapped))
            return try memory.load(UInt32.self, at: GuestAddress(0x1000)).bigEndian
        }
        let select: UInt32 = 0x22 << 16 | 8
        try memory.write([1, 2, 3, 4, 5, 6, 7, 8, 9], at: GuestAddress(0x2000))
        #expect(try command(select | 16, 9, 0x2000) == 1 && command(select | 16, 8, 0xFFFF_F000) == 1 && heard.isEmpty)
        #expect(try command(select | 16, 4, 0x2000) == 0 && command(16, 4, 0x2002) == 0 && command(16, 1, 0x2000) == 1)
        #expect(heard == [[1, 2, 3, 4, 0, 0, 0, 0], [1, 2, 3, 4, 3, 4, 5, 6]])
        var writer = StateWriter()
        ports.saveState(into: &writer)
        ports.reset()
        #expect(heard.last == [0, 0, 0, 0, 0, 0, 0, 0])
        var reader = StateReader(section: "fw_cfg", bytes: writer.bytes)
        try ports.restoreState(from: &reader, version: FirmwarePorts.stateVersion)
        #expect(heard.last == [1, 2, 3, 4, 3, 4, 5, 6] && reader.remaining == 0)
        for length in 0..<writer.bytes.count {
            var short = StateReader(section: "fw_cfg", bytes: Array(writer.bytes.prefix(length)))
            #expect(throws: DeviceStateError.self) { try ports.restoreState(from: &short, version: FirmwarePorts.stateVersion) }
        }
        let other = FirmwarePorts(items(), memory: memory)
        var again = StateReader(section: "fw_cfg", bytes: writer.bytes)
        #expect(throws: DeviceStateError.self) { try other.restoreState(from: &again, version: FirmwarePorts.stateVersion) }
    }

    @Test func aCommandReadsIntoGuestMemoryAndABadOneIsAnswered() throws {
        let memory = try GuestMemory(byteCount: 1 << 20)
        let ports = FirmwarePorts(items(), memory: memory)
        func command(_ control: UInt32, _ length: UInt32, _ target: UInt64) throws -> UInt32 {
            try memory.store(control.bigEndian, at: GuestAddress(0x1000))
            try memory.store(length.bigEndian, at: GuestAddress(0x1004))
            try memory.store(target.bigEndian, at: GuestAddress(0x1008))
            ports.write(offset: 4, width: .doubleWord, value: 0)
            ports.write(offset: 8, width: .doubleWord, value: UInt64(UInt32(0x1000).byteSwapped))
            return try memory.load(UInt32.self, at: GuestAddress(0x1000)).bigEndian
        }
        #expect(try command(0x21 << 16 | 8 | 2, 5, 0x2000) == 0)
        #expect(try memory.bytes(at: GuestAddress(0x2000), count: 5) == [1, 2, 3, 0, 0])
        #expect(try command(0x21 << 16 | 8 | 2, 5, 0xFFFF_FFFE) == 1)
        #expect(try command(0x21 << 16 | 8 | 2, 0xFFFF_FFFF, 0x2000) == 1)
        #expect(try command(0x21 << 16 | 8 | 16, 1, 0x2000) == 1)
        #expect(ports.read(offset: 4, width: .doubleWord) == 0x554D_4551 && ports.read(offset: 8, width: .doubleWord) == 0x4746_4320)
        // A command outside RAM is nobody's to answer.
        ports.write(offset: 8, width: .doubleWord, value: 0xFFFF_FFFF)
    }
}
