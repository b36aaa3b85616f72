import Chipset
import MachineCore
import PCI
import Testing

private let second: UInt64 = 1_000_000_000

private final class Bench {
    let clock = HandClock(nanoseconds: 7), timer = HandTimer(), wire = Wire(), journal = Journal()
    let device: WatchdogTimer
    init() {
        let journal = journal
        device = WatchdogTimer(clock: clock, timer: timer, line: wire) { journal.note("\($0)") }
    }
    func unlock() {
        device.write(offset: 0x0C, width: .word, value: 0x80)
        device.write(offset: 0x0C, width: .word, value: 0x86)
    }
    func set(_ offset: UInt64, _ value: UInt64) {
        unlock()
        device.write(offset: offset, width: .doubleWord, value: value)
    }
    /// Linux, drivers/watchdog/i6300esb.c: esb_initdevice, esb_timer_set_heartbeat, esb_timer_start.
    func start(seconds: UInt64, lock: UInt8 = 0x02, configuration: UInt8 = 0x03) {
        device.writeConfiguration(0x60, configuration)
        device.writeConfiguration(0x61, 0)
        device.writeConfiguration(0x68, 0)
        set(0x0C, 0x0300)
        set(0x00, seconds << 9)
        set(0x04, seconds << 9)
        set(0x0C, 0x0100)
        device.writeConfiguration(0x68, lock)
    }
}

struct I6300ESBTests {
    @Test func guestThatStopsPingingIsResetAfterBothStages() {
        let bench = Bench()
        bench.start(seconds: 30)
        for _ in 0..<3 {
            bench.clock.advance(nanoseconds: 20 * second)
            bench.set(0x0C, 0x0100)
        }
        #expect(bench.journal.lines.isEmpty)
        // 30 << 9 ticks of 2^15 clocks of 33 MHz, twice: about 30.5 s.
        let last = bench.clock.nanoseconds
        #expect(bench.timer.fire(bench.clock) && bench.journal.lines.isEmpty && bench.timer.fire(bench.clock))
        #expect(bench.journal.lines == ["reset"] && bench.timer.deadline == nil && bench.wire.edges == 0)
        #expect((30 * second...31 * second).contains(bench.clock.nanoseconds - last))
        #expect(bench.device.read(offset: 0x0C, width: .word) == 0x0200)
        bench.device.reset()
        #expect(bench.device.read(offset: 0x0C, width: .word) == 0x0200, "the next start sees why")
        bench.set(0x0C, 0x0200)
        #expect(bench.device.read(offset: 0x0C, width: .word) == 0)
    }

    @Test func timeThatWasLeftWhenItWasSavedIsLeftWhenItIsRestored() {
        let bench = Bench()
        bench.start(seconds: 30)
        bench.clock.advance(nanoseconds: 10 * second)
        let left = (bench.timer.deadline ?? 0) - bench.clock.nanoseconds
        // The first stage takes 15.3 s.
        #expect((5 * second..<6 * second).contains(left))
        let saved = savedBytes(bench.device)
        let other = Bench()
        other.clock.advance(nanoseconds: 1000 * second)
        #expect((try? restore(saved, into: other.device)) == 0)
        #expect(other.timer.deadline == other.clock.nanoseconds + left && other.journal.lines.isEmpty)
        #expect(other.timer.fire(other.clock) && other.timer.fire(other.clock) && other.journal.lines == ["reset"])
    }

    @Test func itsFunctionShowsWhatTheChipMadeOfAWrite() throws {
        let bench = Bench(), line = Wire()
        let endpoint = try WatchdogTimer.makeEndpoint(name: "i6300esb-pci", line: line)
        let device = WatchdogTimer(clock: bench.clock, timer: bench.timer, line: WatchdogTimer.line(of: endpoint)) { _ in }
        device.connect(to: endpoint)
        #expect(endpoint.readConfiguration(offset: 0, width: .doubleWord) == 0x25AB_8086)
        endpoint.writeConfiguration(offset: 0x60, width: .word, value: 0xFF23)
        #expect(endpoint.readConfiguration(offset: 0x60, width: .word) == 0x23)
        // Enabled and locked: nothing but a reset changes it.
        endpoint.writeConfiguration(offset: 0x68, width: .byte, value: 0xFB)
        endpoint.writeConfiguration(offset: 0x68, width: .byte, value: 0)
        #expect(endpoint.readConfiguration(offset: 0x68, width: .byte) == 0x03 && bench.timer.deadline != nil)
        endpoint.reset()
        #expect(endpoint.readConfiguration(offset: 0x68, width: .byte) == 0 && bench.timer.deadline == nil)
        endpoint.writeConfiguration(offset: 0x68, width: .byte, value: 0x02)
        #expect(bench.timer.fire(bench.clock) && line.level && endpoint.readConfiguration(offset: 0x06, width: .word) & 8 != 0)
        device.write(offset: 8, width: .doubleWord, value: 1)
        #expect(!line.level)
    }

    @Test func firstStageInterruptsUntilItIsAcknowledged() {
        let bench = Bench()
        bench.start(seconds: 1, configuration: 0x00)
        #expect(
            bench.timer.fire(bench.clock) && bench.wire.level && bench.device.read(offset: 8, width: .doubleWord) == 1)
        bench.device.write(offset: 8, width: .doubleWord, value: 1)
        #expect(!bench.wire.level)
        bench.set(0x0C, 0x0100)
        bench.device.writeConfiguration(0x60, 0x02)
        #expect(bench.timer.fire(bench.clock) && bench.journal.lines == ["smi"] && !bench.wire.level)
    }

    @Test func registersNeedBothUnlocksForEachWrite() {
        let bench = Bench()
        bench.start(seconds: 1)
        let deadline = bench.timer.deadline
        bench.clock.advance(nanoseconds: second / 10)
        for values in [[0x0100], [0x80, 0x0100], [0x86, 0x0100], [0x80, 0x85, 0x86, 0x0100]] as [[UInt64]] {
            for value in values { bench.device.write(offset: 0x0C, width: .word, value: value) }
        }
        bench.device.write(offset: 0x00, width: .doubleWord, value: 1)
        bench.device.write(offset: 0x0C, width: .word, value: 0x0100)
        #expect(bench.timer.deadline == deadline)
        bench.set(0x0C, 0x0100)
        #expect(bench.timer.deadline! - deadline! == second / 10)
    }

    @Test func lockedWatchdogCannotBeStopped() {
        let bench = Bench()
        bench.start(seconds: 1, lock: 0x03)
        bench.device.writeConfiguration(0x68, 0)
        #expect(bench.device.readConfiguration(0x68) == 0x03 && bench.timer.deadline != nil)
        let open = Bench()
        open.start(seconds: 1)
        open.device.writeConfiguration(0x68, 0)
        #expect(open.timer.deadline == nil && open.device.readConfiguration(0x62) == nil)
    }

    @Test func outputDisabledOrFreeRunningResetsNobody() {
        let bench = Bench()
        bench.start(seconds: 1, configuration: 0x23)
        #expect(bench.timer.fire(bench.clock) && bench.timer.fire(bench.clock) && bench.timer.deadline == nil)
        let running = Bench()
        running.start(seconds: 1, lock: 0x06, configuration: 0x07)
        for _ in 0..<5 { #expect(running.timer.fire(running.clock)) }
        #expect(bench.journal.lines.isEmpty && running.journal.lines.isEmpty && running.timer.deadline != nil)
        #expect(running.clock.nanoseconds < second / 100, "ticks of 1 us")
    }

    @Test func stateGoesOnAndATruncatedOneIsRefused() throws {
        let bench = Bench(), later = Bench()
        later.clock.advance(nanoseconds: 99 * second)
        bench.start(seconds: 10)
        bench.clock.advance(nanoseconds: 4 * second)
        bench.device.write(offset: 0x0C, width: .word, value: 0x80)
        let saved = savedBytes(bench.device)
        #expect(try restore(saved, into: later.device) == 0)
        #expect(later.timer.deadline! - later.clock.nanoseconds == bench.timer.deadline! - bench.clock.nanoseconds)
        #expect(savedBytes(later.device) == saved)
        for count in 0..<saved.count {
            #expect(throws: DeviceStateError.self) { try restore(Array(saved[..<count]), into: later.device) }
        }
    }

    @Test(arguments: UInt64(1)...4)
    func randomAccessesResetOnlyAnEnabledWatchdog(seed: UInt64) {
        var random = Seeded(seed)
        let bench = Bench()
        for _ in 0..<3000 {
            switch random.next() % 6 {
            case 0:
                bench.device.writeConfiguration(
                    Int(random.next() % 0x70), UInt8(truncatingIfNeeded: random.next()) & 0xFE)
            case 1:
                bench.device.write(
                    offset: random.next() % 20, width: .doubleWord, value: random.next() >> (random.next() % 64))
            case 2: bench.unlock()
            case 3: bench.clock.advance(nanoseconds: random.next() % (100 * second))
            case 4: _ = bench.device.read(offset: random.next() % 20, width: .word)
            default: _ = bench.timer.fire(bench.clock)
            }
            #expect(!bench.wire.level || bench.device.read(offset: 8, width: .doubleWord) == 1)
            if bench.device.readConfiguration(0x68).map({ $0 & 2 }) == 0 { #expect(bench.timer.deadline == nil) }
        }
        bench.device.reset()
        let before = bench.journal.lines.count
        bench.clock.advance(nanoseconds: 1000 * second)
        _ = bench.device.read(offset: 0, width: .byte)
        #expect(bench.journal.lines.count == before)
    }
}
