// The real-time clock on the bus: ports 0x70 (which register; bit 7 is the NMI mask, kept elsewhere) and 0x71 (its value).
//
//     let clock = CMOSClock(clock: hostClock, line: irq8, timer: try LoopTimer(on: loop))
//     ports.attach(clock, at: 0x70, count: 2)
//
// Without line and timer the flags of register C still tell what happened, and nothing interrupts.
package import MachineCore
import Synchronization

package final class CMOSClock: BusDevice, SavableDevice {
    package static let stateVersion: UInt32 = 1
    package var stateName: String { "rtc" }

    private struct Wiring: Sendable {
        var chip: MC146818
        var isAsserted = false
        /// What the timer was last set to.
        var deadline: UInt64?
    }
    private let wiring: Mutex<Wiring>
    private let clock: any MachineClock
    private let line: (any InterruptLine)?
    private let timer: (any DeadlineTimer)?

    package init(
        clock: any MachineClock, line: (any InterruptLine)? = nil, timer: (any DeadlineTimer)? = nil
    ) {
        self.clock = clock
        self.line = line
        self.timer = timer
        wiring = Mutex(Wiring(chip: MC146818(at: Self.moment(clock))))
        timer?.onExpiry { [weak self] in self?.timerExpired() }
    }

    private static func moment(_ clock: any MachineClock) -> MC146818.Moment {
        MC146818.Moment(nanoseconds: clock.nanoseconds, wallSeconds: clock.wallSeconds)
    }

    private func withChip<Result: Sendable>(_ body: (inout MC146818, MC146818.Moment) -> Result) -> Result {
        wiring.withLock { wiring in
            // Taken under the lock, so that the chip never sees time go back.
            let now = Self.moment(clock)
            let result = body(&wiring.chip, now)
            if wiring.chip.isInterrupting != wiring.isAsserted {
                wiring.isAsserted.toggle()
                if wiring.isAsserted { line?.assert() } else { line?.deassert() }
            }
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

    private func timerExpired() {
        wiring.withLock { $0.deadline = nil }
        withChip { chip, now in chip.advance(to: now) }
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard offset == 1, width == .byte else { return width.allOnes }
        return UInt64(withChip { chip, now in chip.read(at: now) })
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard width == .byte else { return }
        let value = UInt8(truncatingIfNeeded: value)
        switch offset {
        case 0: wiring.withLock { $0.chip.index = value & 0x7F }
        case 1: withChip { chip, now in chip.write(value, at: now) }
        default: break
        }
    }

    /// Puts bytes into the battery-backed memory, before the guest starts: index (0x0E-0x7F) and value.
    package func setMemory(_ bytes: [(index: UInt8, value: UInt8)]) {
        withChip { chip, _ in for (index, value) in bytes where (0x0E..<0x80).contains(index) { chip.bytes[Int(index)] = value } }
    }

    package func reset() { withChip { chip, now in chip.reset(at: now) } }

    package func saveState(into writer: inout StateWriter) {
        let chip = withChip { chip, now in
            chip.advance(to: now)
            return chip
        }
        writer.write(chip.bytes)
        writer.write(chip.index)
        writer.write(chip.offset)
        writer.write(chip.flags)
    }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        let bytes = try reader.readBytes(limit: 128)
        let index: UInt8 = try reader.read(), offset: Int64 = try reader.read(), flags: UInt8 = try reader.read()
        guard bytes.count == 128 else {
            throw DeviceStateError(section: stateName, reason: "\(bytes.count) bytes of CMOS memory, 128 are needed")
        }
        withChip { chip, now in chip.resume(bytes: bytes, index: index, offset: offset, flags: flags, at: now) }
    }
}
