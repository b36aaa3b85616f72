import Chipset
import MachineCore
import Testing

private let hertz: UInt64 = 1_193_182

private final class Bench {
    let clock: HandClock, timer = HandTimer(), wire = Wire()
    let device: IntervalTimer
    private var bus = PortBus()
    init(nanoseconds: UInt64 = 1_000_000_000) {
        clock = HandClock(nanoseconds: nanoseconds)
        device = IntervalTimer(clock: clock, timer: timer, line: wire)
        bus.attach(device, at: 0x40, count: 4)
        bus.attach(device.portB, at: 0x61, count: 1)
    }
    func out(_ port: UInt16, _ values: UInt64...) {
        for value in values { bus.write(port, width: .byte, value: value) }
    }
    func read(_ port: UInt16) -> UInt64 { bus.read(port, width: .byte) }
    func word(_ port: UInt16) -> UInt64 { read(port) | read(port) << 8 }
    /// Moves the clock to the first nanosecond at which `ticks` more have passed since a whole second.
    func advance(ticks: UInt64) {
        let start =
            clock.nanoseconds / 1_000_000_000 * hertz + clock.nanoseconds % 1_000_000_000 * hertz / 1_000_000_000
        let end = start + ticks
        let due = end / hertz * 1_000_000_000 + (end % hertz * 1_000_000_000 + hertz - 1) / hertz
        clock.advance(nanoseconds: due - clock.nanoseconds)
    }
    func latched(_ channel: UInt64) -> UInt64 {
        out(0x43, channel << 6)
        return word(0x40 + UInt16(channel))
    }
    func status(_ channel: UInt64) -> UInt64 {
        out(0x43, 0xE0 | 2 << channel)
        return read(0x40 + UInt16(channel))
    }
}

struct I8254Tests {
    /// SeaBIOS, src/hw/timer.c, pit_setup: channel 0, both bytes, mode 2, count 0; 18.2 interrupts a second.
    @Test func firmwaresTickComes18TimesASecond() {
        let bench = Bench()
        bench.out(0x43, 0x34)
        bench.out(0x40, 0x00, 0x00)
        let start = bench.clock.nanoseconds
        for round in 1...182 { #expect(bench.timer.fire(bench.clock) && bench.wire.edges == round) }
        let expected = 182 * 65536 * 1_000_000_000 / hertz
        #expect(bench.clock.nanoseconds - start - expected <= 1)
    }

    /// Linux, arch/x86/kernel/tsc.c: quick_pit_calibrate reads the high byte of channel 2 counting down from 0xFFFF.
    @Test func quickCalibrationSeesTheHighByteFall() {
        let bench = Bench()
        bench.out(0x61, bench.read(0x61) & ~2 | 1)
        bench.out(0x43, 0xB0)
        bench.out(0x42, 0xFF, 0xFF)
        _ = bench.word(0x42)
        for high in stride(from: UInt64(0xFF), to: 0xF0, by: -1) {
            #expect(bench.word(0x42) >> 8 == high)
            bench.advance(ticks: 256)
        }
    }

    /// Linux, pit_calibrate_tsc and SeaBIOS's calibration: OUT 2 at bit 5 of port 0x61 rises when the count is over.
    @Test func slowCalibrationWaitsForOutputTwo() {
        let bench = Bench()
        bench.out(0x61, bench.read(0x61) & ~2 | 1)
        bench.out(0x43, 0xB0)
        bench.out(0x42, 0x9C, 0x2E)
        #expect(bench.read(0x61) & 0x21 == 0x01)
        bench.advance(ticks: 0x2E9B)
        #expect(bench.read(0x61) & 0x20 == 0)
        bench.advance(ticks: 1)
        #expect(bench.read(0x61) & 0x20 == 0x20)
        bench.out(0x61, 0)
        #expect(bench.timer.deadline == nil && bench.wire.edges == 0, "channel 2 interrupts nobody")
    }

    /// Linux, drivers/clocksource/i8253.c: pit_shutdown, pit_set_oneshot, pit_next_event.
    @Test func linuxUsesChannelZeroForOneEventAtATime() {
        let bench = Bench()
        bench.out(0x43, 0x30)
        bench.out(0x40, 0, 0)
        bench.out(0x43, 0x38)
        for round in 1...3 {
            bench.out(0x40, 0x10, 0x27)
            let before = bench.clock.nanoseconds
            #expect(bench.timer.fire(bench.clock) && bench.wire.edges == round)
            #expect((bench.clock.nanoseconds - before) / 1000 == 10_001 * 1_000_000 / hertz)
            #expect(bench.timer.deadline == nil)
        }
    }

    @Test func latchHoldsAndReadBackTellsTheState() {
        let bench = Bench()
        bench.out(0x43, 0x34)
        #expect(bench.status(0) == 0xF4, "OUT high, no count yet, both bytes, mode 2")
        bench.out(0x40, 0xE8, 0x03)
        #expect(bench.status(0) == 0xB4)
        bench.advance(ticks: 100)
        bench.out(0x43, 0x00)
        bench.advance(ticks: 50)
        bench.out(0x43, 0x00)
        #expect(bench.word(0x40) == 900, "a second latch before the first was read is ignored")
        #expect(bench.latched(0) == 850)
        bench.advance(ticks: 849)
        #expect(bench.status(0) == 0x34, "OUT is low for the last tick")
        bench.out(0x43, 0xC2)
        #expect(bench.read(0x40) == 0x34 && bench.word(0x40) == 1, "status first, then the count")
    }

    @Test func squareWaveIsHighForHalfItsPeriod() {
        let bench = Bench()
        bench.out(0x61, 1)
        bench.out(0x43, 0xB6)
        bench.out(0x42, 0x0A, 0x00)
        var levels = ""
        for _ in 0..<20 {
            levels += bench.read(0x61) & 0x20 != 0 ? "1" : "0"
            bench.advance(ticks: 1)
        }
        #expect(levels == "11111000001111100000")
        bench.out(0x61, 0)
        bench.advance(ticks: 7)
        #expect(bench.read(0x61) & 0x20 == 0x20, "without its gate OUT is high")
    }

    @Test func newCountTakesOverAtTheEndOfThePeriod() {
        let bench = Bench()
        bench.out(0x43, 0x34)
        bench.out(0x40, 0xE8, 0x03)
        bench.advance(ticks: 100)
        bench.out(0x40, 0xD0, 0x07)
        #expect(bench.status(0) & 0x40 == 0x40 && bench.latched(0) == 900)
        #expect(bench.timer.fire(bench.clock) && bench.latched(0) == 2000 && bench.status(0) & 0x40 == 0)
        #expect(bench.timer.fire(bench.clock) && bench.wire.edges == 2)
    }

    @Test func gateStartsTheOneShotAndHoldsTheCount() {
        let bench = Bench()
        bench.out(0x43, 0xB2)
        bench.out(0x42, 10, 0)
        bench.advance(ticks: 50)
        #expect(bench.read(0x61) & 0x20 == 0x20, "not triggered")
        bench.out(0x61, 1)
        bench.advance(ticks: 9)
        #expect(bench.read(0x61) & 0x20 == 0)
        bench.advance(ticks: 1)
        #expect(bench.read(0x61) & 0x20 == 0x20)
        bench.out(0x43, 0xB0)
        bench.out(0x42, 100, 0)
        bench.advance(ticks: 40)
        bench.out(0x61, 0)
        bench.advance(ticks: 1000)
        #expect(bench.latched(2) == 60)
        bench.out(0x61, 1)
        bench.advance(ticks: 10)
        #expect(bench.latched(2) == 50)
    }

    @Test func decimalCountsAndSingleBytes() {
        let bench = Bench()
        bench.out(0x43, 0x35)
        bench.out(0x40, 0x00, 0x00)
        #expect(bench.latched(0) == 0)
        bench.advance(ticks: 1)
        #expect(bench.latched(0) == 0x9999)
        bench.out(0x43, 0x14)
        bench.out(0x40, 0x80)
        bench.out(0x43, 0x00)
        #expect(bench.read(0x40) == 0x80)
        bench.out(0x43, 0x24)
        bench.out(0x40, 0x80)
        #expect(bench.read(0x40) == 0x80)
        bench.advance(ticks: 1)
        #expect(bench.read(0x40) == 0x7F)
    }

    @Test func refreshBitTogglesAndReplacedTimerIsQuiet() {
        let bench = Bench()
        let first = bench.read(0x61) & 0x10
        bench.clock.advance(nanoseconds: 16384)
        #expect(bench.read(0x61) & 0x10 != first)
        bench.out(0x61, 0xFF)
        #expect(bench.read(0x61) & 0xCF == 0x0F)
        bench.out(0x43, 0x34)
        bench.out(0x40, 0, 0x10)
        bench.device.setReplaced(true)
        #expect(bench.timer.deadline == nil)
        bench.clock.advance(nanoseconds: 1_000_000_000)
        bench.device.setReplaced(false)
        #expect(bench.wire.edges == 0 && bench.timer.deadline != nil)
        #expect(bench.timer.fire(bench.clock) && bench.wire.edges == 1)
    }

    @Test func shortestPeriodDoesNotKeepTheHostBusy() {
        let bench = Bench()
        bench.out(0x43, 0x14)
        bench.out(0x40, 1)
        let start = bench.clock.nanoseconds
        for _ in 0..<100 { #expect(bench.timer.fire(bench.clock)) }
        #expect(bench.clock.nanoseconds - start >= 99 * 50_000)
    }

    @Test func stateGoesOnFromTheCountersAndATruncatedOneIsRefused() throws {
        let bench = Bench(), later = Bench(nanoseconds: 3)
        bench.out(0x43, 0x34)
        bench.out(0x40, 0x00, 0x10)
        bench.out(0x61, 3)
        bench.out(0x43, 0xB6)
        bench.out(0x42, 0x01)
        bench.advance(ticks: 1000)
        bench.out(0x43, 0x00)
        let saved = savedBytes(bench.device)
        #expect(try restore(saved, into: later.device) == 0)
        #expect(later.word(0x40) == 0x1000 - 1000 && later.read(0x61) & 0x0F == 3)
        later.out(0x42, 0x02)
        #expect(later.latched(2) == 0x201)
        #expect(later.timer.fire(later.clock) && later.wire.edges == 1)
        for count in 0..<saved.count {
            #expect(throws: DeviceStateError.self) { try restore(Array(saved[..<count]), into: later.device) }
        }
        later.device.reset()
        #expect(later.timer.deadline == nil)
    }

    @Test(arguments: UInt64(1)...8)
    func randomAccessesLeaveACounterThatCounts(seed: UInt64) throws {
        var random = Seeded(seed)
        let bench = Bench(nanoseconds: seed % 2 == 0 ? 0 : 1 << 60)
        for _ in 0..<4000 {
            switch random.next() % 5 {
            case 0: bench.out(0x43, random.next() & 0xFF)
            case 1: bench.out(0x40 + UInt16(random.next() % 3), random.next() & 0xFF)
            case 2: bench.out(0x61, random.next() & 0xFF)
            case 3: bench.clock.advance(nanoseconds: random.next() % 100_000_000)
            default: _ = bench.read([0x40, 0x41, 0x42, 0x43, 0x61].randomElement(using: &random)!)
            }
            _ = bench.read(0x61)
            if let deadline = bench.timer.deadline { #expect(deadline > bench.clock.nanoseconds) }
            if random.next() % 100 == 0 { _ = try restore(savedBytes(bench.device), into: bench.device) }
        }
        let edges = bench.wire.edges
        bench.out(0x43, 0x34)
        bench.out(0x40, 0x00, 0x80)
        #expect(bench.timer.fire(bench.clock) && bench.wire.edges == edges + 1)
        var state = savedBytes(bench.device)
        for index in state.indices where random.next() % 8 == 0 {
            state[index] = UInt8(truncatingIfNeeded: random.next())
        }
        _ = try? restore(state, into: bench.device)
        bench.clock.advance(nanoseconds: 1 << 40)
        _ = bench.latched(0)
    }
}
