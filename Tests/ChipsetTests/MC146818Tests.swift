import Chipset
import MachineCore
import Synchronization
import Testing

/// Register numbers and bits from the data sheet, apart from the chip's own names.
private let regA: UInt8 = 0x0A, regB: UInt8 = 0x0B, regC: UInt8 = 0x0C, regD: UInt8 = 0x0D
private let second: UInt64 = 1_000_000_000
/// 2000-02-29 12:34:56 UTC, a Tuesday.
private let leapDay: Int64 = 951_827_696

/// A clock on its bus with time, line and timer in the test's hands.
private final class Bench {
    let clock: HandClock
    let wire = Wire(), timer = HandTimer()
    let rtc: CMOSClock
    init(wall: Int64 = leapDay, nanoseconds: UInt64 = 0) {
        clock = HandClock(nanoseconds: nanoseconds, wall: wall)
        rtc = CMOSClock(clock: clock, line: wire, timer: timer)
    }
    func get(_ register: UInt8) -> UInt8 {
        rtc.write(offset: 0, width: .byte, value: UInt64(register))
        return UInt8(rtc.read(offset: 1, width: .byte))
    }
    func set(_ register: UInt8, _ value: UInt8) {
        rtc.write(offset: 0, width: .byte, value: UInt64(register))
        rtc.write(offset: 1, width: .byte, value: UInt64(value))
    }
    /// Second, minute, hour, weekday, day, month, year, century.
    var date: [UInt8] { [0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32].map(get) }
}

struct MC146818Tests {
    @Test(arguments: [
        (0, [0x00, 0x00, 0x00, 0x05, 0x01, 0x01, 0x70, 0x19]), (leapDay, [0x56, 0x34, 0x12, 0x03, 0x29, 0x02, 0x00, 0x20]),
        (4_102_444_799, [0x59, 0x59, 0x23, 0x05, 0x31, 0x12, 0x99, 0x20]),
        (-1, [0x59, 0x59, 0x23, 0x04, 0x31, 0x12, 0x69, 0x19]),
    ] as [(Int64, [UInt8])])
    func dateIsShownInBCD(seconds: Int64, expected: [UInt8]) {
        #expect(Bench(wall: seconds).date == expected)
    }

    @Test func binaryAndTwelveHourModesAreObeyed() {
        let bench = Bench()
        bench.set(regB, 0x06)
        #expect(bench.date == [56, 34, 12, 3, 29, 2, 0, 20])
        bench.set(regB, 0x00)
        #expect(bench.get(0x04) == 0x92, "12 pm, afternoon bit")
        #expect(Bench(wall: 0).date[2] == 0)
        let midnight = Bench(wall: 0)
        midnight.set(regB, 0x04)
        #expect(midnight.get(0x04) == 12, "midnight is 12 am")
    }

    @Test func secondsAdvanceWithUpdateInProgressJustBefore() {
        let bench = Bench()
        bench.clock.advance(nanoseconds: second - 250_000)
        #expect(bench.get(regA) & 0x80 == 0 && bench.get(0) == 0x56)
        bench.clock.advance(nanoseconds: 100_000)
        #expect(bench.get(regA) & 0x80 == 0x80 && bench.get(0) == 0x56)
        bench.clock.advance(nanoseconds: 150_000)
        #expect(bench.get(regA) & 0x80 == 0 && bench.get(0) == 0x57)
    }

    @Test func guestMaySetTheClockAndItRunsOnFromThere() {
        let bench = Bench()
        bench.set(regB, 0x82)
        #expect(bench.get(0) == 0x56)
        bench.clock.advance(nanoseconds: 3 * second)
        #expect(bench.get(0) == 0x56, "the registers stand while SET is 1")
        for (register, value) in zip([0x00, 0x02, 0x04, 0x07, 0x08, 0x09, 0x32] as [UInt8], [0x58, 0x59, 0x23, 0x31, 0x12, 0x37, 0x20] as [UInt8]) {
            bench.set(register, value)
        }
        bench.set(regB, 0x02)
        #expect(bench.date == [0x58, 0x59, 0x23, 0x05, 0x31, 0x12, 0x37, 0x20])
        bench.clock.advance(nanoseconds: 2 * second)
        #expect(bench.date == [0x00, 0x00, 0x00, 0x06, 0x01, 0x01, 0x38, 0x20])
    }

    @Test func dateThatIsNoneLeavesTheTimeAsItWas() {
        let bench = Bench()
        bench.set(regB, 0x82)
        bench.set(0x07, 0x31)
        bench.set(regB, 0x02)
        #expect(bench.date == [0x56, 0x34, 0x12, 0x03, 0x29, 0x02, 0x00, 0x20], "there is no 31 February")
        bench.set(0x02, 0xFF)
        #expect(bench.get(0x02) == 0x34)
    }

    @Test func dividerResetStartsTheNextSecondHalfASecondLater() {
        let bench = Bench()
        bench.clock.advance(nanoseconds: 700_000_000)
        bench.set(regA, 0x76)
        bench.set(regA, 0x26)
        bench.clock.advance(nanoseconds: 499_000_000)
        #expect(bench.get(0) == 0x56)
        bench.clock.advance(nanoseconds: 1_000_000)
        #expect(bench.get(0) == 0x57)
    }

    @Test func steppedHostClockIsFollowed() {
        let bench = Bench()
        bench.clock.now.withLock { $0.wall += 3600 }
        _ = bench.get(0)
        #expect(bench.get(0x04) == 0x13)
    }

    @Test func updateInterruptComesOncePerSecondAndIsAcknowledgedByReadingC() {
        let bench = Bench()
        bench.set(regB, 0x12)
        #expect(bench.timer.deadline == second)
        for round in 1...3 {
            #expect(bench.timer.fire(bench.clock))
            #expect(bench.wire.level && bench.wire.edges == round)
            #expect(bench.timer.deadline == nil, "nothing more until the guest has looked")
            #expect(bench.get(regC) & 0x90 == 0x90)
            #expect(!bench.wire.level)
        }
    }

    @Test(arguments: [(UInt8(1), 256.0), (2, 128), (3, 8192), (6, 1024), (10, 64), (15, 2)])
    func periodicInterruptComesAtTheRateSelected(rate: UInt8, hertz: Double) {
        let bench = Bench()
        bench.set(regA, 0x20 | rate)
        bench.set(regB, 0x42)
        let rounds = Int(hertz)
        for _ in 0..<rounds {
            #expect(bench.timer.fire(bench.clock))
            #expect(bench.get(regC) & 0xC0 == 0xC0)
        }
        #expect(bench.clock.nanoseconds == second && bench.wire.edges == rounds)
    }

    @Test func rateZeroNeverInterrupts() {
        let bench = Bench()
        bench.set(regA, 0x20)
        bench.set(regB, 0x42)
        #expect(bench.timer.deadline == nil)
    }

    @Test(arguments: [
        (0x00, 0x35, 0x12, 4), (0x56, 0x34, 0x12, 86400), (0x55, 0x34, 0x12, 86399), (0xFF, 0xFF, 0xFF, 1), (0x30, 0xC0, 0xFF, 34),
        (0x10, 0x00, 0xC0, 25 * 60 + 14),
    ] as [(UInt8, UInt8, UInt8, UInt64)])
    func alarmComesAtTheNextTimeThatMatches(seconds: UInt8, minutes: UInt8, hours: UInt8, after: UInt64) {
        let bench = Bench()
        for (register, value) in [(UInt8(1), seconds), (3, minutes), (5, hours)] { bench.set(register, value) }
        bench.set(regB, 0x22)
        #expect(bench.timer.deadline == after * second)
        #expect(bench.timer.fire(bench.clock) && bench.wire.level)
        #expect(bench.get(regC) & 0xA0 == 0xA0)
    }

    @Test func alarmThatIsNoTimeOfDayNeverComes() {
        let bench = Bench()
        for register: UInt8 in [1, 3, 5] { bench.set(register, 0x7A) }
        bench.set(regB, 0x22)
        #expect(bench.timer.deadline == nil)
    }

    @Test func flagsAreRaisedForAPollerWithoutInterrupts() {
        let bench = Bench()
        bench.clock.advance(nanoseconds: second)
        let flags = bench.get(regC)
        #expect(flags & 0x50 == 0x50 && flags & 0x80 == 0 && bench.wire.edges == 0)
        #expect(bench.get(regC) == 0)
    }

    @Test func memoryKeepsItsBytesAndReadOnlyRegistersTheirs() {
        let bench = Bench()
        for register in UInt8(0x0E)...0x7F where register != 0x32 { bench.set(register, register ^ 0x5A) }
        for register in UInt8(0x0E)...0x7F where register != 0x32 { #expect(bench.get(register) == register ^ 0x5A) }
        bench.set(regD, 0)
        bench.set(regC, 0xFF)
        #expect(bench.get(regD) == 0x80 && bench.get(regC) == 0)
        #expect(bench.get(0x8E) == bench.get(0x0E), "bit 7 of the index is the NMI mask")
    }

    @Test func resetEndsInterruptsAndKeepsTimeAndMemory() {
        let bench = Bench()
        bench.set(0x40, 0x77)
        bench.set(regB, 0x52)
        #expect(bench.timer.fire(bench.clock) && bench.wire.level)
        bench.rtc.reset()
        #expect(!bench.wire.level && bench.timer.deadline == nil && bench.get(regB) == 0x02 && bench.get(0x40) == 0x77)
    }

    @Test func stateSurvivesWithTheTimeThatHasPassedAndATruncatedOneIsRefused() throws {
        let bench = Bench()
        bench.set(0x04, 0x20)  // eight hours ahead
        bench.set(0x40, 0x77)
        bench.set(regB, 0x12)
        let saved = savedBytes(bench.rtc)
        let later = Bench(wall: leapDay + 60, nanoseconds: 5)
        #expect(try restore(saved, into: later.rtc) == 0)
        #expect(later.date == [0x56, 0x35, 0x20, 0x03, 0x29, 0x02, 0x00, 0x20] && later.get(0x40) == 0x77)
        #expect(later.timer.deadline == 5 + second, "its interrupts go on")
        for count in 0..<saved.count { #expect(throws: DeviceStateError.self) { try restore(Array(saved[..<count]), into: later.rtc) } }
    }

    @Test func randomAccessesAtExtremeTimesAndRandomStateNeverTrap() throws {
        var generator = SystemRandomNumberGenerator()
        for wall: Int64 in [.min / 4, -1, 0, leapDay, .max / 4] {
            let bench = Bench(wall: wall, nanoseconds: .random(in: 0...(.max / 2), using: &generator))
            for _ in 0..<500 {
                bench.clock.now.withLock { $0.nanoseconds &+= .random(in: 0...2_000_000_000, using: &generator) }
                if Bool.random(using: &generator) {
                    bench.set(.random(in: 0...0x34, using: &generator), .random(in: 0...255, using: &generator))
                } else {
                    _ = bench.get(.random(in: 0...255, using: &generator))
                }
            }
            var state = savedBytes(bench.rtc)
            for index in 4..<state.count { state[index] = .random(in: 0...255, using: &generator) }
            _ = try restore(state, into: bench.rtc)
            _ = bench.date
        }
    }

    @Test func datesFromYear1To9999ConvertBack() {
        for day in stride(from: Int64(-719_162), to: 2_932_896, by: 97) {
            let date = CivilDate(secondsSince1970: day * 86400 + 86399)
            let back = CivilDate.secondsSince1970(
                year: date.year, month: date.month, day: date.day, hour: date.hour, minute: date.minute, second: date.second)
            #expect(back == day * 86400 + 86399)
        }
        #expect(CivilDate.secondsSince1970(year: 2023, month: 2, day: 29, hour: 0, minute: 0, second: 0) == nil)
    }
}
