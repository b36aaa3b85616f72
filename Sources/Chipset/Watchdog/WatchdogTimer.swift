// The 6300ESB watchdog with its clock, its line and what its end means; a PCI function passes configuration bytes on
// and has this as its BAR 0.
//
//     let watchdog = WatchdogTimer(clock: boardClock, timer: try boardClock.makeTimer(on: loop), line: intx) { driver.watchdogFired($0) }
package import MachineCore
import Synchronization

package final class WatchdogTimer: BusDevice, SavableDevice {
    package static let stateVersion = I6300ESB.stateVersion
    package var stateName: String { "i6300esb" }

    private struct Wiring: Sendable {
        var chip = I6300ESB()
        var isAsserted = false
        var deadline: UInt64?
    }
    private let wiring = Mutex(Wiring())
    private let clock: any MachineClock
    private let timer: (any DeadlineTimer)?
    private let line: (any InterruptLine)?
    private let expiry: @Sendable (I6300ESB.Expiry) -> Void

    /// No time passes on `clock` while the machine stands still: its guest could not feed the watchdog then. `expiry` is told `.smi`
    /// and `.reset`, on the timer's or a vCPU thread, with no lock held; what a reset becomes (reset, power off, pause, nothing) is the
    /// machine's configuration. Interrupts go to `line`.
    package init(
        clock: any MachineClock, timer: (any DeadlineTimer)?, line: (any InterruptLine)? = nil,
        expiry: @escaping @Sendable (I6300ESB.Expiry) -> Void
    ) {
        self.clock = clock
        self.timer = timer
        self.line = line
        self.expiry = expiry
        timer?.onExpiry { [weak self] in self?.timerExpired() }
    }

    private func withChip<Result: Sendable>(_ body: (inout I6300ESB, UInt64) -> Result) -> Result {
        let (result, ended) = wiring.withLock { wiring -> (Result, I6300ESB.Expiry?) in
            let now = clock.nanoseconds
            let ended = wiring.chip.advance(to: now)
            let result = body(&wiring.chip, now)
            if wiring.chip.isInterrupting != wiring.isAsserted {
                wiring.isAsserted.toggle()
                if wiring.isAsserted { line?.assert() } else { line?.deassert() }
            }
            let deadline = wiring.chip.nextDeadline
            if let timer, deadline != wiring.deadline {
                wiring.deadline = deadline
                timer.set(to: deadline)
            }
            return (result, ended)
        }
        if let ended, ended != .interrupt { expiry(ended) }
        return result
    }

    // MARK: The machine's side

    private func timerExpired() {
        wiring.withLock { $0.deadline = nil }
        withChip { _, _ in }
    }

    /// The byte at `offset` of configuration space; nil: not the watchdog's.
    package func readConfiguration(_ offset: Int) -> UInt8? { withChip { chip, _ in chip.readConfiguration(offset) } }

    package func writeConfiguration(_ offset: Int, _ value: UInt8) {
        withChip { chip, now in chip.writeConfiguration(offset, value, at: now) }
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard offset < I6300ESB.byteCount else { return width.allOnes }
        return withChip { chip, _ in UInt64(chip.read(offset & ~3) >> UInt32((offset & 3) * 8)) }
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard offset < I6300ESB.byteCount, offset & 3 == 0 else { return }
        withChip { chip, now in chip.write(offset, UInt32(truncatingIfNeeded: value), at: now) }
    }

    package func reset() { withChip { chip, _ in chip.reset() } }

    package func saveState(into writer: inout StateWriter) {
        let (chip, now) = withChip { ($0, $1) }
        chip.save(into: &writer, at: now)
    }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        var chip = I6300ESB()
        try chip.restore(from: &reader, version: version, at: clock.nanoseconds)
        withChip { [chip] current, _ in current = chip }
    }
}
