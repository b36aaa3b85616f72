import Chipset
import MachineCore
import Testing

/// The pair by its port numbers, with INTR followed by what each access says.
private final class Bench {
    var pair = I8259Pair()
    private(set) var isInterrupting = false
    private func follow(_ level: Bool?) {
        guard let level else { return }
        #expect(level != isInterrupting)
        isInterrupting = level
    }
    func out(_ port: UInt16, _ values: UInt8...) {
        guard let port = I8259Pair.Port(rawValue: port) else { return }
        for value in values { follow(pair.write(port, value)) }
    }
    func read(_ port: UInt16) -> UInt8 {
        guard let port = I8259Pair.Port(rawValue: port) else { return 0xFF }
        let (value, level) = pair.read(port)
        follow(level)
        return value
    }
    func acknowledge() -> UInt8 {
        let (vector, level) = pair.acknowledge()
        follow(level)
        return vector
    }
    func raise(_ number: UInt8) { follow(pair.setInput(number, isHigh: true)) }
    func lower(_ number: UInt8) { follow(pair.setInput(number, isHigh: false)) }
    func pulse(_ number: UInt8) {
        raise(number)
        lower(number)
    }

    /// Linux, arch/x86/kernel/i8259.c, init_8259A: vectors 0x30 and 0x38, everything unmasked afterwards.
    func setUp(icw4: UInt8 = 0x01, slaveICW4: UInt8 = 0x01) {
        out(0x21, 0xFF)
        out(0x20, 0x11)
        out(0x21, 0x30, 0x04, icw4)
        out(0xA0, 0x11)
        out(0xA1, 0x38, 0x02, slaveICW4)
        out(0x21, 0x00)
        out(0xA1, 0x00)
    }
}

struct I8259Tests {
    /// SeaBIOS, src/hw/pic.c: pic_reset, enable_hwirq; src/fw/pciinit.c writes the ELCR.
    @Test func firmwareSetsUpBothControllers() {
        let bench = Bench()
        bench.out(0x20, 0x11)
        bench.out(0xA0, 0x11)
        bench.out(0x21, 0x08)
        bench.out(0xA1, 0x70)
        bench.out(0x21, 0x04)
        bench.out(0xA1, 0x02)
        bench.out(0x21, 0x01)
        bench.out(0xA1, 0x01)
        bench.out(0x21, 0xFB)
        bench.out(0xA1, 0xFF)
        #expect(bench.read(0x21) == 0xFB && bench.read(0xA1) == 0xFF)
        bench.out(0x4D0, 0xFF)
        bench.out(0x4D1, 0x0C)
        #expect(bench.read(0x4D0) == 0xF8 && bench.read(0x4D1) == 0x0C)
        bench.pulse(1)
        #expect(!bench.isInterrupting)
        bench.out(0x21, 0xF9)
        #expect(bench.isInterrupting && bench.acknowledge() == 0x09)
        bench.out(0x20, 0x0B)
        #expect(bench.read(0x20) == 0x02, "in service")
        bench.out(0x20, 0x20)
        #expect(bench.read(0x20) == 0x00)
        bench.out(0xA1, 0xFE)
        bench.pulse(8)
        #expect(bench.acknowledge() == 0x70)
        bench.out(0xA0, 0x20)
        bench.out(0x20, 0x20)
        #expect(!bench.isInterrupting)
    }

    /// Linux, probe_8259A: a mask written is read back, so that the PIC is there.
    @Test func maskReadsBackAfterInitialisation() {
        let bench = Bench()
        bench.out(0xA1, 0xFF)
        bench.out(0x21, 0xFB)
        #expect(bench.read(0x21) == 0xFB)
    }

    @Test func lowerNumberInterruptsHigherAndSlaveSitsAtTwo() {
        let bench = Bench()
        bench.setUp()
        bench.pulse(4)
        #expect(bench.acknowledge() == 0x34 && !bench.isInterrupting)
        bench.pulse(5)
        #expect(!bench.isInterrupting)
        bench.pulse(14)
        #expect(bench.isInterrupting && bench.acknowledge() == 0x3E)
        bench.pulse(9)
        #expect(!bench.isInterrupting, "the master has 2 in service")
        bench.out(0xA0, 0x66)
        bench.out(0x20, 0x62)
        #expect(bench.isInterrupting && bench.acknowledge() == 0x39)
        bench.out(0xA0, 0x61)
        bench.out(0x20, 0x62, 0x64)
        #expect(bench.acknowledge() == 0x35)
    }

    @Test func specialFullyNestedModeLetsTheSlavesHigherInterruptThrough() {
        let bench = Bench()
        bench.setUp(icw4: 0x11)
        bench.pulse(14)
        #expect(bench.acknowledge() == 0x3E)
        bench.pulse(9)
        #expect(bench.isInterrupting && bench.acknowledge() == 0x39)
        bench.pulse(15)
        #expect(!bench.isInterrupting)
    }

    @Test func edgeIsLatchedAndLevelIsFollowed() {
        let bench = Bench()
        bench.setUp()
        bench.out(0x4D1, 0x0C)
        bench.raise(10)
        #expect(bench.isInterrupting)
        bench.lower(10)
        #expect(!bench.isInterrupting)
        bench.raise(10)
        #expect(bench.acknowledge() == 0x3A)
        bench.out(0xA0, 0x20)
        bench.out(0x20, 0x20)
        #expect(bench.isInterrupting && bench.acknowledge() == 0x3A, "still high")
        bench.lower(10)
        bench.out(0xA0, 0x20)
        bench.out(0x20, 0x20)
        bench.raise(3)
        #expect(bench.acknowledge() == 0x33)
        bench.out(0x20, 0x20)
        #expect(!bench.isInterrupting, "an edge counts once")
        bench.lower(3)
        bench.raise(3)
        #expect(bench.isInterrupting)
    }

    @Test func requestThatHasGoneIsSpurious() {
        let bench = Bench()
        bench.setUp()
        #expect(bench.acknowledge() == 0x37)
        bench.out(0x20, 0x0B)
        #expect(bench.read(0x20) == 0, "nothing is in service")
        bench.pulse(5)
        bench.out(0x21, 0x20)
        #expect(!bench.isInterrupting && bench.acknowledge() == 0x37)
    }

    @Test func automaticEndRotationAndSpecialMask() {
        let bench = Bench()
        bench.setUp(icw4: 0x03)
        bench.pulse(3)
        #expect(bench.acknowledge() == 0x33)
        bench.pulse(3)
        #expect(bench.isInterrupting, "nothing in service holds it off")
        bench.out(0x20, 0x80)
        #expect(bench.acknowledge() == 0x33)
        bench.pulse(3)
        bench.pulse(4)
        #expect(bench.acknowledge() == 0x34 && bench.acknowledge() == 0x33, "3 became the lowest")

        let rotating = Bench()
        rotating.setUp()
        rotating.pulse(1)
        #expect(rotating.acknowledge() == 0x31)
        rotating.out(0x20, 0xA0)
        rotating.pulse(1)
        rotating.pulse(7)
        #expect(rotating.acknowledge() == 0x37)
        rotating.out(0x20, 0xE7)
        rotating.pulse(0)
        #expect(rotating.acknowledge() == 0x30, "after 7 the order is as at first")
        rotating.out(0x20, 0x60, 0xC3)
        rotating.pulse(4)
        #expect(rotating.acknowledge() == 0x34)

        let masked = Bench()
        masked.setUp()
        masked.pulse(1)
        #expect(masked.acknowledge() == 0x31)
        masked.pulse(6)
        #expect(!masked.isInterrupting)
        masked.out(0x21, 0x02)
        masked.out(0x20, 0x68)
        #expect(masked.isInterrupting && masked.acknowledge() == 0x36)
        masked.out(0x20, 0x20, 0x0B)
        #expect(masked.read(0x20) == 0x02, "the unnamed end was of 6")
    }

    @Test func pollAcknowledges() {
        let bench = Bench()
        bench.setUp()
        bench.out(0x20, 0x0C)
        #expect(bench.read(0x20) == 0)
        bench.pulse(6)
        bench.out(0x20, 0x0C)
        #expect(bench.read(0x21) == 0x86 && !bench.isInterrupting)
        #expect(bench.read(0x21) == 0)
    }

    @Test func inputTwoAndUnknownNumbersDoNotExist() {
        let bench = Bench()
        bench.setUp()
        bench.raise(2)
        bench.raise(200)
        #expect(!bench.isInterrupting)
    }

    @Test func stateSurvivesARoundTripAndATruncatedOneIsRefused() throws {
        let bench = Bench()
        bench.setUp()
        bench.pulse(14)
        _ = bench.acknowledge()
        bench.pulse(0)
        var writer = StateWriter(), copy = I8259Pair()
        bench.pair.save(into: &writer)
        var reader = StateReader(section: "pic", bytes: writer.bytes)
        try copy.restore(from: &reader, version: 1)
        #expect(reader.remaining == 0 && copy == bench.pair && copy.isInterrupting && copy.acknowledge().vector == 0x30)
        for count in 0..<writer.bytes.count {
            var reader = StateReader(section: "pic", bytes: Array(writer.bytes[..<count]))
            #expect(throws: DeviceStateError.self) { try copy.restore(from: &reader, version: 1) }
        }
    }

    @Test(arguments: UInt64(1)...8)
    func randomAccessesKeepINTRInStepAndLoseNothing(seed: UInt64) throws {
        var random = Seeded(seed), pair = I8259Pair(), level = false
        let ports: [I8259Pair.Port] = [.masterCommand, .masterData, .slaveCommand, .slaveData, .masterELCR, .slaveELCR]
        for _ in 0..<5000 {
            let change: Bool?
            switch random.next() % 4 {
            case 0: change = pair.write(ports.randomElement(using: &random)!, UInt8(truncatingIfNeeded: random.next()))
            case 1: change = pair.read(ports.randomElement(using: &random)!).interruptRequest
            case 2: change = pair.setInput(UInt8(random.next() % 18), isHigh: random.next() % 2 == 0)
            default: change = pair.acknowledge().interruptRequest
            }
            if let change {
                #expect(change != level)
                level = change
            }
            #expect(pair.isInterrupting == level)
        }
        // Whatever came before, a driver that starts anew gets each interrupt once.
        for number in UInt8(0)..<16 { pair.setInput(number, isHigh: false) }
        for (port, value) in [
            (I8259Pair.Port.masterELCR, UInt8(0)), (.slaveELCR, 0), (.masterCommand, 0x11), (.masterData, 0x30),
            (.masterData, 4),
            (.masterData, 1), (.slaveCommand, 0x11), (.slaveData, 0x38), (.slaveData, 2), (.slaveData, 1),
        ] { pair.write(port, value) }
        for number in UInt8(0)..<16 where number != 2 { pair.setInput(number, isHigh: true) }
        var seen: [UInt8] = []
        while pair.isInterrupting, seen.count < 20 {
            seen.append(pair.acknowledge().vector)
            if seen.last! >= 0x38 { pair.write(.slaveCommand, 0x20) }
            pair.write(.masterCommand, 0x20)
        }
        #expect(seen == [0x30, 0x31, 0x38, 0x39, 0x3A, 0x3B, 0x3C, 0x3D, 0x3E, 0x3F, 0x33, 0x34, 0x35, 0x36, 0x37])
    }
}
