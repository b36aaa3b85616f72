// The MC146818's time registers and CMOS bytes (data sheet §"Address map"): read from the host's wall clock, which a guest may
// not set. No alarm and no periodic interrupt yet.
package import MachineCore
import Synchronization

package final class CMOSClock: BusDevice {
    private let clock: any MachineClock
    private struct State { var index: UInt8 = 0; var bytes = [UInt8](repeating: 0, count: 128) }
    private let state = Mutex(State())

    package init(clock: any MachineClock) {
        self.clock = clock
        state.withLock {
            $0.bytes[0x0A] = 0x26
            $0.bytes[0x0B] = 0x02  // 24 hours, BCD
        }
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard offset == 1 else { return 0xFF }
        let now = clock.wallSeconds
        return state.withLock { UInt64(Self.register($0.index, now: now, bytes: $0.bytes)) }
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        let value = UInt8(truncatingIfNeeded: value)
        state.withLock {
            if offset == 0 { $0.index = value & 0x7F } else if $0.index > 0x0D || $0.index == 0x0B { $0.bytes[Int($0.index)] = value }
        }
    }

    /// One register at a moment: civil date of the proleptic Gregorian calendar.
    package static func register(_ index: UInt8, now: Int64, bytes: [UInt8]) -> UInt8 {
        let days = now >= 0 ? now / 86400 : (now - 86399) / 86400
        let second = now - days * 86400
        let (year, month, day) = civil(days)
        let control = bytes[0x0B]
        func coded(_ value: Int64) -> UInt8 {
            let value = UInt8(truncatingIfNeeded: value)
            return control & 4 != 0 ? value : (value / 10) << 4 | value % 10
        }
        switch index {
        case 0x00: return coded(second % 60)
        case 0x02: return coded(second / 60 % 60)
        case 0x04:
            let hour = second / 3600
            if control & 2 != 0 { return coded(hour) }
            return coded(hour % 12 == 0 ? 12 : hour % 12) | (hour >= 12 ? 0x80 : 0)
        case 0x06: return coded((days + 4) % 7 + 1)
        case 0x07: return coded(day)
        case 0x08: return coded(month)
        case 0x09: return coded(year % 100)
        case 0x32: return coded(year / 100)
        case 0x0C: return 0
        case 0x0D: return 0x80  // VRT: the battery is good
        default: return bytes[Int(index & 0x7F)]
        }
    }

    /// Days since 1970-01-01 as year, month, day.
    static func civil(_ days: Int64) -> (year: Int64, month: Int64, day: Int64) {
        let shifted = days + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * shiftedMonth + 2) / 5 + 1)
    }
}
