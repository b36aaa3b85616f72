import Chipset
import GuestMemory
import Glibc
import HostSystem
import MachineConfiguration
import MachineCore
import MonitorProtocol
import PCI
import Synchronization
import Testing

@testable import Machine

/// What a board has only where its description names it.
struct BoardExtrasTests {
    private static let types: [MachineType] = [.direct, .pc, .q35]
    private static let first = MachineUUID("3f0a2b1c-0001-4c4b-9f5e-0123456789ab"), second = MachineUUID("3f0a2b1c-0001-4c4b-9f5e-0123456789ac")
    /// The first as it lies in memory.
    private static let firstBytes: [UInt8] = [0x1C, 0x2B, 0x0A, 0x3F, 1, 0, 0x4B, 0x4C, 0x9F, 0x5E, 1, 0x23, 0x45, 0x67, 0x89, 0xAB]

    private static func everything(_ configuration: inout GuestConfiguration) throws {
        configuration.board = BoardConfiguration(
            hpet: true, watchdog: .reset, panic: true, generationID: first, debugConsole: Int(try BoardFixture.file(byteCount: 0)), debugExit: true)
        if configuration.type != .direct {
            configuration.disks = [DiskConfiguration(id: "floppy", fd: Int(try BoardFixture.file(byteCount: 1440 << 10)), bus: .fdc)]
        }
    }

    @Test(arguments: types) func whatIsNotNamedIsNotThere(type: MachineType) throws {
        let fixture = try BoardFixture(type)
        for port: UInt16 in [0xE9, 0xF4, 0x505, 0x3F2, 0x3F4, 0x3F7] { #expect(fixture.read(port) == 0xFF, "port \(port)") }
        #expect(fixture.readMemory(0xFED0_0000) == 0xFFFF_FFFF && fixture.functions(0x25AB_8086).isEmpty)
        if type != .direct {
            #expect(fixture.firmwareDirectory.keys.allSatisfy { !$0.contains("vmgenid") })
            fixture.write(0x70, 0x10)
            #expect(fixture.read(0x71) == 0)
        }
    }

    @Test(arguments: types) func theHPETStandsInForPITAndRTCUntilTheReset(type: MachineType) throws {
        let fixture = try BoardFixture(type) { $0.board.hpet = true }
        // As in a machine that runs: the board's time goes on.
        fixture.board.time.start()
        #expect(fixture.readMemory(0xFED0_0000) == 0x8086_A201)
        // Where timer 0 may go: of a pc's board, input 2 only.
        #expect(fixture.readMemory(0xFED0_0104) == (type == .pc ? 0x4 : 0x00FF_0104))
        func driven(_ gsi: UInt32) -> Bool { fixture.accelerator.lines.withLock { $0[gsi] } ?? false }
        // The RTC's update interrupt, once a second.
        func enableClock() {
            fixture.write(0x70, 0x0B)
            fixture.write(0x71, 0x12)
        }
        fixture.writeMemory(0xFED0_0010, 3)
        #expect(fixture.accelerator.isTimerConnected.withLock { !$0 })
        enableClock()
        fixture.write(0x70, 0x0C)
        #expect(eventually { fixture.read(0x71) & 0x10 != 0 } && !driven(8))
        // Level, enabled, 1 ms ahead: the timer that stands in for the RTC.
        fixture.writeMemory(0xFED0_0120, 0x06)
        fixture.writeMemory(0xFED0_0128, fixture.readMemory(0xFED0_00F0, 8) + 100_000, 8)
        #expect(eventually { driven(8) })
        fixture.writeMemory(0xFED0_0020, 2)
        #expect(!driven(8))
        try fixture.driver.perform(.reset)
        #expect(fixture.accelerator.isTimerConnected.withLock { $0 } && fixture.readMemory(0xFED0_0010) == 0)
        fixture.board.time.start()
        enableClock()
        #expect(eventually { driven(8) })
    }

    @Test(arguments: types) func aWatchdogThatIsNotFedResetsTheMachine(type: MachineType) throws {
        let fixture = try BoardFixture(type) { $0.board.watchdog = .reset }
        let address = try #require(fixture.functions(0x25AB_8086).first)
        #expect(fixture.configuration(address, 0x08) >> 8 == 0x08_80_00)
        if type != .direct { fixture.configure(address, 0x10, 0xFEB0_0000) }
        fixture.configure(address, 0x04, 2, .word)
        let base = fixture.configuration(address, 0x10) & ~0xF
        try fixture.driver.perform(.resume)
        for (offset, value) in [(0x00, 1), (0x04, 1)] as [(UInt64, UInt64)] {
            fixture.writeMemory(base + 0x0C, 0x80, 2)
            fixture.writeMemory(base + 0x0C, 0x86, 2)
            fixture.writeMemory(base + offset, value)
        }
        fixture.configure(address, 0x68, 2, .byte)
        let isReset = eventually {
            fixture.driver.serveGuestRequests()
            return fixture.notices.update { $0 }.contains(.reset(way: "watchdog", byGuest: true))
        }
        #expect(isReset && fixture.driver.state == .running)
        #expect(fixture.notices.update { $0 }.contains(.watchdogExpired(.reset)))
        #expect(fixture.configuration(address, 0x68, .byte) == 0)
    }

    @Test(arguments: types) func aPanicIsAStateAndNewsOfTheMachine(type: MachineType) throws {
        let fixture = try BoardFixture(type) { $0.board.panic = true }
        #expect(fixture.read(0x505) == 7)
        fixture.write(0x505, 2)
        fixture.driver.serveGuestRequests()
        #expect(fixture.driver.state == .paused && fixture.notices.update { $0 }.last == .guestCrashLoaded)
        fixture.write(0x505, 1)
        fixture.driver.serveGuestRequests()
        #expect(fixture.driver.state == .internalError && fixture.driver.breakdown == "the guest's kernel panicked")
        let off = try BoardFixture(type) {
            $0.board.panic = true
            $0.onGuestCrash = .shutdown
        }
        off.write(0x505, 1)
        off.driver.serveGuestRequests()
        #expect(off.driver.state == .shutdown && off.driver.shutdownReason == "guest-panic")
    }

    @Test func debugPortsKeepAFileAndAnExitStatus() throws {
        let log = try BoardFixture.file(byteCount: 0)
        let fixture = try BoardFixture(.direct) { $0.board = BoardConfiguration(debugConsole: Int(dup(log)), debugExit: true) }
        #expect(fixture.read(0xE9) == 0xE9)
        for byte in "hello\n".utf8 { fixture.write(0xE9, UInt64(byte)) }
        var bytes = [UInt8](repeating: 0, count: 16)
        #expect(eventually { pread(log, &bytes, bytes.count, 0) == 6 } && Array(bytes[..<6]) == Array("hello\n".utf8))
        close(log)
        fixture.write(0xF4, 0x10, .doubleWord)
        fixture.driver.serveGuestRequests()
        #expect(fixture.driver.state == .ended && fixture.driver.guestExitStatus == 0x21)
    }

    /// Where the id is, told to the machine as firmware does.
    private func place(_ fixture: BoardFixture, at address: UInt64) throws {
        let (key, byteCount) = try #require(fixture.firmwareDirectory["etc/vmgenid_addr"])
        #expect(byteCount == 8)
        let memory = fixture.board.memory
        try memory.write([0, UInt8(key), 0, 0x18, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0x20, 0], at: GuestAddress(0x1000))
        try memory.store(address.littleEndian, at: GuestAddress(0x2000))
        fixture.write(0x518, UInt64(UInt32(0x1000).byteSwapped), .doubleWord)
        #expect(try memory.load(UInt32.self, at: GuestAddress(0x1000)) == 0)
    }

    @Test(arguments: [MachineType.pc, .q35]) func aGuestThatGoesOnWithAnotherGenerationIDIsTold(type: MachineType) throws {
        let fixture = try BoardFixture(type) { $0.board.generationID = Self.first }
        let page = try #require(fixture.firmwareFile("etc/vmgenid_guid"))
        #expect(page.count == 4096 && Array(page[40..<56]) == Self.firstBytes && page[..<40].allSatisfy { $0 == 0 })
        try place(fixture, at: 0x30_0028)
        try fixture.board.memory.write(page, at: GuestAddress(0x30_0000))
        fixture.placePowerManagement(type)
        let enables: UInt16 = type == .pc ? 0xAFE2 : 0x628
        fixture.write(enables, 1 << 5)
        let saved = try fixture.machine.saveState()
        #expect(fixture.accelerator.lines.withLock { $0[9] } != true)

        for (id, isNew) in [(Self.first, false), (Self.second, true)] {
            let other = try BoardFixture(type) { $0.board.generationID = id }
            try other.board.memory.write(page, at: GuestAddress(0x30_0000))
            try other.machine.restoreState(saved)
            let last = try other.board.memory.load(UInt8.self, at: GuestAddress(0x30_0028 + 15))
            #expect(last == (isNew ? 0xAC : 0xAB))
            #expect((other.accelerator.lines.withLock { $0[9] } == true) == isNew)
            #expect(other.read(enables - (type == .pc ? 2 : 8)) == (isNew ? 1 << 5 : 0))
        }
        // An address outside of RAM is the guest's mistake.
        try place(fixture, at: 0xFFFF_FFFF_FFFF_FFF8)
        let misled = try BoardFixture(type) { $0.board.generationID = Self.second }
        try misled.machine.restoreState(try fixture.machine.saveState())
        #expect(misled.accelerator.lines.withLock { $0[9] } != true)
    }

    @Test func withoutFirmwareTheGenerationIDLiesWhereTheTablesSay() throws {
        let fixture = try BoardFixture(.direct) { $0.board.generationID = Self.first }
        try fixture.board.extras.generation?.place()
        #expect(try fixture.board.memory.bytes(at: GuestAddress(0xF_F028), count: 16) == Self.firstBytes)
        let saved = try fixture.machine.saveState()
        let other = try BoardFixture(.direct) { $0.board.generationID = Self.second }
        other.write(0x628, 1 << 5)
        try other.machine.restoreState(saved)
        #expect(try other.board.memory.load(UInt8.self, at: GuestAddress(0xF_F028 + 15)) == 0xAC)
        #expect(other.read(0x620) == 1 << 5)
    }

    @Test(arguments: [MachineType.pc, .q35]) func aFloppysSectorComesByDMA(type: MachineType) throws {
        let fixture = try BoardFixture(type) { configuration in
            let file = try BoardFixture.file((0..<1024).map { UInt8(truncatingIfNeeded: $0 / 512 + 0x41) }, byteCount: 1440 << 10)
            configuration.disks = [DiskConfiguration(id: "floppy", fd: Int(file), bus: .fdc, bootIndex: 0)]
        }
        fixture.write(0x70, 0x10)
        #expect(fixture.read(0x71) == 0x40)
        let isa = type == .pc ? "1" : "1f"
        let order = String(decoding: try #require(fixture.firmwareFile("bootorder")), as: UTF8.self)
        #expect(order.hasPrefix("/pci@i0cf8/isa@\(isa)/fdc@03f0/floppy@0\n"))
        // Channel 2 single, to memory, 512 bytes at 0x4000; unmasked. Channel 4 passes the first controller on.
        for (port, value) in [(0xD6, 0xC0), (0xD4, 0), (0x0C, 0), (0x04, 0x00), (0x04, 0x40), (0x81, 0), (0x05, 0xFF), (0x05, 0x01), (0x0B, 0x46), (0x0A, 2)] as [(UInt16, UInt64)] {
            fixture.write(port, value)
        }
        // Out of reset with the motor on; sense interrupts of the reset; specify; recalibrate; then sector 2 of track 0.
        fixture.write(0x3F2, 0x00)
        fixture.write(0x3F2, 0x1C)
        func command(_ bytes: [UInt64], answers: Int) -> [UInt64] {
            for byte in bytes {
                #expect(eventually { fixture.read(0x3F4) & 0xC0 == 0x80 })
                fixture.write(0x3F5, byte)
            }
            return (0..<answers).map { _ in
                #expect(eventually { fixture.read(0x3F4) & 0xC0 == 0xC0 })
                return fixture.read(0x3F5)
            }
        }
        for _ in 0..<4 { _ = command([0x08], answers: 2) }
        _ = command([0x03, 0xAF, 0x02], answers: 0)
        _ = command([0x07, 0x00], answers: 0)
        #expect(command([0x08], answers: 2) == [0x20, 0])
        let result = command([0xE6, 0, 0, 0, 2, 2, 18, 0x1B, 0xFF], answers: 7)
        #expect(result[0] & 0xC0 == 0, "\(result)")
        #expect(try fixture.board.memory.bytes(at: GuestAddress(0x4000), count: 512) == [UInt8](repeating: 0x42, count: 512))
        #expect(fixture.board.diskCounters[0].values.readRequests == 1 && fixture.board.diskCounters[0].values.readBytes == 512)
    }

    @Test func aFileThatIsNoFloppysIsRefusedInWords() throws {
        let error = #expect(throws: (any Error).self) {
            _ = try BoardFixture(.pc) { $0.disks = [DiskConfiguration(id: "a", fd: Int(try BoardFixture.file(byteCount: 1 << 20)), bus: .fdc)] }
        }
        #expect("\(error as Any)".contains("1440"))
    }

    @Test(arguments: types) func aMachineWithEverythingComesBackTheSame(type: MachineType) throws {
        let fixture = try BoardFixture(type, Self.everything)
        fixture.writeMemory(0xFED0_0010, 3)
        let saved = try fixture.machine.saveState()
        let other = try BoardFixture(type, Self.everything)
        try other.machine.restoreState(saved)
        #expect(other.readMemory(0xFED0_0010) == 3 && other.accelerator.isTimerConnected.withLock { !$0 })
    }

    @Test(arguments: types) func aGeneralPurposeEventInterruptsOnceItIsEnabled(type: MachineType) throws {
        let fixture = try BoardFixture(type)
        fixture.placePowerManagement(type)
        let status: UInt16 = type == .pc ? 0xAFE0 : 0x620, enable: UInt16 = type == .pc ? 0xAFE2 : 0x628
        func isInterrupting() -> Bool { fixture.accelerator.lines.withLock { $0[9] } ?? false }
        // SCI_EN, as an OS asks for it at port 0xB2.
        if type != .direct { fixture.write(0xB2, type == .pc ? 0xF1 : 0x02) }
        fixture.board.powerManagement.raiseGeneralPurposeEvent(1)
        #expect(fixture.read(status) == 2 && !isInterrupting())
        fixture.write(enable, 2)
        #expect(isInterrupting())
        fixture.write(enable, 0)
        #expect(!isInterrupting())
        fixture.write(enable, 2)
        fixture.write(status, 0xFD)
        #expect(fixture.read(status) == 2 && isInterrupting())
        fixture.write(status, 2)
        #expect(fixture.read(status) == 0 && !isInterrupting())
        try fixture.driver.perform(.reset)
        fixture.placePowerManagement(type)
        #expect(fixture.read(enable) == 0)
    }

    @Test func aDiskBehindARootPortIsReachedAndComesBackTheSame() throws {
        func make() throws -> BoardFixture {
            try BoardFixture(.q35) {
                $0.board.rootPorts = 2
                $0.disks = [DiskConfiguration(id: "disk", fd: Int(try BoardFixture.file(byteCount: 1 << 20)), bootIndex: 0, port: 1)]
            }
        }
        let fixture = try make(), ports = fixture.functions(0x000C_1B36)
        #expect(ports == [PCIAddress(device: 2), PCIAddress(device: 3)])
        #expect(String(decoding: try #require(fixture.firmwareFile("bootorder")), as: UTF8.self).hasPrefix("/pci@i0cf8/pci-bridge@3/scsi@0/disk@0,0\n"))
        let disk = PCIAddress(bus: 1, device: 0)
        fixture.configure(ports[1], 0x18, 0x01_01_00)
        #expect(fixture.configuration(disk, 0) == 0x1042_1AF4)
        fixture.configure(ports[1], 0x20, 0xFE20_FE20)
        fixture.configure(ports[1], 0x04, 2, .word)
        fixture.configure(disk, 0x10, 0xFE20_0000)
        fixture.configure(disk, 0x04, 2, .word)
        // num_queues of the common configuration.
        #expect(fixture.readMemory(0xFE20_0012, 2) == 1)
        let other = try make()
        try other.machine.restoreState(try fixture.machine.saveState())
        #expect(other.readMemory(0xFE20_0012, 2) == 1 && other.configuration(disk, 0) == 0x1042_1AF4)
        try fixture.driver.perform(.reset)
        #expect(fixture.readMemory(0xFE20_0012, 2) == 0xFFFF && fixture.configuration(disk, 0) == 0xFFFF_FFFF)
    }
}
