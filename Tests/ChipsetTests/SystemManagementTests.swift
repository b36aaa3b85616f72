import GuestMemory
import MachineCore
import MachineTesting
import PCI
import Synchronization
import Testing

@testable import Chipset

/// An accelerator that notes which pieces of RAM it was told to conceal.
private final class Machine: VirtualMachine {
    let concealed = Mutex<Set<Int>>([])
    let refuses = Mutex(false)

    func setConcealed(_ piece: Int, _ isConcealed: Bool) throws(AcceleratorError) {
        guard !refuses.withLock({ $0 }) else { throw refusal }
        concealed.withLock { if isConcealed { $0.insert(piece) } else { $0.remove(piece) } }
    }
    func register(eventDescriptor: CInt, at address: DoorbellAddress, width: AccessWidth?) throws(AcceleratorError) {}
    func unregister(eventDescriptor: CInt, at address: DoorbellAddress, width: AccessWidth?) throws(AcceleratorError) {}
    func makeMessageInterrupt() throws(AcceleratorError) -> any MessageInterrupt { throw refusal }
    func map(_ memory: GuestMemory) throws(AcceleratorError) {}
    func mapWindow(_ window: Int, _ pages: HostPages, at base: GuestAddress, isReadOnly: Bool) throws(AcceleratorError) {}
    func unmapWindow(_ window: Int) throws(AcceleratorError) {}
    func show(_ model: ProcessorModel) throws(AcceleratorError) {}
    func makeVCPU(index: Int, topology: ProcessorTopology) throws(AcceleratorError) -> any VirtualCPU { throw refusal }
    func setLine(gsi: UInt32, isAsserted: Bool) {}
    func setTimerInterrupt(isConnected: Bool) throws(AcceleratorError) {}
    func stopClock() throws(AcceleratorError) {}
    func startClock() throws(AcceleratorError) {}
    func saveState() throws(AcceleratorError) -> [UInt8] { [] }
    func restoreState(_ state: [UInt8]) throws(AcceleratorError) {}

    private var refusal: AcceleratorError { AcceleratorError("make", subject: "anything", reason: "as the test asked") }
}

@Suite struct SMRAMControlTests {
    @Test func nothingButTheLegacySegmentIsConcealedAtFirst() {
        let control = SMRAMControl()
        #expect(control.smram == 0x02 && control.extended == 0x38 && control.concealsLegacy && control.concealedMiB == 0 && !control.isLocked)
    }

    /// TSEG_SZ and megabytes; G_SMRAME (bit 3 of SMRAM) and T_EN (bit 0 of ESMRAMC) must both be there.
    @Test(arguments: [(UInt8(0), 1), (1, 2), (2, 8), (3, 16)]) func theTopSegmentHasFourSizes(size: UInt8, miB: Int) {
        var control = SMRAMControl()
        control.write(smram: 0x08, extended: size << 1 | 1)
        #expect(control.concealedMiB == miB && control.extended == 0x38 | size << 1 | 1)
        control.write(smram: 0x08, extended: size << 1)
        #expect(control.concealedMiB == 0)
        control.write(smram: 0x00, extended: size << 1 | 1)
        #expect(control.concealedMiB == 0)
    }

    @Test func aLockClosesAndOnlyAResetOpens() {
        var control = SMRAMControl()
        control.write(smram: 0x48, extended: 0x07)
        #expect(!control.concealsLegacy)
        control.write(smram: 0x58, extended: 0x07)
        #expect(control.isLocked && control.concealsLegacy && control.concealedMiB == 16)
        let locked = control
        for value: UInt8 in [0x00, 0x40, 0x48, 0x4F, 0x8A, 0xDF] {
            control.write(smram: value, extended: value)
            #expect(control == locked)
        }
        // D_CLS, which the lock leaves.
        control.write(smram: 0xFF, extended: 0)
        #expect(control.smram == locked.smram | 0x20 && control.concealedMiB == 16)
        control.reset()
        #expect(control == SMRAMControl())
    }

    @Test func allOnesAskForTheExtendedSize() {
        var control = SMRAMControl()
        control.write(extendedSize: 7)
        #expect(control.extendedSize == 7)
        control.write(extendedSize: 0xFFFF)
        #expect(control.extendedSize == 16)
    }
}

@Suite struct SMIControlTests {
    private func write(_ value: UInt32, to control: inout SMIControl, at offset: Int = 0) {
        for index in 0..<4 { control.write(UInt8(truncatingIfNeeded: value >> UInt32(8 * index)), at: offset + index) }
    }

    @Test func aCommandInterruptsWhereBothEnablesAre() {
        var control = SMIControl()
        #expect(control.command() == nil)
        for value: UInt32 in [0x01, 0x20] {
            write(value, to: &control)
            #expect(control.command() == nil)
        }
        write(0x21, to: &control)
        #expect(control.command() == .writer)
        #expect(control.byte(at: 4) == 0x20)
        write(0x20, to: &control, at: 4)
        #expect(control.byte(at: 4) == 0)
    }

    @Test func aLockKeepsTheGlobalEnableAndNothingElse() {
        var control = SMIControl()
        write(0x21, to: &control)
        control.lock()
        write(0, to: &control)
        #expect(control.enable == 1 && control.command() == nil)
        write(0xFFFF_FFFF, to: &control)
        #expect(control.enable == 0xFFFF_FF7D && control.command() == .writer)
        control.reset()
        #expect(control == SMIControl())
    }

    @Test func whatIsThereIsAgreedOnOnce() {
        var control = SMIControl()
        write(0x21, to: &control)
        control.request(0b10)
        #expect(control.agree() == 0 && control.negotiated == nil)
        control.request(0b01)
        #expect(control.command() == .writer)
        #expect(control.agree() == 1 && control.command() == .all)
        control.request(0)
        #expect(control.agree() == 1 && control.command() == .all)
    }

    @Test func savedStateIsReadBackWhole() throws {
        var control = SMIControl()
        write(0x21, to: &control)
        control.lock()
        control.request(1)
        _ = (control.agree(), control.command())
        var writer = StateWriter()
        control.save(into: &writer)
        var reader = StateReader(section: "smm", bytes: writer.bytes)
        #expect(try SMIControl(from: &reader) == control && reader.remaining == 0)
        for count in 0..<writer.bytes.count {
            var cut = StateReader(section: "smm", bytes: Array(writer.bytes[..<count]))
            #expect(throws: DeviceStateError.self) { try SMIControl(from: &cut) }
        }
        var bytes = writer.bytes
        bytes[bytes.count - 8] = 2
        var foreign = StateReader(section: "smm", bytes: bytes)
        #expect(throws: DeviceStateError.self) { try SMIControl(from: &foreign) }
    }

    @Test func whateverIsWrittenNothingTraps() {
        var control = SMIControl(), random = Seeded(5)
        for _ in 0..<2000 {
            control.write(UInt8.random(in: 0 ... .max, using: &random), at: Int.random(in: 0..<8, using: &random))
            _ = control.byte(at: Int.random(in: 0..<8, using: &random))
            if Int.random(in: 0..<50, using: &random) == 0 { control.lock() }
            _ = control.command()
        }
    }
}

/// A Q35 board's bridges around RAM of 64 MiB.
@Suite struct SystemManagementTests {
    private static let miB: UInt64 = 1 << 20
    private let machine = Machine(), memory: GuestMemory, management: SystemManagement, bridges: Q35Bridges, block: ICH9PowerBlock

    init() throws {
        memory = try GuestMemory(byteCount: 64 << 20)
        management = try SystemManagement(machine: machine, memory: memory)
        let power = PowerManagement(clock: HandClock(), sci: Wire(), power: Supply())
        block = ICH9PowerBlock(power, management: management)
        bridges = try Q35Bridges(
            router: PCIInterruptRouter(.ich9, machine: machine), window: PCIExpressWindow(PCIBus()), power: block, space: RecordedAddressSpace(),
            management: management)
    }

    private func reaches(_ address: UInt64) -> Bool { (try? memory.load(UInt8.self, at: GuestAddress(address))) != nil }
    private func write(_ offset: Int, _ value: UInt64, _ width: AccessWidth = .byte) {
        bridges.hub.writeConfiguration(offset: offset, width: width, value: value)
    }
    private func read(_ offset: Int, _ width: AccessWidth = .byte) -> UInt64 { bridges.hub.readConfiguration(offset: offset, width: width) }

    @Test func thePiecesMakeEverySizeOfTheTopSegment() {
        let pieces = SystemManagement.pieces(lowMemoryEnd: 64 << 20)
        #expect(pieces.first == 0xA_0000..<0xC_0000)
        #expect(pieces.dropFirst().map(\.lowerBound) == [48, 56, 62, 63].map { $0 * Self.miB })
        #expect(pieces.dropFirst().map(\.upperBound) == [56, 62, 63, 64].map { $0 * Self.miB })
    }

    @Test func devicesReachWhatTheRegistersLeave() throws {
        #expect(machine.concealed.withLock { $0 } == [0] && !reaches(0xA_0000) && reaches(0x9_FFFF) && reaches(0xC_0000))
        write(0x9D, 0x48)
        #expect(machine.concealed.withLock { $0 }.isEmpty && reaches(0xA_0000))
        write(0x9E, 0x05)
        #expect(machine.concealed.withLock { $0 } == [2, 3, 4] && reaches(56 * Self.miB - 1) && !reaches(56 * Self.miB) && !reaches(64 * Self.miB - 1))
        // Across the edge is as bad as beyond it.
        #expect(throws: GuestMemoryFault.self) { try memory.load(UInt64.self, at: GuestAddress(56 * Self.miB - 4)) }
        let visible = memory.visibleRegions
        #expect(visible.map(\.byteCount) == [56 * Self.miB] && visible.map(\.fileOffset) == [0])
        write(0x9D, 0x18)
        write(0x9E, 0)
        write(0x9D, 0x48)
        #expect(read(0x9D) == 0x1A && read(0x9E) == 0x3D)
        #expect(machine.concealed.withLock { $0 } == [0, 2, 3, 4])
        #expect(memory.visibleRegions.map(\.base.rawValue) == [0, 0xC_0000] && memory.visibleRegions.map(\.fileOffset) == [0, 0xC_0000])
        bridges.hub.reset()
        #expect(read(0x9D) == 0x02 && machine.concealed.withLock { $0 } == [0] && reaches(63 * Self.miB))
    }

    @Test func firmwareFindsTheExtendedSizeAndItsOwnNotes() {
        write(0x50, 0xFFFF, .word)
        #expect(read(0x50, .word) == 16)
        write(0xAC, 0x1F00_0000, .doubleWord)
        #expect(read(0xAC, .doubleWord) == 0x1F00_0000)
    }

    @Test func aLockedEnableStaysUntilTheReset() {
        block.write(offset: 0x30, width: .doubleWord, value: 0x21)
        bridges.lpc.writeConfiguration(offset: 0xA0, width: .word, value: 0x10)
        block.write(offset: 0x30, width: .doubleWord, value: 0x20)
        bridges.lpc.writeConfiguration(offset: 0xA0, width: .word, value: 0)
        #expect(block.read(offset: 0x30, width: .doubleWord) == 0x21 && bridges.lpc.readConfiguration(offset: 0xA0, width: .word) == 0x10)
        bridges.lpc.reset()
        #expect(block.read(offset: 0x30, width: .doubleWord) == 0 && bridges.lpc.readConfiguration(offset: 0xA0, width: .word) == 0)
    }

    @Test func commandsReachTheProcessorsAndACPIsDoNot() {
        let told = Recorded<SMIControl.Target>(), management = management
        management.connect { told.add($0) } failure: { _ in }
        let power = PowerManagement(clock: HandClock(), sci: Wire(), power: Supply())
        let port = SMICommandPort(power, onCommand: management.note)
        block.write(offset: 0x30, width: .doubleWord, value: 0x21)
        port.write(offset: 0, width: .byte, value: 0x02)
        port.write(offset: 0, width: .byte, value: 0x55)
        #expect(told.all == [.writer] && block.read(offset: 0x34, width: .doubleWord) == 0x20)
        management.requestFeatures([1, 0, 0, 0, 0, 0, 0, 0])
        #expect(management.agreeOnFeatures() == 1)
        port.write(offset: 0, width: .byte, value: 0)
        #expect(told.all == [.writer, .all])
    }

    @Test func aRestoredBoardConcealsWhatTheSavedOneDid() throws {
        write(0x9D, 0x18)
        write(0x9E, 0x07)
        #expect(read(0x9E) == 0x38)
        bridges.hub.reset()
        write(0x9E, 0x07)
        write(0x9D, 0x18)
        let other = try SystemManagementTests()
        #expect(try restore(savedBytes(bridges.hub), into: other.bridges.hub) == 0)
        #expect(try restore(savedBytes(management), into: other.management) == 0)
        other.bridges.follow(PCIInterruptRouter(.ich9, machine: other.machine))
        #expect(other.machine.concealed.withLock { $0 } == [0, 1, 2, 3, 4])
        other.write(0x9E, 0)
        #expect(other.read(0x9E) == 0x3F)
    }

    @Test func anAcceleratorThatRefusesIsReported() {
        let told = Recorded<String>()
        management.connect { _ in } failure: { told.add($0) }
        machine.refuses.withLock { $0 = true }
        write(0x9E, 0x01)
        write(0x9D, 0x08)
        #expect(told.all.count == 1 && told.all.first?.contains("as the test asked") == true)
    }
}

private final class Recorded<Value: Sendable>: Sendable {
    private let list = Mutex<[Value]>([])
    var all: [Value] { list.withLock { $0 } }
    func add(_ value: Value) { list.withLock { $0.append(value) } }
}
