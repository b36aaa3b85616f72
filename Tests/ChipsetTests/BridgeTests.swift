import Glibc
import GuestMemory
import HostSystem
import MachineCore
import MachineTesting
import PCI
import Synchronization
import Testing

@testable import Chipset

/// An accelerator that notes lines and windows.
private final class Machine: VirtualMachine {
    let lines = Mutex<Set<UInt32>>([])
    let windows = Mutex<[Int: GuestAddress]>([:])

    func register(eventDescriptor: CInt, at address: DoorbellAddress, width: AccessWidth?) throws(AcceleratorError) {}
    func unregister(eventDescriptor: CInt, at address: DoorbellAddress, width: AccessWidth?) throws(AcceleratorError) {}
    func makeMessageInterrupt() throws(AcceleratorError) -> any MessageInterrupt { throw refusal }
    func map(_ memory: GuestMemory) throws(AcceleratorError) {}
    func mapWindow(_ window: Int, _ pages: HostPages, at base: GuestAddress, isReadOnly: Bool) throws(AcceleratorError) {
        windows.withLock { $0[window] = base }
    }
    func unmapWindow(_ window: Int) throws(AcceleratorError) { windows.withLock { $0[window] = nil } }
    func show(_ model: ProcessorModel) throws(AcceleratorError) {}
    func makeVCPU(index: Int, topology: ProcessorTopology) throws(AcceleratorError) -> any VirtualCPU { throw refusal }
    func setLine(gsi: UInt32, isAsserted: Bool) {
        lines.withLock { if isAsserted { $0.insert(gsi) } else { $0.remove(gsi) } }
    }
    func setTimerInterrupt(isConnected: Bool) throws(AcceleratorError) {}
    func stopClock() throws(AcceleratorError) {}
    func startClock() throws(AcceleratorError) {}
    func saveState() throws(AcceleratorError) -> [UInt8] { [] }
    func restoreState(_ state: [UInt8]) throws(AcceleratorError) {}

    private var refusal: AcceleratorError { AcceleratorError("make", subject: "anything", reason: "this one has no processor") }
    var high: Set<UInt32> { lines.withLock { $0 } }
}

@Suite struct PCIInterruptRouterTests {
    @Test func anInputsOwnSourceAndAPIRQShareIt() {
        let machine = Machine(), router = PCIInterruptRouter(.ich9, machine: machine)
        let slot = router.line(device: 4), timer = router.line(input: 20)
        slot.assert()
        timer.assert()
        slot.deassert()
        #expect(machine.high == [20])
        timer.deassert()
        #expect(machine.high == [])
    }

    @Test func pinsRotateAsTheBoardsAreWired() {
        let piix = PCIInterruptRouter.Wiring.piix, ich9 = PCIInterruptRouter.Wiring.ich9
        // Slot 1 pin A is PIRQA on i440FX; slot 31 keeps its pins on ICH9, the others rotate over E to H.
        #expect(piix.pirq(device: 1, pin: 1) == 0 && piix.pirq(device: 3, pin: 1) == 2 && piix.pirq(device: 4, pin: 2) == 0)
        #expect(ich9.pirq(device: 31, pin: 1) == 0 && ich9.pirq(device: 31, pin: 2) == 1)
        #expect(ich9.pirq(device: 0, pin: 1) == 4 && ich9.pirq(device: 2, pin: 1) == 6 && ich9.pirq(device: 3, pin: 2) == 4)
    }

    @Test func anInterruptIsTheWiredOrOfWhatIsRoutedThere() {
        let machine = Machine(), router = PCIInterruptRouter(.piix, machine: machine)
        let a = router.line(device: 1), b = router.line(device: 2)
        a.assert()
        #expect(machine.high.isEmpty)
        router.route(pirq: 0, register: 10)
        #expect(machine.high == [10])
        router.route(pirq: 1, register: 10)
        b.assert()
        a.deassert()
        #expect(machine.high == [10])
        router.route(pirq: 1, register: 0x8B)
        #expect(machine.high.isEmpty)
        router.route(pirq: 1, register: 11)
        #expect(machine.high == [11])
        b.deassert()
        #expect(machine.high.isEmpty)
    }

    @Test func ich9RaisesItsInputOfTheIOAPICWhateverIsRouted() {
        let machine = Machine(), router = PCIInterruptRouter(.ich9, machine: machine)
        let line = router.line(device: 2)
        line.assert()
        #expect(machine.high == [22])
        router.route(pirq: 6, register: 11)
        #expect(machine.high == [11, 22])
    }
}

@Suite struct Q35Tests {
    private let machine = Machine(), space = RecordedAddressSpace()
    private func make() throws -> (Q35Bridges, PCIInterruptRouter) {
        let router = PCIInterruptRouter(.ich9, machine: machine)
        return (try Q35Bridges(router: router, window: PCIExpressWindow(PCIBus()), power: SilentRegisters(), space: space), router)
    }

    @Test func identitiesAreWhatFirmwareLooksFor() throws {
        let (bridges, _) = try make()
        #expect(bridges.hub.readConfiguration(offset: 0, width: .doubleWord) == 0x29C0_8086)
        #expect(bridges.hub.readConfiguration(offset: 0x2C, width: .doubleWord) == 0x1100_1AF4)
        #expect(bridges.lpc.readConfiguration(offset: 0, width: .doubleWord) == 0x2918_8086)
        #expect(bridges.lpc.readConfiguration(offset: 0x0E, width: .byte) & 0x80 != 0)
    }

    @Test func ecamFollowsItsRegisterAndLengthsThatAreNoneAreNowhere() throws {
        let (bridges, _) = try make()
        bridges.hub.writeConfiguration(offset: 0x64, width: .doubleWord, value: 0)
        bridges.hub.writeConfiguration(offset: 0x60, width: .doubleWord, value: 0xB000_0001)
        #expect(bridges.ecamBase == 0xB000_0000)
        bridges.hub.writeConfiguration(offset: 0x60, width: .doubleWord, value: 0xE000_0003)
        #expect(space.memory.withLock { $0 } == [0xE000_0000: 128 << 20])
        bridges.hub.writeConfiguration(offset: 0x60, width: .doubleWord, value: 0xE000_0007)
        #expect(bridges.ecamBase == nil)
        bridges.hub.writeConfiguration(offset: 0x60, width: .doubleWord, value: 0xE000_0001)
        bridges.hub.reset()
        #expect(bridges.ecamBase == nil && space.memory.withLock { $0.isEmpty })
    }

    @Test func powerManagementNeedsItsEnableBit() throws {
        let (bridges, _) = try make()
        bridges.lpc.writeConfiguration(offset: 0x40, width: .doubleWord, value: 0x601)
        #expect(bridges.powerBase == nil)
        bridges.lpc.writeConfiguration(offset: 0x44, width: .byte, value: 0x80)
        #expect(bridges.powerBase == 0x600 && space.ports.withLock { $0 } == [0x600: 128])
        bridges.lpc.writeConfiguration(offset: 0x40, width: .doubleWord, value: 0xB001)
        #expect(space.ports.withLock { $0 } == [0xB000: 128])
        bridges.lpc.reset()
        #expect(space.ports.withLock { $0.isEmpty })
    }

    /// SeaBIOS takes PAM0's bit 4 for "I have copied myself already".
    @Test func aResetBringsBackEveryRegister() throws {
        let (bridges, router) = try make()
        bridges.hub.writeConfiguration(offset: 0x90, width: .byte, value: 0x30)
        bridges.hub.writeConfiguration(offset: 0x9D, width: .byte, value: 0x4A)
        bridges.lpc.writeConfiguration(offset: 0x6A, width: .byte, value: 0x0B)
        let line = router.line(device: 2)
        line.assert()
        #expect(machine.high == [11, 22])
        bridges.hub.reset()
        bridges.lpc.reset()
        #expect(bridges.hub.readConfiguration(offset: 0x90, width: .byte) == 0 && bridges.hub.readConfiguration(offset: 0x9D, width: .byte) == 2)
        #expect(bridges.lpc.readConfiguration(offset: 0x6A, width: .byte) == 0x80 && machine.high == [22])
    }

    @Test func aRestoredBridgePutsEverythingBack() throws {
        let (bridges, _) = try make()
        bridges.lpc.writeConfiguration(offset: 0x40, width: .doubleWord, value: 0x601)
        bridges.lpc.writeConfiguration(offset: 0x44, width: .byte, value: 0x80)
        bridges.lpc.writeConfiguration(offset: 0x6A, width: .byte, value: 0x0B)
        var writer = StateWriter()
        bridges.lpc.saveState(into: &writer)
        let (other, router) = try make()
        var reader = StateReader(section: "lpc", bytes: writer.bytes)
        try other.lpc.restoreState(from: &reader, version: 1)
        other.follow(router)
        #expect(other.powerBase == 0x600)
        router.line(device: 2).assert()
        #expect(machine.high == [11, 22])
    }
}

@Suite struct I440FXTests {
    @Test func powerManagementNeedsItsEnableBit() throws {
        let machine = Machine(), space = RecordedAddressSpace(), router = PCIInterruptRouter(.piix, machine: machine)
        let bridges = try I440FXBridges(router: router, power: SilentRegisters(), space: space)
        #expect(bridges.host.readConfiguration(offset: 0, width: .doubleWord) == 0x1237_8086)
        #expect(bridges.power.readConfiguration(offset: 0x5B, width: .byte) == 2)
        bridges.power.writeConfiguration(offset: 0x40, width: .doubleWord, value: 0x601)
        #expect(bridges.powerBase == nil)
        bridges.power.writeConfiguration(offset: 0x80, width: .byte, value: 1)
        #expect(bridges.powerBase == 0x600)
        bridges.isa.writeConfiguration(offset: 0x62, width: .byte, value: 0x0A)
        router.line(device: 3).assert()
        #expect(machine.high == [10])
    }
}

@Suite struct CFIFlashTests {
    @Test func theProbeOfEDK2FindsAChip() {
        // Writes 0x50, then 0x70, and looks whether the byte changed to the status.
        var chip = CFIFlash()
        #expect(chip.write(0x50, at: 0) == .none && chip.mode == .array)
        #expect(chip.write(0x70, at: 0) == .none && chip.mode == .status && chip.read(0) == 0x80)
        #expect(chip.write(0xFF, at: 0) == .none && chip.mode == .array)
    }

    @Test func programAndEraseNameWhatIsToChange() {
        var chip = CFIFlash()
        _ = chip.write(0x10, at: 0x123)
        #expect(chip.write(0x5A, at: 0x123) == .program(offset: 0x123, byte: 0x5A) && chip.mode == .status)
        _ = chip.write(0x20, at: 0x1234)
        #expect(chip.write(0xD0, at: 0x1234) == .erase(0x1000..<0x2000))
        _ = chip.write(0x20, at: 0)
        #expect(chip.write(0xFF, at: 0) == .none && chip.read(0) & 0x30 == 0x30)
        _ = chip.write(0x50, at: 0)
        _ = chip.write(0x70, at: 0)
        #expect(chip.read(0) == 0x80)
        _ = chip.write(0xE8, at: 0)
        _ = chip.write(1, at: 0)
        _ = chip.write(7, at: 5)
        _ = chip.write(8, at: 6)
        #expect(chip.write(0xD0, at: 0) == .programBuffer([(5, 7), (6, 8)]))
    }

    @Test func aBufferedProgramGoesOnAfterASave() throws {
        var chip = CFIFlash()
        for (byte, offset) in [(UInt8(0xE8), 0), (1, 0), (0x20, 5)] { _ = chip.write(byte, at: offset) }
        var writer = StateWriter()
        chip.save(into: &writer)
        for count in 0..<writer.bytes.count {
            var cut = StateReader(section: "flash", bytes: Array(writer.bytes[..<count]))
            #expect(throws: DeviceStateError.self) { try CFIFlash(from: &cut, version: 2) }
        }
        var reader = StateReader(section: "flash", bytes: writer.bytes)
        var restored = try CFIFlash(from: &reader, version: 2)
        // As a command the second byte would confirm the erase that the first began.
        #expect(restored.write(0xD0, at: 6) == .none)
        #expect(restored.write(0xD0, at: 0) == .programBuffer([(5, 0x20), (6, 0xD0)]))
    }

    @Test func whateverIsWrittenNothingTraps() {
        var chip = CFIFlash(), generator = SystemRandomNumberGenerator()
        for _ in 0..<20_000 {
            let commands: [UInt8] = [0x10, 0x20, 0x40, 0x50, 0x60, 0x70, 0x90, 0x98, 0xD0, 0xE8, 0xFF, UInt8.random(in: 0 ... .max, using: &generator)]
            let offset = Int.random(in: 0..<(1 << 19), using: &generator)
            if case .erase(let range) = chip.write(commands.randomElement(using: &generator) ?? 0, at: offset) {
                #expect(range.count == 4096 && range.contains(offset))
            }
            _ = chip.read(offset)
        }
    }

    @Test func theFileKeepsWhatTheGuestWrote() throws {
        var path = Array("/tmp/apus-flash.XXXXXX".utf8CString)
        let descriptor = mkstemp(&path)
        try #require(descriptor >= 0)
        defer { close(descriptor); unlink(path) }
        try #require(ftruncate(descriptor, 8192) == 0)
        let machine = Machine(), addresses = MemoryBus()
        let flash = try FlashDevice(sharing: descriptor, below: 0xFFC8_4000, machine: machine, addresses: addresses)
        #expect(machine.windows.withLock { $0 } == [1: GuestAddress(0xFFC8_2000)])
        func write(_ byte: UInt64, _ offset: UInt64) { addresses.write(GuestAddress(0xFFC8_2000 + offset), byteCount: 1, value: byte) }
        write(0x20, 0)
        #expect(machine.windows.withLock { $0.isEmpty })
        write(0xD0, 0)
        write(0x10, 4)
        write(0xA5, 4)
        write(0xFF, 0)
        #expect(machine.windows.withLock { $0.count } == 1)
        var bytes = [UInt8](repeating: 0, count: 6)
        #expect(pread(descriptor, &bytes, 6, 0) == 6 && bytes == [0xFF, 0xFF, 0xFF, 0xFF, 0xA5, 0xFF])
        // Bits only fall.
        write(0x10, 4)
        write(0x0F, 4)
        flash.reset()
        #expect(pread(descriptor, &bytes, 6, 0) == 6 && bytes[4] == 0x05)
    }
}
