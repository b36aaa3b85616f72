// The HPET on the bus: 1 KiB of registers at 0xFED00000, one host timer for the three comparators, interrupt lines by
// route.
//
//     let hpet = EventTimerBlock(clock: hostClock, timer: try LoopTimer(on: loop)) { route in
//         switch route { case .legacy(let irq): isaLines[irq]; case .pin(let pin): gsiLines[pin] }
//     }
//     memory.attach(hpet, at: EventTimerBlock.baseAddress, byteCount: HPET.byteCount)
//
// While the guest has legacy replacement on, the board keeps the PIT's and the RTC's interrupts away:
// `onLegacyReplacement`.
package import MachineCore
import Synchronization

package final class EventTimerBlock: BusDevice, SavableDevice {
    package static let stateVersion = HPET.stateVersion
    package static let baseAddress: UInt64 = 0xFED0_0000
    package var stateName: String { "hpet" }

    private struct Wiring: Sendable {
        var chip: HPET
        /// Lines held up, by bit of `bit(of:)`.
        var asserted: UInt64 = 0
        var replacesLegacyTimers = false
        /// What the timer was last set to.
        var deadline: UInt64?
        var legacyReplacementHandler: (@Sendable (Bool) -> Void)?
    }
    private let wiring: Mutex<Wiring>
    private let clock: any MachineClock
    private let timer: (any DeadlineTimer)?
    private let line: @Sendable (HPET.Route) -> (any InterruptLine)?

    /// `line` is asked under the lock, each time a line changes: it looks up, it makes none. Nil: nothing is connected
    /// there.
    package init(
        clock: any MachineClock, timer: (any DeadlineTimer)?, routes: UInt32 = HPET().routes,
        line: @escaping @Sendable (HPET.Route) -> (any InterruptLine)?
    ) {
        self.clock = clock
        self.timer = timer
        self.line = line
        wiring = Mutex(Wiring(chip: HPET(routes: routes)))
        timer?.onExpiry { [weak self] in self?.timerExpired() }
    }

    /// Tells, under the lock, whether the HPET stands in for the PIT and the RTC; the handler is a leaf.
    package func onLegacyReplacement(_ handler: @escaping @Sendable (Bool) -> Void) {
        wiring.withLock { $0.legacyReplacementHandler = handler }
    }

    private func withChip<Result: Sendable>(_ body: (inout HPET, UInt64) -> Result) -> Result {
        wiring.withLock { wiring in
            // Taken under the lock, so that the chip never sees time go back.
            let now = clock.nanoseconds
            let result = body(&wiring.chip, now)
            if wiring.chip.replacesLegacyTimers != wiring.replacesLegacyTimers {
                wiring.replacesLegacyTimers.toggle()
                wiring.legacyReplacementHandler?(wiring.replacesLegacyTimers)
            }
            drive(&wiring)
            if let timer {
                let deadline = wiring.chip.nextDeadline(at: now)
                if deadline != wiring.deadline {
                    wiring.deadline = deadline
                    timer.set(to: deadline)
                }
            }
            return result
        }
    }

    private func drive(_ wiring: inout Wiring) {
        var asserted: UInt64 = 0
        for index in 0..<HPET.timerCount where wiring.chip.isAsserting(index) {
            if let route = wiring.chip.route(of: index) { asserted |= Self.bit(of: route) }
        }
        var changed = asserted ^ wiring.asserted
        wiring.asserted = asserted
        while changed != 0 {
            let bit = changed & (0 &- changed)
            changed &= ~bit
            guard let line = line(Self.route(of: bit)) else { continue }
            if asserted & bit != 0 { line.assert() } else { line.deassert() }
        }
        let edges = wiring.chip.takeEdges()
        for index in 0..<HPET.timerCount where edges & 1 << UInt8(index) != 0 {
            if let route = wiring.chip.route(of: index) { line(route)?.pulse() }
        }
    }

    /// Inputs of the I/O APIC are the low 32 bits, ISA interrupts the high ones.
    private static func bit(of route: HPET.Route) -> UInt64 {
        switch route {
        case .pin(let pin): 1 << UInt64(pin & 31)
        case .legacy(let number): 1 << UInt64(32 | number & 31)
        }
    }

    private static func route(of bit: UInt64) -> HPET.Route {
        let place = UInt8(bit.trailingZeroBitCount)
        return place < 32 ? .pin(place) : .legacy(place & 31)
    }

    private func timerExpired() {
        wiring.withLock { $0.deadline = nil }
        withChip { chip, now in chip.advance(to: now) }
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        withChip { chip, now in chip.read(offset, width: width, at: now) }
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        withChip { chip, now in chip.write(offset, width: width, value: value, at: now) }
    }

    package func reset() { withChip { chip, _ in chip = HPET(routes: chip.routes) } }

    package func saveState(into writer: inout StateWriter) {
        let (chip, now) = withChip { chip, now in
            chip.advance(to: now)
            return (chip, now)
        }
        chip.save(into: &writer, at: now)
    }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        let (old, now) = withChip { ($0, $1) }
        var chip = old
        try chip.restore(from: &reader, version: version, at: now)
        withChip { [chip] current, _ in current = chip }
    }
}
