import Chipset
import GuestMemory
import HostSystem
import MachineConfiguration
import MachineCore
import PCI
import Synchronization
import Testing

@testable import Machine

/// A whole Q35 board with system management mode, without a processor.
struct SystemManagementBoardTests {
    private static let hub = Q35Bridges.hubAddress

    private func make() throws -> BoardFixture {
        try BoardFixture(.q35, memoryMiB: 64) {
            $0.board.smm = true
            $0.firmware?.variables = Int(try BoardFixture.file(byteCount: 256 << 10))
            $0.firmware?.isSecure = true
        }
    }

    /// As OVMF closes and locks 16 MiB, and agrees on broadcast.
    private func lock(_ fixture: BoardFixture) {
        fixture.placePowerManagement(.q35)
        fixture.write(0x630, 0x21, .doubleWord)
        fixture.configure(Self.hub, 0x9E, 0x07, .byte)
        fixture.configure(Self.hub, 0x9D, 0x18, .byte)
        fixture.board.management?.requestFeatures([1, 0, 0, 0, 0, 0, 0, 0])
    }

    @Test func firmwareFindsAndAgreesOnFeatures() throws {
        let fixture = try make()
        #expect(fixture.firmwareFile("etc/smi/supported-features") == [1, 0, 0, 0, 0, 0, 0, 0])
        lock(fixture)
        #expect(fixture.firmwareFile("etc/smi/features-ok") == [1])
        #expect(fixture.firmwareDirectory["etc/smi/requested-features"]?.byteCount == 8)
    }

    @Test func withoutTheModeNothingOfItIsThere() throws {
        let fixture = try BoardFixture(.q35, memoryMiB: 64)
        fixture.placePowerManagement(.q35)
        #expect(fixture.firmwareDirectory.keys.allSatisfy { !$0.hasPrefix("etc/smi") } && fixture.board.management == nil)
        #expect(fixture.read(0x630, .doubleWord) == 0x21 && fixture.configuration(Self.hub, 0x50, .word) == 0)
        #expect(fixture.accelerator.concealable.withLock { $0.isEmpty })
    }

    @Test func aResetOpensWhatALockClosed() throws {
        let fixture = try make()
        lock(fixture)
        #expect(fixture.accelerator.concealed.withLock { $0 } == [0, 1, 2, 3, 4])
        #expect(throws: GuestMemoryFault.self) { try fixture.board.memory.load(UInt8.self, at: GuestAddress(48 << 20)) }
        try fixture.driver.perform(.reset)
        #expect(fixture.accelerator.concealed.withLock { $0 } == [0] && fixture.configuration(Self.hub, 0x9D, .byte) == 0x02)
        #expect(throws: Never.self) { try fixture.board.memory.load(UInt8.self, at: GuestAddress(48 << 20)) }
    }

    @Test func aSavedBoardIsLockedWhereItIsRestored() throws {
        let fixture = try make(), other = try make()
        lock(fixture)
        #expect(fixture.firmwareFile("etc/smi/features-ok") == [1])
        try other.machine.restoreState(try fixture.machine.saveState())
        #expect(other.accelerator.concealed.withLock { $0 } == [0, 1, 2, 3, 4])
        other.configure(Self.hub, 0x9D, 0x48, .byte)
        #expect(other.configuration(Self.hub, 0x9D, .byte) == 0x1A && other.read(0x630, .doubleWord) == 0x21)
        #expect(other.board.management?.agreeOnFeatures() == 1)
    }

    @Test func aBoardWithoutTheModeRefusesTheStateOfOneWithIt() throws {
        let fixture = try make(), other = try BoardFixture(.q35, memoryMiB: 64) { $0.firmware?.variables = Int(try BoardFixture.file(byteCount: 256 << 10)) }
        let file = try fixture.machine.saveState()
        let refusal = #expect(throws: MachineStateError.self) { try other.machine.openState(file.rawValue) }
        #expect(refusal?.section == "smm")
    }
}
