// The 8254 interval timer (Intel data sheet 231164) with port B (0x61), which gates and shows its third channel: modes
// 0 to 5, binary and BCD, latches, read-back. Time is handed in as nanoseconds; nothing counts while nobody looks.

package struct I8254: Sendable, Equatable {
    /// The clock of all three channels.
    package static let hertz: UInt64 = 1_193_182
    /// The least time between two interrupts the host wakes for: shorter periods would only keep it busy.
    static let minimumPeriodNanoseconds: UInt64 = 50_000

    package enum PortB {
        /// Gate of channel 2, speaker data, the two disables of parity and channel check; refresh and OUT 2 are
        /// read-only.
        package static let gate2: UInt8 = 0x01, speaker: UInt8 = 0x02, writable: UInt8 = 0x0F
        package static let refresh: UInt8 = 0x10, output2: UInt8 = 0x20
    }

    var channel0 = Channel(gate: true), channel1 = Channel(gate: true), channel2 = Channel(gate: false)
    package internal(set) var portB: UInt8 = 0
    /// The tick up to which interrupts of channel 0 were counted, and when one was last told.
    var seen: UInt64 = 0
    var lastInterrupt: UInt64 = 0

    package init(at now: UInt64) { seen = Self.ticks(now) }

    /// Whole ticks at `now`.
    static func ticks(_ now: UInt64) -> UInt64 {
        let (seconds, part) = now.quotientAndRemainder(dividingBy: 1_000_000_000)
        return seconds &* hertz &+ part * hertz / 1_000_000_000
    }

    /// The first nanosecond of `tick`.
    static func nanoseconds(_ tick: UInt64) -> UInt64 {
        let (seconds, part) = tick.quotientAndRemainder(dividingBy: hertz)
        return seconds &* 1_000_000_000 &+ (part * 1_000_000_000 + hertz - 1) / hertz
    }

    private mutating func withChannel<Result>(_ index: UInt8, _ body: (inout Channel) -> Result) -> Result {
        switch index {
        case 0: body(&channel0)
        case 1: body(&channel1)
        default: body(&channel2)
        }
    }

    /// The level of OUT of channel 0 to 2.
    package func output(_ index: UInt8, at now: UInt64) -> Bool {
        (index == 0 ? channel0 : index == 1 ? channel1 : channel2).output(at: Self.ticks(now))
    }

    // MARK: Channel 0's interrupt

    /// How often OUT of channel 0 rose until `now`: one interrupt each, or one in all where the owner lets missed ones
    /// go.
    package mutating func advance(to now: UInt64) -> UInt64 {
        let tick = Self.ticks(now)
        guard tick > seen else { return 0 }
        let rises = channel0.rises(from: seen, to: tick)
        channel1.settle(at: tick)
        channel2.settle(at: tick)
        seen = tick
        if rises > 0 { lastInterrupt = now }
        return rises
    }

    /// When OUT of channel 0 next rises, in nanoseconds; nil: not at all.
    package func nextDeadline() -> UInt64? {
        guard let tick = channel0.nextRise(after: seen) else { return nil }
        let due = Self.nanoseconds(tick)
        return channel0.isPeriodic ? max(due, lastInterrupt &+ Self.minimumPeriodNanoseconds) : due
    }

    // MARK: Registers. The caller calls `advance` before.

    /// Ports 0x40 to 0x43.
    package mutating func write(_ register: UInt8, _ value: UInt8, at now: UInt64) {
        let tick = Self.ticks(now)
        guard register == 3 else { return withChannel(register) { $0.write(value, at: tick) } }
        let select = value >> 6, access = value >> 4 & 3
        if select == 3 {
            // Read-back: the latches asked for are those whose bit is 0.
            for index in UInt8(0)...2 where value & 2 << index != 0 {
                withChannel(index) {
                    if value & 0x20 == 0 { $0.latchCount(at: tick) }
                    if value & 0x10 == 0 { $0.latchStatus(at: tick) }
                }
            }
        } else if access == 0 {
            withChannel(select) { $0.latchCount(at: tick) }
        } else {
            withChannel(select) { $0.setControl(value) }
        }
    }

    package mutating func read(_ register: UInt8, at now: UInt64) -> UInt8 {
        guard register < 3 else { return 0xFF }
        return withChannel(register) { $0.read(at: Self.ticks(now)) }
    }

    /// Port 0x61. The refresh bit toggles about every 15 us, by which old software measures short times.
    package func readPortB(at now: UInt64) -> UInt8 {
        portB | (now >> 14 & 1 != 0 ? PortB.refresh : 0) | (output(2, at: now) ? PortB.output2 : 0)
    }

    package mutating func writePortB(_ value: UInt8, at now: UInt64) {
        portB = value & PortB.writable
        channel2.setGate(value & PortB.gate2 != 0, at: Self.ticks(now))
    }
}
