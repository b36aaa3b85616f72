import GuestMemory
import MachineCore
import MachineTesting
import PCI
import Synchronization
import Testing

/// A root port in slot 3 with a function behind it, as a guest reaches them through the ports.
private struct Bench {
    let bus = PCIBus(), space = RecordedAddressSpace()
    let bridge: PCIBridge
    let function: PCIEndpoint
    let ports: PCIConfigurationPorts

    init() throws {
        bridge = try PCIBridge(rootPort: 5, name: "root-port-0", isOccupied: true, line: nil)
        var header = PCIConfigurationSpace(PCIIdentity(vendor: 0x1234, device: 0x5678, classCode: 0xFF_00_00))
        header.addBAR(BaseAddressRegister(index: 0, kind: .memory64, byteCount: 0x4000))
        header.addBAR(BaseAddressRegister(index: 2, kind: .ports, byteCount: 32))
        function = try PCIEndpoint(header, name: "function")
        function.setWindow(SilentRegisters(), forBAR: 0)
        function.setWindow(SilentRegisters(), forBAR: 2)
        try bus.attach(bridge, at: PCIAddress(device: 3))
        try bridge.secondary.attach(function, at: PCIAddress(device: 0))
        bus.connect(to: space)
        ports = PCIConfigurationPorts(bus)
    }

    func read(_ address: PCIAddress, _ offset: Int, _ width: AccessWidth = .doubleWord) -> UInt64 {
        ports.write(offset: 0, width: .doubleWord, value: 0x8000_0000 | UInt64(address.routingID) << 8 | UInt64(offset & 0xFC))
        return ports.read(offset: 4 + UInt64(offset & 3), width: width)
    }
    func write(_ address: PCIAddress, _ offset: Int, _ value: UInt64, _ width: AccessWidth = .doubleWord) {
        ports.write(offset: 0, width: .doubleWord, value: 0x8000_0000 | UInt64(address.routingID) << 8 | UInt64(offset & 0xFC))
        ports.write(offset: 4 + UInt64(offset & 3), width: width, value: value)
    }
    var port: PCIAddress { PCIAddress(device: 3) }
    func behind(_ bus: UInt8) -> PCIAddress { PCIAddress(bus: bus, device: 0) }
    var memory: [UInt64: UInt64] { space.memory.withLock { $0 } }
}

@Suite struct PCIBridgeTests {
    @Test func itIsARootPortWithATypeOneHeaderAndASlot() throws {
        let bench = try Bench()
        #expect(bench.read(bench.port, 0) == 0x000C_1B36 && bench.read(bench.port, 0x0B, .byte) == 0x06 && bench.read(bench.port, 0x0E, .byte) == 1)
        let offset = Int(bench.read(bench.port, 0x34, .byte))
        // PCI Express, version 2, root port with a slot; slot 5, a card in it, the link up.
        #expect(bench.read(bench.port, offset) == 0x0142_0010 && bench.read(bench.port, offset + 0x14) >> 19 == 5)
        #expect(bench.read(bench.port, offset + 0x1A, .word) == 0x40 && bench.read(bench.port, offset + 0x12, .word) == 0x2011)
        // Extended space, by ECAM: the list of capabilities is empty.
        let window = PCIExpressWindow(bench.bus)
        #expect(window.read(offset: UInt64(bench.port.routingID) << 12 | 0x100, width: .doubleWord) == 0)
        // No BARs, no subsystem: what is written where they would be is bus numbers and windows.
        bench.write(bench.port, 0x10, 0xFFFF_FFFF)
        #expect(bench.read(bench.port, 0x10) == 0 && bench.read(bench.port, 0x2C) == 0)
    }

    @Test func configurationSpaceBehindItIsOnTheBusThatTheGuestNames() throws {
        let bench = try Bench()
        #expect(bench.read(bench.behind(1), 0) == 0xFFFF_FFFF && bench.read(bench.behind(0), 0) == 0xFFFF_FFFF)
        bench.write(bench.port, 0x18, 0x02_02_00)
        #expect(bench.read(bench.behind(2), 0) == 0x5678_1234 && bench.read(bench.behind(1), 0) == 0xFFFF_FFFF)
        #expect(bench.read(PCIAddress(bus: 2, device: 1), 0) == 0xFFFF_FFFF && bench.read(bench.behind(3), 0) == 0xFFFF_FFFF)
        bench.write(bench.port, 0x18, 0xFF_10_00)
        #expect(bench.read(bench.behind(0x10), 0) == 0x5678_1234 && bench.read(bench.behind(2), 0) == 0xFFFF_FFFF)
        bench.bus.reset()
        #expect(bench.read(bench.port, 0x18) == 0 && bench.read(bench.behind(0x10), 0) == 0xFFFF_FFFF)
    }

    @Test func memoryAndPortsBehindItAreDecodedWithinItsWindowsOnly() throws {
        let bench = try Bench()
        bench.write(bench.port, 0x18, 0x01_01_00)
        let function = bench.behind(1)
        bench.write(function, 0x10, 0xFE20_0000)
        bench.write(function, 0x18, 0xC000)
        bench.write(function, 0x04, 7, .word)
        #expect(bench.memory.isEmpty && bench.space.ports.withLock { $0 }.isEmpty)
        bench.write(bench.port, 0x20, 0xFE20_FE20)
        bench.write(bench.port, 0x1C, 0xC0C0, .word)
        #expect(bench.memory.isEmpty, "decoding is off")
        bench.write(bench.port, 0x04, 3, .word)
        #expect(bench.memory == [0xFE20_0000: 0x4000] && bench.space.ports.withLock { $0 } == [0xC000: 32])
        // The window moves away, then the prefetchable one comes, above 4 GiB with the BAR.
        bench.write(bench.port, 0x20, 0x0000_FFF0)
        #expect(bench.memory.isEmpty)
        bench.write(bench.port, 0x24, 0x0000_0000)
        bench.write(bench.port, 0x28, 0x80)
        bench.write(bench.port, 0x2C, 0x80)
        bench.write(function, 0x14, 0x80)
        bench.write(function, 0x10, 0x000C_0000)
        #expect(bench.memory == [0x80_000C_0000: 0x4000])
        // Reaching out of the window.
        bench.write(function, 0x10, 0x000F_E000)
        #expect(bench.memory == [0x80_000F_C000: 0x4000])
        bench.write(function, 0x10, 0x0010_0000)
        #expect(bench.memory.isEmpty)
        bench.write(function, 0x10, 0)
        bench.write(function, 0x04, 0, .word)
        #expect(bench.memory.isEmpty && bench.space.ports.withLock { $0 }.isEmpty)
    }

    @Test func itsControlRegisterResetsWhatIsBehindOnce() throws {
        let bench = try Bench()
        nonisolated(unsafe) var count = 0
        bench.write(bench.port, 0x18, 0x01_01_00)
        bench.function.onReset { count += 1 }
        bench.write(bench.behind(1), 0x04, 2, .word)
        bench.write(bench.port, 0x3E, 0x40, .word)
        bench.write(bench.port, 0x3E, 0x41, .word)
        #expect(count == 1 && bench.read(bench.behind(1), 0x04, .word) == 0)
        bench.write(bench.port, 0x3E, 0, .word)
        bench.write(bench.port, 0x3E, 0x40, .word)
        #expect(count == 2)
    }

    @Test func aSavedPortDecodesAgainWhatItDecoded() throws {
        let bench = try Bench()
        bench.write(bench.port, 0x18, 0x01_01_00)
        bench.write(bench.port, 0x20, 0xFE20_FE20)
        bench.write(bench.port, 0x04, 2, .word)
        bench.write(bench.behind(1), 0x10, 0xFE20_0000)
        bench.write(bench.behind(1), 0x04, 2, .word)
        let other = try Bench()
        for (from, to) in [(bench.bridge.endpoint, other.bridge.endpoint), (bench.function, other.function)] {
            var writer = StateWriter()
            from.saveState(into: &writer)
            var reader = StateReader(section: "x", bytes: writer.bytes)
            try to.restoreState(from: &reader, version: 1)
        }
        #expect(other.memory.isEmpty)
        other.bridge.follow()
        #expect(other.memory == [0xFE20_0000: 0x4000] && other.read(other.behind(1), 0) == 0x5678_1234)
    }

    @Test func randomWritesNeverTrap() throws {
        let bench = try Bench()
        for _ in 0..<20_000 {
            let address = PCIAddress(bus: UInt8.random(in: 0...3), device: [0, 3].randomElement() ?? 0)
            bench.write(address, Int.random(in: 0..<256) & ~3, UInt64(UInt32.random(in: 0 ... .max)))
        }
    }
}
