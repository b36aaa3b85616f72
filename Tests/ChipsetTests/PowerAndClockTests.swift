import Chipset
import MachineCore
import Synchronization
import Testing

private final class Wire: InterruptLine {
    let level = Mutex(false)
    func assert() { level.withLock { $0 = true } }
    func deassert() { level.withLock { $0 = false } }
}
private final class HandClock: MachineClock {
    let now = Mutex<(nanoseconds: UInt64, wall: Int64)>((0, 0))
    var nanoseconds: UInt64 { now.withLock { $0.nanoseconds } }
    var wallSeconds: Int64 { now.withLock { $0.wall } }
}
private final class Supply: PowerRequests {
    let asked = Mutex<[String]>([])
    func guestRequestsReset(by way: String) { asked.withLock { $0.append("reset by \(way)") } }
    func guestRequestsShutdown() { asked.withLock { $0.append("shutdown") } }
}

struct PowerAndClockTests {
    @Test func powerButtonInterruptsOnceEnabledUntilAcknowledged() {
        let wire = Wire()
        let block = PowerManagement(clock: HandClock(), sci: wire, power: Supply())
        block.pressPowerButton()
        #expect(!wire.level.withLock { $0 })
        block.write(offset: 2, width: .word, value: 0x100)
        #expect(wire.level.withLock { $0 } && block.read(offset: 0, width: .word) & 0xFFFF == 0x100)
        block.write(offset: 0, width: .word, value: 0x100)
        #expect(!wire.level.withLock { $0 })
    }

    @Test func sleepTypeZeroWithSleepEnableIsAShutdownAndAnotherTypeIsNot() {
        let supply = Supply()
        let block = PowerManagement(clock: HandClock(), sci: Wire(), power: supply)
        block.write(offset: 4, width: .word, value: 1 << 13 | 1 << 10)
        #expect(supply.asked.withLock { $0 } == [])
        block.write(offset: 4, width: .word, value: 1 << 13)
        #expect(supply.asked.withLock { $0 } == ["shutdown"])
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
        #expect(supply.asked.withLock { $0 } == ["reset by i8042", "reset by port 0x92", "reset by 0xCF9"])
    }

    @Test(arguments: [
        (0, [0x00, 0x00, 0x00, 0x05, 0x01, 0x01, 0x70, 0x19]), (951_827_696, [0x56, 0x34, 0x12, 0x03, 0x29, 0x02, 0x00, 0x20]),
        (4_102_444_799, [0x59, 0x59, 0x23, 0x05, 0x31, 0x12, 0x99, 0x20]),
    ] as [(Int64, [UInt8])])
    func clockShowsTheDateInBCD(seconds: Int64, expected: [UInt8]) {
        let clock = HandClock()
        clock.now.withLock { $0.wall = seconds }
        let rtc = CMOSClock(clock: clock)
        let shown = [0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32].map { (index: UInt64) -> UInt8 in
            rtc.write(offset: 0, width: .byte, value: index)
            return UInt8(rtc.read(offset: 1, width: .byte))
        }
        #expect(shown == expected)
    }
}
