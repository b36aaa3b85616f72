import Chipset
import MachineCore
import Synchronization
import Testing

private final class Processors: InterruptTarget {
    private let log = Mutex<(wakes: [Int], events: [String])>(([], []))
    func wake(processor index: Int) { log.withLock { $0.wakes.append(index) } }
    func signal(_ event: LocalAPIC.Event, processor index: Int) {
        log.withLock { $0.events.append("\(index) \(event)") }
    }
    /// What happened since the last time.
    func take() -> (wakes: [Int], events: [String]) {
        log.withLock { log in
            defer { log = ([], []) }
            return log
        }
    }
}

private final class Bench {
    let clock = HandClock(nanoseconds: 5_000), timer = HandTimer(), processors = Processors()
    let fabric: InterruptFabric
    private var bus = PortBus()
    private let ioapic: any BusDevice
    init(_ count: UInt32 = 4) {
        fabric = InterruptFabric(apicIDs: Array(0..<count), target: processors, clock: clock, timer: timer)
        ioapic = fabric.ioapicDevice
        for (port, device) in fabric.legacyPorts { bus.attach(device, at: port, count: 2) }
    }
    func out(_ port: UInt16, _ values: UInt64...) {
        for value in values { bus.write(port, width: .byte, value: value) }
    }
    func read(_ port: UInt16, width: AccessWidth = .byte) -> UInt64 { bus.read(port, width: width) }
    func get(_ offset: UInt64, _ processor: Int = 0) -> UInt64 {
        fabric.readLocal(offset, width: .doubleWord, processor: processor)
    }
    func set(_ offset: UInt64, _ value: UInt64, _ processor: Int = 0) {
        fabric.writeLocal(offset, width: .doubleWord, value: value, processor: processor)
    }
    func ioGet(_ register: UInt64) -> UInt64 {
        ioapic.write(offset: 0, width: .doubleWord, value: register)
        return ioapic.read(offset: 0x10, width: .doubleWord)
    }
    func ioSet(_ register: UInt64, _ value: UInt64) {
        ioapic.write(offset: 0, width: .doubleWord, value: register)
        ioapic.write(offset: 0x10, width: .doubleWord, value: value)
    }
    func route(_ input: UInt64, low: UInt64, destination: UInt64 = 0) {
        ioSet(0x11 + input * 2, destination << 24)
        ioSet(0x10 + input * 2, low)
    }
    /// Spurious vector 0xFF, APIC on, task priority 0: Linux, setup_local_APIC.
    func enable(_ processors: Int...) {
        for processor in processors {
            set(0xF0, 0x1FF, processor)
            set(0x80, 0, processor)
        }
    }
}

struct IOAPICTests {
    @Test func registersAreThoseOfTheICH9() {
        let bench = Bench()
        #expect(bench.ioGet(1) == 0x0017_0020 && bench.ioGet(0) == 0)
        bench.ioSet(0, 0xFF00_0000)
        #expect(bench.ioGet(0) == 0x0F00_0000)
        for register in UInt64(0x10)..<0x40 { #expect(bench.ioGet(register) == (register & 1 == 0 ? 0x10000 : 0)) }
        bench.ioSet(0x10, 0xFFFF_FFFF)
        bench.ioSet(0x11, 0xFFFF_FFFF)
        #expect(bench.ioGet(0x10) == 0x1AFFF && bench.ioGet(0x11) == 0xFF00_0000)
        bench.ioSet(0x40, 0)
        bench.ioSet(0xFF, 0)
        #expect(bench.ioGet(0x40) == 0 && bench.ioGet(0xFF) == 0)
    }

    @Test func edgeIsSentOnceAndLostWhileMasked() {
        let bench = Bench()
        bench.enable(0)
        bench.out(0x21, 0xFF)
        let line = bench.fabric.line(4)
        line.pulse()
        bench.route(4, low: 0x34)
        #expect(!bench.fabric.hasInterrupt(processor: 0))
        line.assert()
        line.assert()
        #expect(bench.fabric.acknowledge(processor: 0) == 0x34 && bench.fabric.acknowledge(processor: 0) == nil)
        bench.set(0xB0, 0)
        line.deassert()
        line.assert()
        #expect(bench.fabric.acknowledge(processor: 0) == 0x34)
    }

    @Test func levelIsSentAgainAfterItsEndWhileItIsHigh() {
        let bench = Bench()
        bench.enable(0)
        bench.route(16, low: 0x8050)
        let line = bench.fabric.line(16)
        line.assert()
        #expect(bench.ioGet(0x30) == 0xC050, "remote IRR")
        #expect(bench.fabric.acknowledge(processor: 0) == 0x50 && !bench.fabric.hasInterrupt(processor: 0))
        line.deassert()
        line.assert()
        #expect(!bench.fabric.hasInterrupt(processor: 0))
        bench.set(0xB0, 0)
        #expect(bench.fabric.acknowledge(processor: 0) == 0x50)
        line.deassert()
        bench.set(0xB0, 0)
        #expect(bench.ioGet(0x30) == 0x8050 && !bench.fabric.hasInterrupt(processor: 0))
    }

    /// Linux, __eoi_ioapic_pin: directed end, or a change to masked edge and back on old versions.
    @Test func remoteIRRIsClearedByTheRegisterAndByEdgeMode() {
        let bench = Bench()
        bench.enable(0)
        bench.set(0xF0, 0x11FF)
        bench.route(17, low: 0x8051)
        bench.fabric.line(17).assert()
        _ = bench.fabric.acknowledge(processor: 0)
        bench.set(0xB0, 0)
        #expect(bench.ioGet(0x32) == 0xC051, "the broadcast is suppressed")
        bench.fabric.line(17).deassert()
        bench.fabric.ioapicDevice.write(offset: 0x40, width: .doubleWord, value: 0x51)
        #expect(bench.ioGet(0x32) == 0x8051)
        bench.fabric.line(17).assert()
        bench.ioSet(0x32, 0x10051)
        #expect(bench.ioGet(0x32) == 0x10051)
        bench.fabric.line(17).deassert()
        bench.ioSet(0x32, 0x8051)
        #expect(bench.ioGet(0x32) == 0x8051)
    }

    @Test func timerIsAtInputTwoAndInMostMachinesAtThePICToo() {
        let bench = Bench()
        bench.enable(0)
        bench.route(2, low: 0x30)
        bench.fabric.line(0).pulse()
        #expect(bench.fabric.acknowledge(processor: 0) == 0x30)
    }

    @Test(arguments: UInt64(1)...4)
    func randomAccessesKeepRemoteIRRToLevels(seed: UInt64) throws {
        var random = Seeded(seed), chip = IOAPIC()
        for _ in 0..<5000 {
            let sent: UInt32
            switch random.next() % 4 {
            case 0: sent = chip.write(0, UInt32(truncatingIfNeeded: random.next() % 0x48))
            case 1: sent = chip.write(0x10, UInt32(truncatingIfNeeded: random.next()))
            case 2: sent = chip.setInput(Int(random.next() % 26), isAsserted: random.next() % 2 == 0)
            default: sent = chip.endOfInterrupt(UInt8(truncatingIfNeeded: random.next()))
            }
            #expect(sent >> 24 == 0)
            _ = chip.read(random.next() % 0x50)
        }
        var writer = StateWriter(), copy = IOAPIC()
        chip.save(into: &writer)
        var reader = StateReader(section: "ioapic", bytes: writer.bytes)
        try copy.restore(from: &reader, version: 1)
        #expect(copy == chip && reader.remaining == 0)
        for input in 0..<24 {
            chip.write(0, UInt32(0x10 + input * 2))
            let entry = chip.read(0x10)
            #expect(entry & 0x4000 == 0 || entry & 0x8000 != 0)
        }
    }
}

struct LocalAPICTests {
    /// Linux, verify_local_APIC and setup_local_APIC.
    @Test func registersAreThoseOfAnIntegratedAPIC() {
        let bench = Bench()
        #expect(bench.get(0x30) == 0x0105_0014 && bench.get(0x20, 3) == 3 << 24)
        #expect(
            bench.fabric.readMSR(0x1B, processor: 0) == 0xFEE0_0900
                && bench.fabric.readMSR(0x1B, processor: 1) == 0xFEE0_0800)
        #expect(
            bench.get(0xF0) == 0xFF && bench.get(0xE0) == 0xFFFF_FFFF && bench.get(0x350) == 0x700
                && bench.get(0x350, 1) == 0x10000)
        bench.set(0x350, 0x8700)
        #expect(bench.get(0x350) == 0x18700, "a disabled APIC keeps its table masked")
        bench.enable(0)
        bench.set(0x350, 0x8700)
        bench.set(0x360, 0x8400)
        #expect(bench.get(0x350) == 0x8700 && bench.get(0x360) == 0x8400)
        bench.set(0xD0, 0x0100_0000)
        bench.set(0xE0, 0xF0FF_FFFF)
        #expect(bench.get(0xD0) == 0x0100_0000 && bench.get(0xE0) == 0xFFFF_FFFF)
        bench.set(0x400, 0)
        bench.set(0x280, 0)
        #expect(bench.get(0x280) == 0x80, "illegal register")
        #expect(
            bench.fabric.readLocal(0x30, width: .byte, processor: 0) == 0
                && bench.fabric.readLocal(0x30, width: .doubleWord, processor: 9) == 0xFFFF_FFFF)
    }

    @Test func higherClassInterruptsLowerAndTheTaskPriorityHoldsBoth() {
        let bench = Bench()
        bench.enable(0)
        func message(_ vector: UInt32) { bench.fabric.send(InterruptMessage(address: 0xFEE0_0000, data: vector)) }
        message(0x41)
        #expect(bench.fabric.acknowledge(processor: 0) == 0x41 && bench.get(0xA0) == 0x40)
        message(0x4F)
        #expect(!bench.fabric.hasInterrupt(processor: 0), "same class")
        message(0x51)
        #expect(bench.get(0x220) == 1 << 15 | 1 << 17 && bench.fabric.acknowledge(processor: 0) == 0x51)
        #expect(bench.get(0x120) == 0b10 | 1 << 17 && bench.get(0x220) == 1 << 15)
        bench.set(0xB0, 0)
        bench.set(0xB0, 0)
        bench.fabric.setCR8(5, processor: 0)
        #expect(bench.get(0x80) == 0x50 && !bench.fabric.hasInterrupt(processor: 0))
        bench.set(0x80, 0x30)
        #expect(bench.fabric.cr8(processor: 0) == 3 && bench.fabric.acknowledge(processor: 0) == 0x4F)
        bench.set(0xB0, 0)
        #expect(bench.get(0xA0) == 0x30)
        message(0x05)
        bench.set(0x280, 0)
        #expect(bench.get(0x280) == 0x40, "vectors below 16 are errors")
    }

    /// SeaBIOS, src/fw/smp.c: INIT and SIPI to all others through the command register.
    @Test func firmwareStartsTheOtherProcessors() {
        let bench = Bench(3)
        bench.enable(0)
        bench.set(0x300, 0x000C_4500)
        #expect(bench.processors.take().events == ["1 initialize", "2 initialize"])
        bench.set(0x300, 0x000C_4610)
        #expect(bench.processors.take().events == ["1 startUp(vector: 16)", "2 startUp(vector: 16)"])
        bench.set(0x300, 0x000C_4610)
        #expect(bench.processors.take().events.isEmpty, "a second start-up is not waited for")
        #expect(bench.get(0x300) & 0x1000 == 0, "delivered")
        // Linux, wakeup_secondary_cpu_via_init: level assert, then de-assert, to one processor.
        bench.set(0x310, 2 << 24)
        bench.set(0x300, 0xC500)
        bench.set(0x300, 0x8500)
        bench.set(0x300, 0x0699)
        #expect(bench.processors.take().events == ["2 initialize", "2 startUp(vector: 153)"])
        bench.set(0x300, 0x000C_4400)
        #expect(bench.processors.take().events == ["1 nmi", "2 nmi"])
    }

    @Test func destinationsArePhysicalFlatOrClustered() {
        let bench = Bench(4)
        bench.enable(0, 1, 2, 3)
        for (index, logical) in [UInt64(1), 2, 4, 8].enumerated() { bench.set(0xD0, logical << 24, index) }
        func receivers(_ low: UInt64, _ high: UInt64) -> [Int] {
            bench.set(0x310, high << 24)
            bench.set(0x300, low)
            let all = (0..<4).filter { bench.fabric.acknowledge(processor: $0) == 0x60 }
            for index in all { bench.set(0xB0, 0, index) }
            return all
        }
        #expect(receivers(0x4060, 2) == [2] && receivers(0x4060, 0xFF) == [0, 1, 2, 3] && receivers(0x4060, 9) == [])
        #expect(receivers(0x4860, 0b1010) == [1, 3])
        #expect(
            receivers(0x44060, 0) == [0] && receivers(0x84060, 0) == [0, 1, 2, 3] && receivers(0xC4060, 0) == [1, 2, 3])
        for (index, logical) in [UInt64(0x11), 0x12, 0x21, 0x22].enumerated() {
            bench.set(0xE0, 0x0FFF_FFFF, index)
            bench.set(0xD0, logical << 24, index)
        }
        #expect(receivers(0x4860, 0x13) == [0, 1] && receivers(0x4860, 0x21) == [2])
        bench.set(0x80, 0x20, 0)
        bench.set(0x80, 0x10, 1)
        #expect(receivers(0x4960, 0x13) == [1], "the lowest priority takes it")
        bench.set(0x300, 0x4003)
        bench.set(0x280, 0)
        #expect(bench.get(0x280) == 0x20, "vectors below 16 are not sent")
    }

    @Test func messagesOfDevicesReachTheirDestination() {
        let bench = Bench(2)
        bench.enable(0, 1)
        bench.fabric.send(InterruptMessage(address: 0xFEE0_1000, data: 0x45))
        #expect(bench.processors.take().wakes == [1] && bench.fabric.acknowledge(processor: 1) == 0x45)
        bench.fabric.send(InterruptMessage(address: 0xFED0_1000, data: 0x45))
        bench.fabric.send(InterruptMessage(address: 0xFEE0_1000, data: 0x345))
        #expect(bench.processors.take().wakes.isEmpty)
    }

    /// Linux, calibrate_APIC_clock and lapic_next_event.
    @Test func timerCountsDownAndInterrupts() {
        let bench = Bench()
        bench.enable(0)
        bench.set(0x3E0, 0x03)
        bench.set(0x320, 0x000EC)
        bench.set(0x380, 1000)
        #expect(bench.get(0x390) == 1000 && bench.timer.deadline == 5_000 + 16_000)
        bench.clock.advance(nanoseconds: 8_000)
        #expect(bench.get(0x390) == 500)
        #expect(bench.timer.fire(bench.clock) && bench.processors.take().wakes == [0])
        #expect(bench.get(0x390) == 0 && bench.fabric.acknowledge(processor: 0) == 0xEC && bench.timer.deadline == nil)
        bench.set(0xB0, 0)
        bench.set(0x320, 0x200EC)
        bench.set(0x3E0, 0x0B)
        bench.set(0x380, 100_000)
        for _ in 0..<3 {
            #expect(bench.timer.fire(bench.clock) && bench.fabric.acknowledge(processor: 0) == 0xEC)
            bench.set(0xB0, 0)
        }
        #expect(bench.clock.nanoseconds == 21_000 + 300_000)
        bench.set(0x320, 0x300EC & 0x100FF)
        #expect(bench.timer.deadline == nil, "masked")
        bench.set(0x380, 0)
        bench.set(0x320, 0x200EC)
        bench.set(0x380, 1)
        let start = bench.clock.nanoseconds
        for _ in 0..<50 { #expect(bench.timer.fire(bench.clock)) }
        #expect(bench.clock.nanoseconds - start >= 49 * 50_000)
    }

    @Test func deadlineOfTheTimeStampCounterComesOnce() {
        let bench = Bench()
        bench.enable(0)
        bench.set(0x320, 0x400EC)
        bench.fabric.setDeadline(3_000, tsc: 1_000, hertz: 2_000_000_000, processor: 0)
        #expect(bench.timer.deadline == 6_000 && bench.fabric.tscDeadline(processor: 0) == 3_000)
        bench.set(0x380, 77)
        #expect(bench.get(0x390) == 0)
        #expect(bench.timer.fire(bench.clock) && bench.fabric.acknowledge(processor: 0) == 0xEC)
        #expect(bench.fabric.tscDeadline(processor: 0) == 0)
        bench.set(0xB0, 0)
        bench.fabric.setDeadline(.max, tsc: 1_000, hertz: 1, processor: 0)
        #expect(bench.timer.deadline == nil)
        bench.fabric.setDeadline(5, tsc: 1_000, hertz: 1, processor: 0)
        #expect(bench.fabric.acknowledge(processor: 0) == 0xEC, "the past is now")
    }

    @Test func x2APICIsEnteredLeftAndReachedByMSRs() {
        let bench = Bench(40)
        #expect(bench.fabric.readMSR(0x802, processor: 33) == nil)
        #expect(!bench.fabric.writeMSR(0x1B, 0xFEE0_0400, processor: 33), "not without the enable bit")
        #expect(
            bench.fabric.writeMSR(0x1B, 0xFEE0_0C00, processor: 33) && bench.fabric.localWindow(processor: 33) == nil)
        #expect(!bench.fabric.writeMSR(0x1B, 0xFEE0_0800, processor: 33), "not back to xAPIC")
        #expect(
            bench.fabric.readMSR(0x802, processor: 33) == 33
                && bench.fabric.readMSR(0x80D, processor: 33) == 2 << 16 | 2)
        #expect(bench.fabric.readMSR(0x80E, processor: 33) == nil && bench.fabric.readMSR(0x831, processor: 33) == nil)
        #expect(!bench.fabric.writeMSR(0x80B, 1, processor: 33) && !bench.fabric.writeMSR(0x802, 0, processor: 33))
        #expect(bench.fabric.writeMSR(0x80F, 0x1FF, processor: 33) && bench.fabric.writeMSR(0x83F, 0x44, processor: 33))
        #expect(bench.fabric.acknowledge(processor: 33) == 0x44 && bench.fabric.writeMSR(0x80B, 0, processor: 33))
        #expect(
            bench.fabric.writeMSR(0x830, 33 << 32 | 0x45, processor: 33)
                && bench.fabric.acknowledge(processor: 33) == 0x45)
        #expect(
            bench.fabric.writeMSR(0x830, 0x2_0002 << 32 | 0x866, processor: 33)
                && bench.fabric.acknowledge(processor: 33) == 0x66)
        #expect(bench.fabric.readMSR(0x830, processor: 33) == 0x2_0002 << 32 | 0x866)
        #expect(
            bench.fabric.writeMSR(0x1B, 0xFEE0_0000, processor: 33)
                && bench.fabric.writeMSR(0x1B, 0xFEE0_0800, processor: 33))
        #expect(bench.fabric.localWindow(processor: 33) == 0xFEE0_0000)
    }

    @Test func legacyInterruptsComeThroughLINT0() {
        let bench = Bench()
        bench.out(0x20, 0x11)
        bench.out(0x21, 0x08, 0x04, 0x01, 0x00)
        bench.fabric.line(1).pulse()
        #expect(bench.processors.take().wakes == [0] && bench.fabric.acknowledge(processor: 0) == 0x09)
        bench.out(0x20, 0x20)
        #expect(!bench.fabric.hasInterrupt(processor: 0) && !bench.fabric.hasInterrupt(processor: 1))
        bench.enable(0)
        bench.set(0x350, 0x10700)
        bench.fabric.line(1).pulse()
        #expect(!bench.fabric.hasInterrupt(processor: 0))
        bench.set(0x350, 0x00700)
        #expect(bench.fabric.acknowledge(processor: 0) == 0x09)
        bench.out(0x4D1, 0x0C)
        #expect(bench.read(0x4D0, width: .word) == 0x0C00 && bench.read(0x21) == 0)
        #expect(bench.read(0x20, width: .doubleWord) >> 16 == 0xFFFF, "two ports each")
    }

    @Test func platformsNMIReachesTheProcessorsThatWantIt() {
        let bench = Bench(3)
        bench.enable(0, 1)
        bench.set(0x360, 0x400, 0)
        bench.set(0x360, 0x055, 1)
        bench.fabric.pulseNMI()
        #expect(bench.processors.take().events == ["0 nmi"] && bench.fabric.acknowledge(processor: 1) == 0x55)
    }

    @Test func stateSurvivesARoundTripAndATruncatedOneIsRefused() throws {
        let bench = Bench(2), copy = Bench(2)
        bench.enable(0, 1)
        bench.route(16, low: 0x8050, destination: 1)
        bench.fabric.line(16).assert()
        bench.set(0x320, 0x200EC)
        bench.set(0x380, 100_000)
        let saved = savedBytes(bench.fabric)
        copy.clock.advance(nanoseconds: 1_000_000)
        #expect(try restore(saved, into: copy.fabric) == 0)
        #expect(savedBytes(copy.fabric) == saved && copy.fabric.acknowledge(processor: 1) == 0x50)
        #expect(copy.timer.deadline! - copy.clock.nanoseconds == bench.timer.deadline! - bench.clock.nanoseconds)
        for count in stride(from: 0, to: saved.count, by: 3) {
            #expect(throws: DeviceStateError.self) { try restore(Array(saved[..<count]), into: copy.fabric) }
        }
        #expect(throws: DeviceStateError.self) { try restore(saved, into: Bench(3).fabric) }
        copy.fabric.reset()
        #expect(copy.get(0xF0) == 0xFF && copy.timer.deadline == nil)
    }

    @Test(arguments: UInt64(1)...8)
    func randomAccessesKeepPrioritiesInOrder(seed: UInt64) throws {
        var random = Seeded(seed)
        let bench = Bench(3)
        for _ in 0..<4000 {
            let processor = Int(random.next() % 4), value = random.next() >> (random.next() % 64)
            switch random.next() % 12 {
            case 0...2: bench.set((random.next() % 0x42) << 4, value, processor)
            case 3: _ = bench.fabric.writeMSR(0x800 + UInt32(random.next() % 0x42), value, processor: processor)
            case 4: _ = bench.fabric.writeMSR(0x1B, 0xFEE0_0000 | random.next() & 0xC00, processor: processor)
            case 5: bench.ioSet(random.next() % 0x42, value)
            case 6:
                let line = bench.fabric.line(UInt8(random.next() % 26))
                if random.next() % 2 == 0 { line.assert() } else { line.deassert() }
            case 7:
                bench.fabric.send(
                    InterruptMessage(
                        address: 0xFEE0_0000 | random.next() & 0xFFFFF, data: UInt32(truncatingIfNeeded: value)))
            case 8:
                bench.fabric.setDeadline(value, tsc: random.next(), hertz: random.next() >> 32, processor: processor)
            case 9: bench.clock.advance(nanoseconds: random.next() % 10_000_000)
            case 10: bench.out([0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1].randomElement(using: &random)!, value & 0xFF)
            default: if random.next() % 8 == 0 { bench.set(0xF0, 0x1FF, processor) }
            }
            if bench.fabric.hasInterrupt(processor: processor) {
                let before = bench.fabric.localWindow(processor: processor) == nil ? 0 : bench.get(0xA0, processor)
                let vector = bench.fabric.acknowledge(processor: processor)
                #expect(vector != nil)
                if bench.fabric.localWindow(processor: processor) != nil, bench.get(0xA0, processor) != before {
                    #expect(UInt64(vector ?? 0) >> 4 > before >> 4)
                }
            }
        }
        _ = try restore(savedBytes(bench.fabric), into: Bench(3).fabric)
        var state = savedBytes(bench.fabric)
        for index in state.indices where random.next() % 16 == 0 && index > 1 {
            state[index] = UInt8(truncatingIfNeeded: random.next())
        }
        _ = try? restore(state, into: bench.fabric)
        bench.clock.advance(nanoseconds: 1 << 40)
        for processor in 0..<3 { _ = bench.get(0x390, processor) }
    }
}
