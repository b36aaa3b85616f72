import GuestMemory
import MachineCore
import Synchronization
import Testing

@testable import PCI

private final class Window: BusDevice {
    func read(offset: UInt64, width: AccessWidth) -> UInt64 { 0 }
    func write(offset: UInt64, width: AccessWidth, value: UInt64) {}
}
private final class Space: PCIAddressSpace {
    let log = Mutex<[String]>([])
    func map(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) {
        log.withLock { $0.append("map \(base)+\(byteCount)") }
    }
    func unmap(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) {
        log.withLock { $0.append("unmap \(base)+\(byteCount)") }
    }
    func mapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16) {
        log.withLock { $0.append("map ports \(base)+\(count)") }
    }
    func unmapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16) {
        log.withLock { $0.append("unmap ports \(base)+\(count)") }
    }
}
private final class Interrupt: MessageInterrupt {
    let count = Atomic<Int>(0)
    let messages = Mutex<[InterruptMessage?]>([])
    func setMessage(_ message: InterruptMessage?) throws(AcceleratorError) { messages.withLock { $0.append(message) } }
    func trigger() { count.wrappingAdd(1, ordering: .relaxed) }
    var eventDescriptor: CInt? { 7 }
}
private final class Factory: MessageInterruptFactory {
    let made = Mutex<[Interrupt]>([])
    func makeMessageInterrupt() throws(AcceleratorError) -> any MessageInterrupt {
        let interrupt = Interrupt()
        made.withLock { $0.append(interrupt) }
        return interrupt
    }
}

private func sample() -> PCIConfigurationSpace {
    var space = PCIConfigurationSpace(PCIIdentity(vendor: 0x1AF4, device: 0x1042, revision: 1, classCode: 0x010000))
    space.addBAR(BaseAddressRegister(index: 0, kind: .memory64, byteCount: 0x8000))
    space.addBAR(BaseAddressRegister(index: 2, kind: .memory32, byteCount: 0x1000))
    return space
}

@Suite struct ConfigurationSpaceTests {
    @Test func headerShowsIdentity() {
        let space = sample()
        #expect(space.read(offset: 0, width: .doubleWord) == 0x1042_1AF4)
        #expect(space.read(offset: 8, width: .doubleWord) == 0x0100_0001)
        #expect(space.read(offset: 0x2C, width: .doubleWord) == 0x1100_1AF4)
        #expect(space.read(offset: 254, width: .doubleWord) == 0xFFFF_FFFF)
    }

    @Test func allOnesWrittenToABARReadBackItsSize() {
        var space = sample()
        _ = space.write(offset: 0x10, width: .doubleWord, value: 0xFFFF_FFFF)
        _ = space.write(offset: 0x14, width: .doubleWord, value: 0xFFFF_FFFF)
        _ = space.write(offset: 0x18, width: .doubleWord, value: 0xFFFF_FFFF)
        _ = space.write(offset: 0x1C, width: .doubleWord, value: 0xFFFF_FFFF)
        #expect(space.read(offset: 0x10, width: .doubleWord) == 0xFFFF_8004)
        #expect(space.read(offset: 0x14, width: .doubleWord) == 0xFFFF_FFFF)
        #expect(space.read(offset: 0x18, width: .doubleWord) == 0xFFFF_F000)
        #expect(space.read(offset: 0x1C, width: .doubleWord) == 0)
    }

    @Test func nothingIsDecodedUntilMemorySpaceIsOn() {
        var space = sample()
        space.place(space.bars[0], at: GuestAddress(0x1_C000_0000))
        #expect(space.decodedRanges.isEmpty)
        let mayHaveMoved = space.write(offset: 4, width: .word, value: 0x0002)
        #expect(mayHaveMoved)
        #expect(space.decodedRanges == [DecodedRange(bar: 0, base: GuestAddress(0x1_C000_0000), byteCount: 0x8000)])
    }

    @Test func identityAndCapabilitiesAreReadOnly() {
        var space = sample()
        let offset = space.addCapability(id: 0x11, body: [1, 2, 3, 4], writable: [0, 0xC0])
        for position in stride(from: 0, to: 256, by: 4) where !(0x10..<0x28).contains(position) {
            _ = space.write(offset: position, width: .doubleWord, value: 0xFFFF_FFFF)
        }
        #expect(space.read(offset: 0, width: .doubleWord) == 0x1042_1AF4)
        #expect(space.read(offset: 0x34, width: .byte) == UInt64(offset))
        #expect(space.read(offset: offset, width: .doubleWord) == 0xC201_0011)
        #expect(space.read(offset: 6, width: .word) == 0x10)
    }

    @Test func savedConfigurationReadsBack() throws {
        var space = sample()
        space.place(space.bars[0], at: GuestAddress(0xC000_0000))
        _ = space.write(offset: 4, width: .word, value: 6)
        var writer = StateWriter()
        space.save(into: &writer)
        var other = sample()
        var reader = StateReader(section: "pci", bytes: writer.bytes)
        try other.restore(from: &reader)
        #expect(other.decodedRanges == space.decodedRanges)
        #expect(other.command == 6)
    }

    @Test func movedBARIsUnmappedThenMapped() {
        var space = sample()
        var windows = BARWindows()
        let bus = Space()
        let window = Window()
        windows.connect(to: bus)
        _ = space.write(offset: 4, width: .word, value: 2)
        space.place(space.bars[0], at: GuestAddress(0xC000_0000))
        windows.update(to: space.decodedRanges) { _ in window }
        space.place(space.bars[0], at: GuestAddress(0xC800_0000))
        windows.update(to: space.decodedRanges) { _ in window }
        _ = space.write(offset: 4, width: .word, value: 0)
        windows.update(to: space.decodedRanges) { _ in window }
        #expect(
            bus.log.withLock { $0 } == [
                "map 0xc0000000+32768", "unmap 0xc0000000+32768", "map 0xc8000000+32768", "unmap 0xc8000000+32768",
            ])
    }
}

@Suite struct ConfigurationAccessTests {
    private func bus() throws -> PCIBus {
        let bus = PCIBus()
        try bus.attach(HostBridge(), at: HostBridge.address)
        return bus
    }

    @Test func portsReachTheHostBridgeInEveryWidth() throws {
        let ports = PCIConfigurationPorts(try bus())
        ports.write(offset: 0, width: .doubleWord, value: 0x8000_0000)
        #expect(ports.read(offset: 0, width: .doubleWord) == 0x8000_0000)
        #expect(ports.read(offset: 4, width: .doubleWord) == 0x29C0_8086)
        #expect(ports.read(offset: 6, width: .word) == 0x29C0)
        #expect(ports.read(offset: 5, width: .byte) == 0x80)
        ports.write(offset: 0, width: .doubleWord, value: 0x8000_0008)
        #expect(ports.read(offset: 7, width: .byte) == 0x06)
    }

    @Test func absentFunctionsAndADisabledLatchReadAllOnes() throws {
        let ports = PCIConfigurationPorts(try bus())
        #expect(ports.read(offset: 4, width: .doubleWord) == 0xFFFF_FFFF)
        ports.write(offset: 0, width: .doubleWord, value: 0x8000_0800)
        #expect(ports.read(offset: 4, width: .word) == 0xFFFF)
        ports.write(offset: 0, width: .byte, value: 0x80)
        #expect(ports.read(offset: 0, width: .doubleWord) == 0x8000_0800)
    }

    @Test func expressWindowReachesTheSameRegisters() throws {
        let window = PCIExpressWindow(try bus())
        #expect(window.read(offset: 0, width: .doubleWord) == 0x29C0_8086)
        #expect(window.read(offset: 0x8000, width: .doubleWord) == 0xFFFF_FFFF)
        #expect(window.read(offset: 0x100, width: .doubleWord) == 0xFFFF_FFFF)
        #expect(window.read(offset: 3, width: .word) == 0xFFFF)
        #expect(window.read(offset: .max, width: .byte) == 0xFF)
    }

    @Test func secondFunctionAtAnAddressIsRefused() throws {
        let bus = try bus()
        #expect(throws: PCIBusError.self) { try bus.attach(HostBridge(), at: HostBridge.address) }
    }
}

@Suite struct MSIXTests {
    private func table(_ msix: MSIXInterrupts, _ vector: Int, control: UInt64) {
        msix.writeTable(offset: vector * 16, width: .doubleWord, value: 0xFEE0_1000)
        msix.writeTable(offset: vector * 16 + 8, width: .doubleWord, value: 0x40)
        msix.writeTable(offset: vector * 16 + 12, width: .doubleWord, value: control)
    }

    @Test func entriesAreMaskedAfterReset() {
        let table = MSIXTable(vectorCount: 2)
        #expect(table.readTable(offset: 12, width: .doubleWord) == 1)
        #expect(table.readTable(offset: 32, width: .doubleWord) == 0)
        #expect(table.readTable(offset: 2, width: .word) == 0)
    }

    @Test func interruptOfAMaskedVectorWaitsForItsUnmasking() throws {
        let factory = Factory()
        let msix = try MSIXInterrupts(vectorCount: 2, factory: factory)
        msix.setControl(0x8000)
        msix.trigger(1)
        #expect(msix.readPending(offset: 0, width: .doubleWord) == 2)
        #expect(factory.made.withLock { $0[1].count.load(ordering: .relaxed) } == 0)
        table(msix, 1, control: 0)
        #expect(factory.made.withLock { $0[1].count.load(ordering: .relaxed) } == 1)
        #expect(msix.readPending(offset: 0, width: .doubleWord) == 0)
        msix.trigger(1)
        #expect(factory.made.withLock { $0[1].count.load(ordering: .relaxed) } == 2)
        msix.trigger(5)
    }

    @Test func functionMaskHoldsEveryVector() throws {
        let factory = Factory()
        let msix = try MSIXInterrupts(vectorCount: 1, factory: factory)
        table(msix, 0, control: 0)
        msix.setControl(0xC000)
        msix.trigger(0)
        #expect(factory.made.withLock { $0[0].count.load(ordering: .relaxed) } == 0)
        msix.setControl(0x8000)
        #expect(factory.made.withLock { $0[0].count.load(ordering: .relaxed) } == 1)
    }

    @Test func unchangedMessageIsNotRoutedAgain() throws {
        let factory = Factory()
        let msix = try MSIXInterrupts(vectorCount: 1, factory: factory)
        msix.setControl(0x8000)
        table(msix, 0, control: 0)
        table(msix, 0, control: 1)
        table(msix, 0, control: 0)
        #expect(factory.made.withLock { $0[0].messages.withLock { $0.count } } == 1)
    }

    @Test func directVectorIsCutOffWhileMaskedAndSentOnceAfter() throws {
        let factory = Factory()
        let msix = try MSIXInterrupts(vectorCount: 1, factory: factory)
        msix.setControl(0x8000)
        table(msix, 0, control: 0)
        #expect(msix.directDescriptor(0) == 7)
        table(msix, 0, control: 1)
        table(msix, 0, control: 0)
        let messages = factory.made.withLock { $0[0].messages.withLock { $0 } }
        #expect(messages.map { $0 == nil } == [false, true, false])
        #expect(factory.made.withLock { $0[0].count.load(ordering: .relaxed) } == 1)
    }

    @Test func savedTableReadsBack() throws {
        var table = MSIXTable(vectorCount: 3)
        _ = table.writeTable(offset: 16, width: .quadWord, value: 0x1_FEE0_0000)
        _ = table.writeTable(offset: 28, width: .doubleWord, value: 0)
        table.setControl(0x8000)
        table.setPending(2)
        var writer = StateWriter()
        table.save(into: &writer)
        var other = MSIXTable(vectorCount: 3)
        var reader = StateReader(section: "msix", bytes: writer.bytes)
        try other.restore(from: &reader)
        #expect(other == table)
    }
}
