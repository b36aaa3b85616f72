// The real-time clock of a PC: Motorola MC146818A (data sheet §"Address map", "Registers", "Update cycle"), with 128 bytes and
// the century at 0x32. No bus, no lock, no timer: each call is handed the time, and `nextDeadline` says when to call again.
//
// The guest's time is the host's wall clock plus what the guest set it to differ by. Seconds advance on the monotonic clock from
// an anchor, so that UIP, the update interrupt and the registers agree; a wall clock that was stepped moves the anchor.

package struct MC146818: Sendable, Equatable {
    /// Both clocks at one moment.
    package struct Moment: Sendable, Equatable {
        package var nanoseconds: UInt64
        package var wallSeconds: Int64

        package init(nanoseconds: UInt64, wallSeconds: Int64) {
            self.nanoseconds = nanoseconds
            self.wallSeconds = wallSeconds
        }
    }
    package enum Register {
        package static let second: UInt8 = 0x00, secondAlarm: UInt8 = 0x01
        package static let minute: UInt8 = 0x02, minuteAlarm: UInt8 = 0x03
        package static let hour: UInt8 = 0x04, hourAlarm: UInt8 = 0x05
        package static let weekday: UInt8 = 0x06, day: UInt8 = 0x07, month: UInt8 = 0x08, year: UInt8 = 0x09
        package static let a: UInt8 = 0x0A, b: UInt8 = 0x0B, c: UInt8 = 0x0C, d: UInt8 = 0x0D
        package static let century: UInt8 = 0x32
    }
    /// Register B. The interrupt enables lie where register C has their flags.
    package enum Control {
        package static let set: UInt8 = 0x80, periodic: UInt8 = 0x40, alarm: UInt8 = 0x20, update: UInt8 = 0x10
        package static let binary: UInt8 = 0x04, twentyFourHours: UInt8 = 0x02
    }
    private static let nanosecondsPerSecond: UInt64 = 1_000_000_000
    private static let ticksPerSecond: UInt64 = 32768
    /// UIP rises this long before the registers change.
    private static let updateWarning: UInt64 = 244_000
    /// Ten thousand years: more than any date the registers can hold differs from now.
    private static let farthestOffset: Int64 = 320_000_000_000

    package internal(set) var bytes = [UInt8](repeating: 0, count: 128)
    package internal(set) var index: UInt8 = 0
    /// Guest time less the host's.
    package internal(set) var offset: Int64 = 0
    /// Register C without IRQF.
    package internal(set) var flags: UInt8 = 0
    private var anchorSeconds: Int64
    private var anchorNanoseconds: UInt64
    private var evaluated: UInt64

    package init(at now: Moment) {
        anchorSeconds = now.wallSeconds
        anchorNanoseconds = now.nanoseconds
        evaluated = now.nanoseconds
        bytes[Int(Register.a)] = 0x26  // 32.768 kHz crystal, 1024 Hz
        bytes[Int(Register.b)] = Control.twentyFourHours
    }

    private var a: UInt8 { bytes[Int(Register.a)] }
    private var b: UInt8 { bytes[Int(Register.b)] }
    /// The registers stand still: the guest sets the time or holds the divider in reset.
    private var isHeld: Bool { b & Control.set != 0 || a & 0x60 == 0x60 }

    /// The level of the interrupt output.
    package var isInterrupting: Bool { flags & b & 0x70 != 0 }

    // MARK: Time

    private func elapsed(_ now: Moment) -> UInt64 { now.nanoseconds &- anchorNanoseconds }

    private func seconds(_ now: Moment) -> Int64 {
        anchorSeconds &+ Int64(clamping: elapsed(now) / Self.nanosecondsPerSecond)
    }

    /// Length of the periodic interrupt in ticks of the crystal; nil where it is off.
    private var periodTicks: UInt64? {
        switch a & 0x0F {
        case 0: nil
        case 1, 2: 1 << (UInt64(a & 0x0F) + 6)
        default: 1 << (UInt64(a & 0x0F) - 1)
        }
    }

    /// How many periods of `ticks` fit into a time since the anchor. A second holds a whole number of them.
    private static func periods(of ticks: UInt64, in elapsed: UInt64) -> UInt64 {
        let (second, part) = elapsed.quotientAndRemainder(dividingBy: nanosecondsPerSecond)
        return second &* (ticksPerSecond / ticks) &+ part * ticksPerSecond / nanosecondsPerSecond / ticks
    }

    /// Raises the flags of everything that happened since the last call.
    package mutating func advance(to now: Moment) {
        let before = evaluated &- anchorNanoseconds, after = elapsed(now)
        evaluated = now.nanoseconds
        if after > before, let ticks = periodTicks, Self.periods(of: ticks, in: before) != Self.periods(of: ticks, in: after) {
            flags |= Control.periodic
        }
        guard !isHeld else { return }
        let first = anchorSeconds &+ Int64(clamping: before / Self.nanosecondsPerSecond), last = seconds(now)
        if last > first {
            flags |= Control.update
            if let alarm = nextAlarm(after: first), alarm <= last { flags |= Control.alarm }
        }
        // The two clocks' seconds begin at different moments, so one of difference is none.
        let behind = now.wallSeconds &+ offset &- last
        if behind > 1 || behind < -1 { anchorSeconds &+= behind }
    }

    /// When `advance` would raise an interrupt that is enabled; nil where one stands already or none will come.
    package func nextDeadline(at now: Moment) -> UInt64? {
        guard !isInterrupting else { return nil }
        let second = elapsed(now) / Self.nanosecondsPerSecond
        var deadlines: [UInt64] = []
        if b & Control.periodic != 0, let ticks = periodTicks {
            let next = Self.periods(of: ticks, in: elapsed(now)) &+ 1
            let (whole, part) = next.quotientAndRemainder(dividingBy: Self.ticksPerSecond / ticks)
            let nanoseconds = (part * ticks * Self.nanosecondsPerSecond + Self.ticksPerSecond - 1) / Self.ticksPerSecond
            deadlines.append(whole &* Self.nanosecondsPerSecond &+ nanoseconds)
        }
        if !isHeld, b & Control.update != 0 { deadlines.append((second &+ 1) &* Self.nanosecondsPerSecond) }
        if !isHeld, b & Control.alarm != 0, let alarm = nextAlarm(after: seconds(now)) {
            deadlines.append(UInt64(clamping: alarm &- anchorSeconds) &* Self.nanosecondsPerSecond)
        }
        return deadlines.min().map { anchorNanoseconds &+ $0 }
    }

    /// The first second later than `second` whose time of day the alarm registers name; 0xC0 and above match anything.
    private func nextAlarm(after second: Int64) -> Int64? {
        func matches(_ register: UInt8, _ value: Int64, _ decode: (UInt8) -> Int64?) -> Bool {
            bytes[Int(register)] >= 0xC0 || decode(bytes[Int(register)]) == value
        }
        let start = second &+ 1
        let minuteStart = start &- (start % 60 + 60) % 60
        // A day and the minute that began before `start`: whatever matches at all matches within it.
        for minutes in Int64(0)...1440 {
            let minute = minuteStart &+ minutes &* 60
            let ofDay = (minute % 86400 + 86400) % 86400
            guard matches(Register.hourAlarm, ofDay / 3600, decodeHour), matches(Register.minuteAlarm, ofDay / 60 % 60, decode)
            else { continue }
            let earliest = max(start, minute)
            if bytes[Int(Register.secondAlarm)] >= 0xC0 { return earliest }
            guard let exact = decode(bytes[Int(Register.secondAlarm)]), exact < 60 else { return nil }
            if minute &+ exact >= earliest { return minute &+ exact }
        }
        return nil
    }

    // MARK: Coding

    private func encode(_ value: Int64) -> UInt8 {
        let value = UInt8(truncatingIfNeeded: value)
        return b & Control.binary != 0 ? value : (value / 10) << 4 | value % 10
    }

    private func encodeHour(_ hour: Int64) -> UInt8 {
        if b & Control.twentyFourHours != 0 { return encode(hour) }
        return encode(hour % 12 == 0 ? 12 : hour % 12) | (hour >= 12 ? 0x80 : 0)
    }

    private func decode(_ byte: UInt8) -> Int64? {
        if b & Control.binary != 0 { return Int64(byte) }
        guard byte & 0x0F <= 9, byte >> 4 <= 9 else { return nil }
        return Int64(byte >> 4) * 10 + Int64(byte & 0x0F)
    }

    private func decodeHour(_ byte: UInt8) -> Int64? {
        if b & Control.twentyFourHours != 0 { return decode(byte) }
        guard let hour = decode(byte & 0x7F), (1...12).contains(hour) else { return nil }
        return hour % 12 + (byte & 0x80 != 0 ? 12 : 0)
    }

    /// Puts the running time into the registers.
    private mutating func latch(_ now: Moment) {
        let date = CivilDate(secondsSince1970: seconds(now))
        let fields: [(UInt8, UInt8)] = [
            (Register.second, encode(date.second)), (Register.minute, encode(date.minute)), (Register.hour, encodeHour(date.hour)),
            (Register.weekday, encode(date.weekday)), (Register.day, encode(date.day)), (Register.month, encode(date.month)),
            (Register.year, encode((date.year % 100 + 100) % 100)), (Register.century, encode(date.year / 100)),
        ]
        for (register, value) in fields { bytes[Int(register)] = value }
    }

    /// Runs on from what the registers say. Registers that are no date leave the time as it was.
    private mutating func release(_ now: Moment) {
        func field(_ register: UInt8) -> Int64? { decode(bytes[Int(register)]) }
        guard let century = field(Register.century), let year = field(Register.year), let month = field(Register.month),
            let day = field(Register.day), let hour = decodeHour(bytes[Int(Register.hour)]), let minute = field(Register.minute),
            let second = field(Register.second),
            let wanted = CivilDate.secondsSince1970(
                year: century * 100 + year, month: month, day: day, hour: hour, minute: minute, second: second)
        else { return }
        offset &+= wanted &- seconds(now)
        anchorSeconds &+= wanted &- seconds(now)
    }

    // MARK: Registers

    /// Port 0x71 read, of the register that port 0x70 chose.
    package mutating func read(at now: Moment) -> UInt8 {
        advance(to: now)
        switch index {
        case Register.second, Register.minute, Register.hour, Register.weekday...Register.year, Register.century:
            if !isHeld { latch(now) }
            return bytes[Int(index)]
        case Register.a:
            let isUpdating = !isHeld && elapsed(now) % Self.nanosecondsPerSecond >= Self.nanosecondsPerSecond - Self.updateWarning
            return a & 0x7F | (isUpdating ? 0x80 : 0)
        case Register.c:
            defer { flags = 0 }
            return flags | (isInterrupting ? 0x80 : 0)
        case Register.d: return 0x80  // VRT: the battery is good
        default: return bytes[Int(index & 0x7F)]
        }
    }

    /// Port 0x71 write.
    package mutating func write(_ value: UInt8, at now: Moment) {
        advance(to: now)
        let wasHeld = isHeld, heldDivider = a & 0x60 == 0x60
        switch index {
        case Register.second, Register.minute, Register.hour, Register.day...Register.year, Register.century:
            if !wasHeld { latch(now) }
            bytes[Int(index)] = value
            if !wasHeld { release(now) }
            return
        case Register.weekday where !wasHeld, Register.c, Register.d: return
        case Register.a:
            if !wasHeld { latch(now) }
            bytes[Int(Register.a)] = value & 0x7F
        case Register.b:
            if !wasHeld { latch(now) }
            // SET clears the update interrupt's enable.
            bytes[Int(Register.b)] = value & Control.set != 0 ? value & ~Control.update : value
        default:
            bytes[Int(index & 0x7F)] = value
            return
        }
        guard wasHeld, !isHeld else { return }
        // The first update comes half a second after the divider's reset ends.
        if heldDivider {
            anchorSeconds = seconds(now)
            anchorNanoseconds = now.nanoseconds &- Self.nanosecondsPerSecond / 2
        }
        release(now)
    }

    /// Power on: the interrupts go, time and memory have a battery.
    package mutating func reset(at now: Moment) {
        advance(to: now)
        if isHeld {
            bytes[Int(Register.a)] &= ~0x70
            bytes[Int(Register.a)] |= 0x20
        }
        bytes[Int(Register.b)] &= ~(Control.set | Control.periodic | Control.alarm | Control.update)
        flags = 0
        index = 0
    }

    /// Takes over what was saved, at a later moment and perhaps on another host.
    mutating func resume(bytes: [UInt8], index: UInt8, offset: Int64, flags: UInt8, at now: Moment) {
        self.bytes = bytes
        self.index = index & 0x7F
        self.offset = min(max(offset, -Self.farthestOffset), Self.farthestOffset)
        self.flags = flags & 0x70
        anchorSeconds = now.wallSeconds &+ self.offset
        anchorNanoseconds = now.nanoseconds
        evaluated = now.nanoseconds
    }
}
