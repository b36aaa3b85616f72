import Chipset
import MachineCore
import Synchronization
import Testing

struct PowerManagementTests {
    @Test func powerButtonInterruptsOnceEnabledUntilAcknowledged() {
        let wire = Wire()
        let block = PowerManagement(clock: HandClock(), sci: wire, power: Supply())
        block.pressPowerButton()
        #expect(!wire.level)
        block.write(offset: 2, width: .word, value: 0x100)
        #expect(wire.level && block.read(offset: 0, width: .word) & 0xFFFF == 0x100)
        block.write(offset: 0, width: .word, value: 0x100)
        #expect(!wire.level)
    }

    @Test func sleepTypeZeroWithSleepEnableIsAShutdownAndAnotherTypeIsNot() {
        let supply = Supply()
        let block = PowerManagement(clock: HandClock(), sci: Wire(), power: supply)
        block.write(offset: 4, width: .word, value: 1 << 13 | 1 << 10)
        #expect(supply.asked == [])
        block.write(offset: 4, width: .word, value: 1 << 13)
        #expect(supply.asked == ["shutdown"])
    }

    @Test(arguments: [(UInt64(0), UInt64(0)), (1_000_000_000, 3_579_545), (3_600_000_000_000, 3_579_545 * 3600 & 0xFF_FFFF), (.max, 0)])
    func timerCountsAt3579545Hertz(nanoseconds: UInt64, expected: UInt64) {
        let clock = HandClock()
        clock.now.withLock { $0.nanoseconds = nanoseconds }
        let block = PowerManagement(clock: clock, sci: Wire(), power: Supply())
        let value = block.read(offset: 8, width: .doubleWord)
        #expect(nanoseconds == .max ? value <= 0xFF_FFFF : value == expected)
    }

    @Test func eachResetPortResetsOnItsOwnValueOnly() {
        let supply = Supply()
        ResetPort(.keyboardController, power: supply).write(offset: 4, width: .byte, value: 0xD1)
        ResetPort(.keyboardController, power: supply).write(offset: 4, width: .byte, value: 0xFE)
        ResetPort(.systemControl, power: supply).write(offset: 0, width: .byte, value: 0x02)
        ResetPort(.systemControl, power: supply).write(offset: 0, width: .byte, value: 0x01)
        ResetPort(.resetControl, power: supply).write(offset: 0, width: .byte, value: 0x02)
        ResetPort(.resetControl, power: supply).write(offset: 0, width: .byte, value: 0x06)
        #expect(supply.asked == ["reset by i8042", "reset by port 0x92", "reset by 0xCF9"])
    }

    @Test func statusBitsAreClearedByWritingOnesAndSCIEnableIsNotTheGuestsToClear() {
        let block = PowerManagement(clock: HandClock(), sci: Wire(), power: Supply())
        block.pressPowerButton()
        block.write(offset: 0, width: .word, value: 0xFEFF)
        #expect(block.read(offset: 0, width: .word) == 0x100)
        block.write(offset: 1, width: .byte, value: 0x01)
        #expect(block.read(offset: 0, width: .word) == 0)
        block.write(offset: 4, width: .word, value: 0)
        #expect(block.read(offset: 4, width: .word) == 1)
    }

    @Test func eventAndEnableAreReadTogetherAsOneDoubleWord() {
        let block = PowerManagement(clock: HandClock(), sci: Wire(), power: Supply())
        block.write(offset: 2, width: .word, value: 0xFFFF)
        block.pressPowerButton()
        #expect(block.read(offset: 0, width: .doubleWord) == 0x0721_0100, "TMR, GBL, PWRBTN, SLPBTN and RTC can be enabled")
    }

    @Test func generalPurposeEventInterruptsOnceEnabledUntilAcknowledged() {
        let wire = Wire()
        let block = PowerManagement(clock: HandClock(), sci: wire, power: Supply())
        block.raiseGeneralPurposeEvent(9)
        block.raiseGeneralPurposeEvent(64)
        #expect(!wire.level && block.read(offset: 0x21, width: .byte) == 0x02)
        block.write(offset: 0x29, width: .byte, value: 0x02)
        #expect(wire.level)
        block.write(offset: 0x21, width: .byte, value: 0x02)
        #expect(!wire.level)
    }

    @Test func timersTopBitSetsItsStatusAndInterruptsWhereEnabled() {
        let clock = HandClock(), timer = HandTimer(), wire = Wire()
        let block = PowerManagement(clock: clock, sci: wire, power: Supply(), timer: timer)
        block.write(offset: 2, width: .word, value: 1)
        #expect(!wire.level)
        #expect(timer.fire(clock))
        #expect(wire.level && block.read(offset: 8, width: .doubleWord) == 0x80_0000)
        block.write(offset: 0, width: .word, value: 1)
        #expect(!wire.level)
        #expect(timer.fire(clock) && wire.level && block.read(offset: 8, width: .doubleWord) == 0)
    }

    @Test func acpiModeIsSwitchedThroughTheCommandPort() {
        let wire = Wire()
        let block = PowerManagement(clock: HandClock(), sci: wire, power: Supply())
        let port = SMICommandPort(block)
        block.write(offset: 2, width: .word, value: 0x100)
        block.pressPowerButton()
        port.write(offset: 0, width: .byte, value: 0x03)
        #expect(!wire.level && block.read(offset: 4, width: .word) == 0)
        port.write(offset: 0, width: .byte, value: 0x02)
        #expect(wire.level && block.read(offset: 4, width: .word) == 1)
        port.write(offset: 1, width: .byte, value: 0x55)
        #expect(port.read(offset: 0, width: .word) == 0x5502)
    }

    @Test func powerStateSurvivesARoundTripAndATruncatedOneIsRefused() throws {
        let block = PowerManagement(clock: HandClock(), sci: Wire(), power: Supply())
        block.write(offset: 2, width: .word, value: 0x100)
        block.write(offset: 0x28, width: .quadWord, value: 0x8000_0000_0000_0001)
        block.raiseGeneralPurposeEvent(63)
        let saved = savedBytes(block), wire = Wire()
        let copy = PowerManagement(clock: HandClock(), sci: wire, power: Supply())
        #expect(try restore(saved, into: copy) == 0)
        #expect(wire.level && savedBytes(copy) == saved)
        #expect(try restore(Array(saved[..<6]), into: copy, version: 1) == 0, "version 1 had no GPE0")
        #expect(!wire.level)
        for count in 0..<saved.count { #expect(throws: DeviceStateError.self) { try restore(Array(saved[..<count]), into: copy) } }
    }

    @Test func resetControlReadsBackWithoutTheBitThatResets() {
        let port = ResetPort(.resetControl, power: Supply())
        port.write(offset: 0, width: .byte, value: 0x0E)
        #expect(port.read(offset: 0, width: .byte) == 0x0A)
        #expect(ResetPort(.systemControl, power: Supply()).read(offset: 0, width: .byte) == 2, "A20 is on")
    }

    @Test func anyOffsetAndWidthIsAnswered() {
        let block = PowerManagement(clock: HandClock(nanoseconds: .max), sci: Wire(), power: Supply())
        for offset: UInt64 in [0, 1, 3, 7, 8, 9, 0x1F, 0x27, 0x2D, 0x2F, 0x3F, 0x40, .max] {
            for width: AccessWidth in [.byte, .word, .doubleWord, .quadWord] {
                block.write(offset: offset, width: width, value: .max)
                _ = block.read(offset: offset, width: width)
            }
        }
    }
}
