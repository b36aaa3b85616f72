import GuestMemory
import MachineCore
import Synchronization
import Testing

@testable import PCI

private final class Registers: BusDevice {
    func read(offset: UInt64, width: AccessWidth) -> UInt64 { 0x5A }
    func write(offset: UInt64, width: AccessWidth, value: UInt64) {}
}
private final class Line: InterruptLine {
    let level = Atomic<Bool>(false)
    func assert() { level.store(true, ordering: .relaxed) }
    func deassert() { level.store(false, ordering: .relaxed) }
    var isHigh: Bool { level.load(ordering: .relaxed) }
}
private final class Message: MessageInterrupt {
    let count = Atomic<Int>(0)
    let last = Mutex<InterruptMessage?>(nil)
    func setMessage(_ message: InterruptMessage?) throws(AcceleratorError) { last.withLock { $0 = message } }
    func trigger() { count.wrappingAdd(1, ordering: .relaxed) }
    var eventDescriptor: CInt? { nil }
}
private final class Messages: MessageInterruptFactory {
    let made = Mutex<[Message]>([])
    func makeMessageInterrupt() throws(AcceleratorError) -> any MessageInterrupt {
        let message = Message()
        made.withLock { $0.append(message) }
        return message
    }
    var first: Message? { made.withLock { $0.first } }
}
private final class Space: PCIAddressSpace {
    let mapped = Mutex<Set<String>>([])
    func map(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) { mapped.withLock { _ = $0.insert("\(base)+\(byteCount)") } }
    func unmap(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) { mapped.withLock { _ = $0.remove("\(base)+\(byteCount)") } }
    func mapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16) { mapped.withLock { _ = $0.insert("ports \(base)+\(count)") } }
    func unmapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16) { mapped.withLock { _ = $0.remove("ports \(base)+\(count)") } }
    var all: Set<String> { mapped.withLock { $0 } }
}

private func makeEndpoint(line: Line? = nil, messages: Messages? = nil) throws -> PCIEndpoint {
    var space = PCIConfigurationSpace(PCIIdentity(vendor: 0x8086, device: 0x2922, classCode: 0x01_06_01))
    space.addBAR(BaseAddressRegister(index: 4, kind: .ports, byteCount: 32))
    space.addBAR(BaseAddressRegister(index: 5, kind: .memory32, byteCount: 4096))
    space.addExpansionROM(byteCount: 0x10000)
    space.addRegister(at: 0x40, 0x8000, byteCount: 2, writable: 0x7FFF)
    return try PCIEndpoint(space, name: "test", line: line, message: messages)
}

@Suite struct PCIEndpointTests {
    @Test func sizingTellsPortsAndMemoryApart() throws {
        let endpoint = try makeEndpoint()
        endpoint.writeConfiguration(offset: 0x20, width: .doubleWord, value: 0xFFFF_FFFF)
        endpoint.writeConfiguration(offset: 0x24, width: .doubleWord, value: 0xFFFF_FFFF)
        endpoint.writeConfiguration(offset: 0x30, width: .doubleWord, value: 0xFFFF_FFFE)
        #expect(endpoint.readConfiguration(offset: 0x20, width: .doubleWord) == 0xFFFF_FFE1)
        #expect(endpoint.readConfiguration(offset: 0x24, width: .doubleWord) == 0xFFFF_F000)
        #expect(endpoint.readConfiguration(offset: 0x30, width: .doubleWord) == 0xFFFF_0000)
    }

    @Test func eachSpaceIsDecodedByItsOwnBit() throws {
        let endpoint = try makeEndpoint(), space = Space()
        for bar in [4, 5, 6] { endpoint.setWindow(Registers(), forBAR: bar) }
        endpoint.connect(to: space)
        endpoint.writeConfiguration(offset: 0x20, width: .doubleWord, value: 0xC000)
        endpoint.writeConfiguration(offset: 0x24, width: .doubleWord, value: 0xFEBF_0000)
        endpoint.writeConfiguration(offset: 0x30, width: .doubleWord, value: 0xFEB0_0001)
        #expect(space.all.isEmpty)
        endpoint.writeConfiguration(offset: 0x04, width: .word, value: 1)
        #expect(space.all == ["ports 49152+32"])
        endpoint.writeConfiguration(offset: 0x04, width: .word, value: 2)
        #expect(space.all == ["0xfebf0000+4096", "0xfeb00000+65536"])
        endpoint.writeConfiguration(offset: 0x30, width: .doubleWord, value: 0xFEB0_0000)
        #expect(space.all == ["0xfebf0000+4096"])
        endpoint.reset()
        #expect(space.all.isEmpty)
    }

    @Test func portsBeyondTheSpaceDecodeNothing() throws {
        let endpoint = try makeEndpoint(), space = Space()
        endpoint.setWindow(Registers(), forBAR: 4)
        endpoint.connect(to: space)
        endpoint.writeConfiguration(offset: 0x20, width: .doubleWord, value: 0xFFFF_FFFF)
        endpoint.writeConfiguration(offset: 0x04, width: .word, value: 1)
        #expect(space.all.isEmpty)
    }

    @Test func theLineFollowsTheDeviceUnlessDisabledOrReplacedByMessages() throws {
        let line = Line(), messages = Messages()
        let endpoint = try makeEndpoint(line: line, messages: messages)
        let message = try #require(messages.first)
        #expect(endpoint.readConfiguration(offset: 0x3D, width: .byte) == 1)
        endpoint.setLevel(true)
        #expect(line.isHigh)
        #expect(endpoint.readConfiguration(offset: 0x06, width: .word) & 0x08 != 0)
        endpoint.writeConfiguration(offset: 0x04, width: .word, value: 1 << 10)
        #expect(!line.isHigh)
        endpoint.writeConfiguration(offset: 0x04, width: .word, value: 0)
        #expect(line.isHigh)
        endpoint.setLevel(false)
        let capability = Int(endpoint.readConfiguration(offset: 0x34, width: .byte))
        #expect(endpoint.readConfiguration(offset: capability, width: .byte) == 5)
        endpoint.writeConfiguration(offset: capability + 4, width: .doubleWord, value: 0xFEE0_1003)
        endpoint.writeConfiguration(offset: capability + 12, width: .word, value: 0x41)
        endpoint.writeConfiguration(offset: capability + 2, width: .word, value: 1)
        #expect(message.last.withLock { $0 } == InterruptMessage(address: 0xFEE0_1000, data: 0x41))
        endpoint.setLevel(true)
        endpoint.setLevel(true)
        #expect(!line.isHigh && message.count.load(ordering: .relaxed) == 1)
        endpoint.setLevel(false)
        endpoint.setLevel(true)
        #expect(message.count.load(ordering: .relaxed) == 2)
    }

    @Test func chipsetRegistersKeepTheirFixedBits() throws {
        let endpoint = try makeEndpoint()
        let seen = Mutex<[Range<Int>]>([])
        endpoint.onWrite { range in seen.withLock { $0.append(range) } }
        endpoint.writeConfiguration(offset: 0x40, width: .word, value: 0x1234)
        #expect(endpoint.readConfiguration(offset: 0x40, width: .word) == 0x9234)
        #expect(seen.withLock { $0 } == [0x40..<0x42])
    }

    @Test func savedStateComesBackWithTheLine() throws {
        let line = Line(), restoredLine = Line()
        let endpoint = try makeEndpoint(line: line)
        endpoint.writeConfiguration(offset: 0x24, width: .doubleWord, value: 0xFEBF_0000)
        endpoint.writeConfiguration(offset: 0x04, width: .word, value: 6)
        endpoint.setLevel(true)
        var writer = StateWriter()
        endpoint.saveState(into: &writer)
        // Whatever the guest read last.
        var again = StateWriter()
        _ = endpoint.readConfiguration(offset: 6, width: .word)
        endpoint.saveState(into: &again)
        #expect(again.bytes == writer.bytes)
        let other = try makeEndpoint(line: restoredLine)
        var reader = StateReader(section: "test", bytes: writer.bytes)
        try other.restoreState(from: &reader, version: 1)
        #expect(other.isBusMaster && restoredLine.isHigh)
        #expect(other.readConfiguration(offset: 0x24, width: .doubleWord) == 0xFEBF_0000)
        var short = StateReader(section: "test", bytes: Array(writer.bytes.dropLast()))
        #expect(throws: DeviceStateError.self) { try other.restoreState(from: &short, version: 1) }
    }
}

@Suite struct OptionROMTests {
    /// One image for 1AF4:1000, its bytes adding up to zero.
    private static var image: [UInt8] {
        var bytes: [UInt8] = [0x55, 0xAA, 2, 0, 0, 0, 0] + [UInt8](repeating: 0x5A, count: 0x11) + [0x1C, 0, 0, 0] + Array("PCIR".utf8) + [0xF4, 0x1A, 0x00, 0x10]
        bytes += [UInt8](repeating: 0, count: 1024 - bytes.count)
        bytes[6] = 0 &- bytes.reduce(0, &+)
        return bytes
    }

    @Test func itTakesItsFunctionsIdentityAndKeepsItsChecksum() throws {
        let rom = try OptionROM(Self.image, vendor: 0x1AF4, device: 0x1041)
        #expect(rom.byteCount == 2048 && rom.read(offset: 0, width: .word) == 0xAA55)
        #expect(rom.read(offset: 0x20, width: .doubleWord) == 0x1041_1AF4)
        #expect((0..<1024).reduce(UInt8(0)) { $0 &+ UInt8(rom.read(offset: UInt64($1), width: .byte)) } == 0)
        rom.write(offset: 0, width: .byte, value: 0)
        #expect(rom.read(offset: 1022, width: .doubleWord) == 0xFFFF_0000 && rom.read(offset: .max, width: .quadWord) & 0xFF == 0xFF)
    }

    @Test func whatIsNoOptionROMIsRefusedInWords() {
        for count in 0..<0x34 { #expect(throws: OptionROMError.self) { try OptionROM(Array(Self.image.prefix(count)), vendor: 0, device: 0) } }
        for at in [0, 1, 0x19, 0x1C] {
            var bytes = Self.image
            bytes[at] = 0x77
            #expect(throws: OptionROMError.self, "\(at)") { try OptionROM(bytes, vendor: 0, device: 0) }
        }
        #expect(throws: OptionROMError.self) { try OptionROM(Self.image + [UInt8](repeating: 0, count: OptionROM.byteCountLimit), vendor: 0, device: 0) }
    }
}
