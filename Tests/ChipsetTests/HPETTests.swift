import Chipset
import MachineCore
import Synchronization
import Testing

/// Register offsets and bits of the specification, apart from the chip's own names.
private let configuration: UInt64 = 0x10, status: UInt64 = 0x20, counter: UInt64 = 0xF0
private let enabled: UInt64 = 4, periodic: UInt64 = 8, levelTriggered: UInt64 = 2, valueSet: UInt64 = 0x40,
    only32: UInt64 = 0x100
private func timerConfiguration(_ index: UInt64) -> UInt64 { 0x100 + index * 0x20 }
private func comparator(_ index: UInt64) -> UInt64 { 0x108 + index * 0x20 }

private final class Lines: Sendable {
    let pins = (0..<24).map { _ in Wire() }, legacy = (0..<16).map { _ in Wire() }
    var edges: Int { (pins + legacy).reduce(0) { $0 + $1.edges } }
}

private final class Bench {
    let clock: HandClock, timer = HandTimer(), lines = Lines()
    let device: EventTimerBlock
    init(nanoseconds: UInt64 = 1_000_000) {
        clock = HandClock(nanoseconds: nanoseconds)
        device = EventTimerBlock(clock: clock, timer: timer) { [lines] route in
            switch route {
            case .legacy(let number): lines.legacy[Int(number)]
            case .pin(let pin): pin < 24 ? lines.pins[Int(pin)] : nil
            }
        }
    }
    func get(_ offset: UInt64) -> UInt64 { device.read(offset: offset, width: .quadWord) }
    func get32(_ offset: UInt64) -> UInt64 { device.read(offset: offset, width: .doubleWord) }
    func set(_ offset: UInt64, _ value: UInt64) { device.write(offset: offset, width: .quadWord, value: value) }
    func set32(_ offset: UInt64, _ value: UInt64) { device.write(offset: offset, width: .doubleWord, value: value) }
}

struct HPETTests {
    @Test func capabilitiesNameThreeTimersOfTenNanoseconds() {
        let bench = Bench()
        #expect(bench.get32(0) == 0x8086_A201 && bench.get32(4) == 0x0098_9680)
        #expect(bench.get(0) == 0x0098_9680_8086_A201)
        #expect(bench.get32(timerConfiguration(2)) & 0x30 == 0x30 && bench.get32(timerConfiguration(2) + 4) == 0xFF0104)
        #expect(bench.get(0x3F8) == 0 && bench.get(0x160) == 0)
        #expect(bench.device.read(offset: 6, width: .doubleWord) == 0xFFFF_FFFF)
    }

    @Test func counterRunsWhileEnabledAndIsSetWhileHalted() {
        let bench = Bench()
        #expect(bench.get(counter) == 0)
        bench.clock.advance(nanoseconds: 1000)
        #expect(bench.get(counter) == 0)
        bench.set32(counter, 0xFFFF_FFF0)
        bench.set32(counter + 4, 5)
        bench.set(configuration, 1)
        bench.clock.advance(nanoseconds: 200)
        #expect(bench.get(counter) == 0x6_0000_0004)
        bench.set(counter, 0)
        #expect(bench.get(counter) == 0x6_0000_0004, "a running counter takes no value")
        bench.set(configuration, 0)
        bench.clock.advance(nanoseconds: 200)
        #expect(bench.get(counter) == 0x6_0000_0004)
    }

    /// Linux, arch/x86/kernel/hpet.c: hpet_enable_legacy_int, hpet_clkevt_set_state_periodic.
    @Test func linuxRunsThePeriodicTickInPlaceOfThePIT() {
        let bench = Bench()
        let replaced = Mutex<[Bool]>([])
        bench.device.onLegacyReplacement { value in replaced.withLock { $0.append(value) } }
        bench.set32(configuration, 0)
        bench.set32(counter, 0)
        bench.set32(counter + 4, 0)
        bench.set32(configuration, 1)
        bench.set32(configuration, 3)
        bench.set32(configuration, 2)
        let now = bench.get32(counter), delta: UInt64 = 400_000  // 4 ms
        bench.set32(timerConfiguration(0), bench.get32(timerConfiguration(0)) | enabled | periodic | valueSet | only32)
        bench.set32(comparator(0), now + delta)
        bench.set32(comparator(0), delta)
        bench.set32(configuration, 3)
        for round in 1...5 {
            #expect(bench.timer.fire(bench.clock) && bench.lines.legacy[0].edges == round)
            #expect(bench.get32(counter) == now + UInt64(round) * delta)
        }
        #expect(bench.lines.edges == 5 && replaced.withLock { $0 } == [true])
        bench.set32(configuration, 1)
        #expect(replaced.withLock { $0 } == [true, false])
    }

    /// Linux, hpet_clkevt_set_state_oneshot and hpet_clkevt_set_next_event.
    @Test func linuxSetsOneEventAfterTheOther() {
        let bench = Bench()
        bench.set32(configuration, 3)
        bench.set32(timerConfiguration(0), bench.get32(timerConfiguration(0)) & ~periodic | enabled | only32)
        for round in 1...4 {
            let now = bench.get32(counter)
            bench.set32(comparator(0), now + 1000)
            #expect(bench.timer.deadline == bench.clock.nanoseconds + 10_000)
            #expect(bench.timer.fire(bench.clock) && bench.lines.legacy[0].edges == round)
            #expect(bench.timer.deadline == bench.clock.nanoseconds + 0xFFFF_FFFF * 10, "a turn of 32 bits later")
        }
    }

    @Test func comparatorWrittenTooLateFiresAtOnceAndOneFarBehindDoesNot() {
        let bench = Bench()
        bench.set(configuration, 1)
        bench.set(timerConfiguration(0), enabled | 2 << 9)
        bench.clock.advance(nanoseconds: 100_000)
        bench.set(comparator(0), bench.get(counter) - 50)
        #expect(bench.lines.pins[2].edges == 1)
        bench.set(comparator(0), bench.get(counter) &- 1 << 40)
        #expect(bench.lines.pins[2].edges == 1 && bench.timer.deadline == nil)
    }

    @Test func levelStaysUntilItsStatusIsCleared() {
        let bench = Bench()
        bench.set(configuration, 1)
        bench.set(timerConfiguration(1), enabled | levelTriggered | periodic | valueSet | 20 << 9)
        bench.set(comparator(1), 100_000)
        #expect(bench.timer.fire(bench.clock))
        #expect(bench.lines.pins[20].level && bench.get(status) == 2 && bench.timer.deadline == nil)
        bench.set(status, 1)
        #expect(bench.lines.pins[20].level)
        bench.clock.advance(nanoseconds: 10_000_000)
        bench.set(status, 2)
        #expect(!bench.lines.pins[20].level && bench.get(status) == 0 && bench.timer.deadline != nil)
        #expect(bench.timer.fire(bench.clock) && bench.lines.pins[20].edges == 2)
        bench.set(timerConfiguration(1), levelTriggered | periodic | 20 << 9)
        #expect(
            !bench.lines.pins[20].level && bench.get(status) == 2,
            "the line follows the enable bit, the status does not")
    }

    @Test func sharedLevelLineFallsWithTheLastTimer() {
        let bench = Bench()
        bench.set(configuration, 1)
        for index in UInt64(0)...1 {
            bench.set(timerConfiguration(index), enabled | levelTriggered | 16 << 9)
            bench.set(comparator(index), 1000 * (index + 1))
        }
        #expect(bench.timer.fire(bench.clock) && bench.timer.fire(bench.clock))
        bench.set(status, 1)
        #expect(bench.lines.pins[16].level && bench.lines.pins[16].edges == 1)
        bench.set(status, 2)
        #expect(!bench.lines.pins[16].level)
    }

    @Test func routeThatIsNotOfferedLeadsNowhere() {
        let bench = Bench()
        bench.set(configuration, 1)
        bench.set(timerConfiguration(2), enabled | 5 << 9)
        bench.set(comparator(2), 10)
        #expect(bench.timer.fire(bench.clock) && bench.lines.edges == 0)
        bench.set(configuration, 3)
        bench.set(timerConfiguration(2), enabled | 8 << 9)
        bench.set(comparator(2), bench.get(counter) + 10)
        #expect(
            bench.timer.fire(bench.clock) && bench.lines.pins[8].edges == 1, "legacy replacement is of timers 0 and 1")
    }

    @Test func replacedTimersLineIsOffItsInput() {
        let wire = Wire(), line = SwitchedLine(wire)
        line.assert()
        line.setConnected(false)
        #expect(!wire.level)
        line.pulse()
        line.assert()
        #expect(wire.edges == 1)
        line.setConnected(true)
        line.setConnected(true)
        #expect(wire.level && wire.edges == 2)
    }

    @Test func missedPeriodsAreOneInterruptAndThePhaseStays() {
        let bench = Bench()
        bench.set(configuration, 1)
        bench.set(timerConfiguration(0), enabled | periodic | valueSet | 2 << 9)
        bench.set(comparator(0), 100_000)
        bench.clock.advance(nanoseconds: 10_500_000)
        #expect(bench.get(comparator(0)) == 1_100_000 && bench.lines.edges == 1)
    }

    @Test func shortestPeriodsDoNotKeepTheHostBusy() {
        let bench = Bench()
        bench.set(configuration, 1)
        bench.set(timerConfiguration(0), enabled | periodic | valueSet | 2 << 9)
        bench.set(comparator(0), 1)
        let start = bench.clock.nanoseconds
        for _ in 0..<100 { #expect(bench.timer.fire(bench.clock)) }
        #expect(bench.clock.nanoseconds - start >= 99 * 50_000)
    }

    @Test func stateGoesOnFromTheCounterAndATruncatedOneIsRefused() throws {
        let bench = Bench(), later = Bench(nanoseconds: 77_000_000)
        bench.set(configuration, 1)
        bench.set(timerConfiguration(0), enabled | periodic | valueSet | 2 << 9)
        bench.set(comparator(0), 1_000_000)
        bench.set(timerConfiguration(1), enabled | levelTriggered | 20 << 9)
        bench.set(comparator(1), 10)
        #expect(bench.timer.fire(bench.clock))
        let saved = savedBytes(bench.device)
        #expect(try restore(saved, into: later.device) == 0)
        #expect(later.lines.pins[20].level && later.get(counter) == bench.get(counter))
        #expect(later.timer.deadline! - 77_000_000 == bench.timer.deadline! - bench.clock.nanoseconds)
        #expect(savedBytes(later.device) == saved)
        for count in 0..<saved.count {
            #expect(throws: DeviceStateError.self) { try restore(Array(saved[..<count]), into: later.device) }
        }
        later.device.reset()
        #expect(later.get(configuration) == 0 && !later.lines.pins[20].level && later.timer.deadline == nil)
    }

    @Test(arguments: UInt64(1)...8)
    func randomAccessesKeepLinesAndDeadlinesInStep(seed: UInt64) throws {
        var random = Seeded(seed)
        let bench = Bench(nanoseconds: seed % 2 == 0 ? 0 : 1 << 61)
        let widths: [AccessWidth] = [.byte, .word, .doubleWord, .quadWord]
        for _ in 0..<3000 {
            let offset = [0x000, 0x010, 0x020, 0x0F0, 0x100, 0x108, 0x120, 0x128, 0x140, 0x148, random.next() % 0x400]
                .randomElement(using: &random)!
            let width = widths.randomElement(using: &random)!
            switch random.next() % 4 {
            case 0: _ = bench.device.read(offset: offset + random.next() % 8, width: width)
            case 1: bench.device.write(offset: offset, width: width, value: random.next() >> (random.next() % 64))
            case 2: bench.clock.advance(nanoseconds: random.next() % 100_000_000)
            default: if let deadline = bench.timer.deadline, deadline < 1 << 62 { _ = bench.timer.fire(bench.clock) }
            }
            _ = bench.get(status)
            if let deadline = bench.timer.deadline { #expect(deadline > bench.clock.nanoseconds &- 10) }
            let raised = bench.get(status),
                up = bench.lines.pins.filter(\.level).count + bench.lines.legacy.filter(\.level).count
            #expect(up <= raised.nonzeroBitCount)
        }
        _ = try restore(savedBytes(bench.device), into: Bench().device)
    }
}
