// The 8254 on the bus, for a machine whose accelerator has none: ports 0x40 to 0x43, and port B at 0x61.
//
//     let pit = IntervalTimer(clock: hostClock, timer: try LoopTimer(on: loop), line: irq0)
//     ports.attach(pit, at: 0x40, count: 4)
//     ports.attach(pit.portB, at: 0x61, count: 1)      // before the keyboard controller, whose window covers it
//
// Interrupts that the host was too late for are lost, not sent later in a burst.
package import MachineCore
import Synchronization

package final class IntervalTimer: BusDevice, SavableDevice {
    package static let stateVersion = I8254.stateVersion
    package var stateName: String { "pit" }

    private struct Wiring: Sendable {
        var chip: I8254
        var deadline: UInt64?
        /// The HPET stands in for channel 0.
        var isReplaced = false
    }
    private let wiring: Mutex<Wiring>
    private let clock: any MachineClock
    private let timer: (any DeadlineTimer)?
    private let line: (any InterruptLine)?

    package init(clock: any MachineClock, timer: (any DeadlineTimer)?, line: (any InterruptLine)?) {
        self.clock = clock
        self.timer = timer
        self.line = line
        wiring = Mutex(Wiring(chip: I8254(at: clock.nanoseconds)))
        timer?.onExpiry { [weak self] in self?.timerExpired() }
    }

    /// The device for port 0x61.
    package var portB: any BusDevice { PortB(self) }

    /// Channel 0 does not interrupt while the HPET does in its place. Takes the timer's lock and drives leaves only, so
    /// that the HPET may call it under its own.
    package func setReplaced(_ isReplaced: Bool) {
        withChip { _, _ in }
        wiring.withLock { $0.isReplaced = isReplaced }
        withChip { _, _ in }
    }

    private func withChip<Result: Sendable>(_ body: (inout I8254, UInt64) -> Result) -> Result {
        wiring.withLock { wiring in
            // Taken under the lock, so that the chip never sees time go back.
            let now = clock.nanoseconds
            if wiring.chip.advance(to: now) > 0, !wiring.isReplaced { line?.pulse() }
            let result = body(&wiring.chip, now)
            if let timer {
                let deadline = wiring.isReplaced ? nil : wiring.chip.nextDeadline()
                if deadline != wiring.deadline {
                    wiring.deadline = deadline
                    timer.set(to: deadline)
                }
            }
            return result
        }
    }

    private func timerExpired() {
        wiring.withLock { $0.deadline = nil }
        withChip { _, _ in }
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard offset < 4, width == .byte else { return width.allOnes }
        return UInt64(withChip { chip, now in chip.read(UInt8(offset), at: now) })
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard offset < 4, width == .byte else { return }
        withChip { chip, now in chip.write(UInt8(offset), UInt8(truncatingIfNeeded: value), at: now) }
    }

    package func reset() { withChip { chip, now in chip = I8254(at: now) } }

    package func saveState(into writer: inout StateWriter) {
        let (chip, now) = withChip { ($0, $1) }
        chip.save(into: &writer, at: now)
    }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        let now = clock.nanoseconds
        var chip = I8254(at: now)
        try chip.restore(from: &reader, version: version, at: now)
        withChip { [chip] current, _ in current = chip }
    }

    private final class PortB: BusDevice {
        private let timer: IntervalTimer

        init(_ timer: IntervalTimer) { self.timer = timer }

        func read(offset: UInt64, width: AccessWidth) -> UInt64 {
            UInt64(timer.withChip { chip, now in chip.readPortB(at: now) })
        }

        func write(offset: UInt64, width: AccessWidth, value: UInt64) {
            timer.withChip { chip, now in chip.writePortB(UInt8(truncatingIfNeeded: value), at: now) }
        }
    }
}
