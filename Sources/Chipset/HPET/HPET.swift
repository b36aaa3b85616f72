// The high precision event timer (IA-PC HPET Specification 1.0a): a 64-bit counter of 10 ns and three comparators, each
// one-shot or periodic, edge or level. Time is handed in; nothing counts while nobody looks.
//
// Messages (FSB delivery) are not offered. Ticks of a period that the host missed are lost, not sent later in a burst.
// A one-shot comparator written a little too late fires at once, where hardware would wait for the counter to come
// round: a vCPU that lost its processor between reading the counter and writing the comparator would hang otherwise.

package import MachineCore

package struct HPET: Sendable {
    package static let byteCount: UInt64 = 0x400
    package static let timerCount = 3
    package static let nanosecondsPerTick: UInt64 = 10

    enum Register {
        static let capabilities: UInt64 = 0x000, configuration: UInt64 = 0x010, interruptStatus: UInt64 = 0x020
        static let mainCounter: UInt64 = 0x0F0, timers: UInt64 = 0x100, timerStride: UInt64 = 0x20
        static let timerConfiguration: UInt64 = 0x00, timerComparator: UInt64 = 0x08
    }
    /// GCAP_ID: revision 1, three timers, 64 bits, legacy replacement, Intel, 10^7 femtoseconds a tick.
    static let capabilities: UInt64 = 0x0098_9680_8086_A201
    enum Configuration {
        /// ENABLE_CNF, LEG_RT_CNF.
        static let enable: UInt64 = 0x01, legacyReplacement: UInt64 = 0x02
        static let writable = enable | legacyReplacement
    }
    enum TimerConfiguration {
        /// Tn_INT_TYPE_CNF (1: level), Tn_INT_ENB_CNF, Tn_TYPE_CNF (1: periodic), Tn_PER_INT_CAP, Tn_SIZE_CAP.
        static let level: UInt64 = 1 << 1, interruptEnable: UInt64 = 1 << 2, periodic: UInt64 = 1 << 3
        static let periodicCapable: UInt64 = 1 << 4, is64Bit: UInt64 = 1 << 5
        /// Tn_VAL_SET_CNF, Tn_32MODE_CNF, Tn_INT_ROUTE_CNF.
        static let valueSet: UInt64 = 1 << 6, force32Bit: UInt64 = 1 << 8, route: UInt64 = 0x1F << 9
        static let writable = level | interruptEnable | periodic | valueSet | force32Bit | route
    }
    struct Timer: Sendable {
        var configuration: UInt64 = 0
        var comparator: UInt64 = .max
        var period: UInt64 = 0
        /// When a period last ended, in nanoseconds: bounds how often the host wakes for it.
        var lastExpiry: UInt64 = 0

        func has(_ bits: UInt64) -> Bool { configuration & bits != 0 }
        /// Bits of the counter the comparator looks at.
        var mask: UInt64 { has(TimerConfiguration.force32Bit) ? 0xFFFF_FFFF : .max }
        var route: UInt64 { (configuration & TimerConfiguration.route) >> 9 }
    }
    /// Where a timer's interrupt goes.
    package enum Route: Hashable, Sendable {
        /// In place of the PIT (ISA interrupt 0) or the RTC (8).
        case legacy(UInt8)
        /// Input of the I/O APIC.
        case pin(UInt8)
    }
    /// The least time between two periods the host wakes for: shorter ones would only keep it busy.
    static let minimumPeriodNanoseconds: UInt64 = 50_000
    /// A comparator this little behind the counter was meant to be ahead of it: 21 s.
    private static let lateTicks: UInt64 = 1 << 31

    /// Tn_INT_ROUTE_CAP of all timers: I/O APIC inputs they may be routed to.
    package let routes: UInt32
    var configuration: UInt64 = 0
    var status: UInt64 = 0
    /// The main counter while it is halted; while it runs, what to add to the ticks of `now`.
    var counterBase: UInt64 = 0
    /// The counter up to which comparators were looked at.
    var seen: UInt64 = 0
    var timers: [3 of Timer] = [3 of Timer](repeating: Timer())
    /// Timers with an edge not sent yet.
    private var edges: UInt8 = 0

    /// `routes` as in the ICH9: inputs 2, 8 and 16 to 23.
    package init(routes: UInt32 = 0x00FF_0104) { self.routes = routes }

    package var isRunning: Bool { configuration & Configuration.enable != 0 }
    /// The PIT's and the RTC's interrupts are to be disconnected.
    package var replacesLegacyTimers: Bool { configuration & Configuration.legacyReplacement != 0 }

    /// The main counter.
    package func counter(at now: UInt64) -> UInt64 {
        isRunning ? now / Self.nanosecondsPerTick &+ counterBase : counterBase
    }

    // MARK: Time

    /// Raises what became due until `now`, nanoseconds of a clock that does not go back.
    package mutating func advance(to now: UInt64) {
        guard isRunning else { return }
        let counter = counter(at: now), elapsed = counter &- seen
        guard elapsed != 0, elapsed < 1 << 63 else { return }
        for index in 0..<Self.timerCount {
            let timer = timers[index]
            let distance = (timer.comparator &- seen) & timer.mask
            // At equal values the match was in the past, and the next is a whole turn of the counter away.
            let isDue = distance == 0 ? timer.mask != .max && elapsed > timer.mask : distance <= elapsed
            if isDue { expire(index, counter: counter, now: now) }
        }
        seen = counter
    }

    private mutating func expire(_ index: Int, counter: UInt64, now: UInt64) {
        let timer = timers[index]
        if timer.has(TimerConfiguration.level) {
            status |= 1 << UInt64(index)
        } else if timer.has(TimerConfiguration.interruptEnable) {
            edges |= 1 << UInt8(index)
        }
        let period = timer.period & timer.mask
        guard timer.has(TimerConfiguration.periodic), period != 0 else { return }
        // The first multiple of the period that is ahead of the counter.
        let behind = (counter &- timer.comparator) & timer.mask
        timers[index].comparator = (timer.comparator &+ (behind / period &+ 1) &* period) & timer.mask
        timers[index].lastExpiry = now
    }

    /// When `advance` is next needed for an interrupt, in nanoseconds; nil: not at all.
    package func nextDeadline(at now: UInt64) -> UInt64? {
        guard isRunning else { return nil }
        let counter = counter(at: now)
        var next: UInt64?
        for index in 0..<Self.timerCount {
            let timer = timers[index]
            guard timer.has(TimerConfiguration.interruptEnable) else { continue }
            // A level that is up already needs no further moment.
            if timer.has(TimerConfiguration.level), status & 1 << UInt64(index) != 0 { continue }
            var ticks = (timer.comparator &- counter) & timer.mask
            if ticks == 0 { ticks = timer.mask }
            let (nanoseconds, overflow) = ticks.multipliedReportingOverflow(by: Self.nanosecondsPerTick)
            guard !overflow, nanoseconds < 1 << 62 else { continue }
            var due = (now / Self.nanosecondsPerTick * Self.nanosecondsPerTick) &+ nanoseconds
            if timer.has(TimerConfiguration.periodic) {
                due = max(due, timer.lastExpiry &+ Self.minimumPeriodNanoseconds)
            }
            next = min(next ?? .max, due)
        }
        return next
    }

    // MARK: Interrupts

    /// Where timer `index` interrupts; nil: its route leads nowhere.
    package func route(of index: Int) -> Route? {
        guard (0..<Self.timerCount).contains(index) else { return nil }
        if replacesLegacyTimers, index < 2 { return .legacy(index == 0 ? 0 : 8) }
        let pin = timers[index].route
        return routes & 1 << UInt32(pin) != 0 ? .pin(UInt8(pin)) : nil
    }

    /// Timer `index` holds its line up.
    package func isAsserting(_ index: Int) -> Bool {
        let timer = timers[index]
        return timer.has(TimerConfiguration.level) && timer.has(TimerConfiguration.interruptEnable)
            && status & 1 << UInt64(index) != 0
    }

    /// The timers whose edge is to be sent, one bit each; they are told once.
    package mutating func takeEdges() -> UInt8 {
        defer { edges = 0 }
        return edges
    }

    // MARK: Registers

    /// `offset` from the base of the register block; accesses across eight bytes read all ones.
    package mutating func read(_ offset: UInt64, width: AccessWidth, at now: UInt64) -> UInt64 {
        advance(to: now)
        let shift = offset & 7
        guard shift + UInt64(width.byteCount) <= 8 else { return width.allOnes }
        return register(offset & ~7, at: now) >> (shift * 8) & width.allOnes
    }

    private func register(_ offset: UInt64, at now: UInt64) -> UInt64 {
        switch offset {
        case Register.capabilities: return Self.capabilities
        case Register.configuration: return configuration
        case Register.interruptStatus: return status
        case Register.mainCounter: return counter(at: now)
        default: break
        }
        guard let (index, field) = timer(at: offset) else { return 0 }
        switch field {
        case Register.timerConfiguration:
            return timers[index].configuration | TimerConfiguration.periodicCapable | TimerConfiguration.is64Bit
                | UInt64(routes) << 32
        case Register.timerComparator: return timers[index].comparator
        default: return 0
        }
    }

    private func timer(at offset: UInt64) -> (index: Int, field: UInt64)? {
        guard offset >= Register.timers else { return nil }
        let place = offset - Register.timers
        guard place < Register.timerStride * UInt64(Self.timerCount) else { return nil }
        return (Int(place / Register.timerStride), place % Register.timerStride)
    }

    /// Only accesses of four and eight bytes, aligned, are defined (§2.3.2); others do nothing.
    package mutating func write(_ offset: UInt64, width: AccessWidth, value: UInt64, at now: UInt64) {
        advance(to: now)
        guard width == .doubleWord || width == .quadWord, offset & UInt64(width.byteCount - 1) == 0 else { return }
        let shift = (offset & 7) * 8, mask = width.allOnes << shift, bits = value << shift & mask
        switch offset & ~7 {
        case Register.configuration: setConfiguration(configuration & ~mask | bits, at: now)
        case Register.interruptStatus: status &= ~bits
        case Register.mainCounter where !isRunning:
            counterBase = counterBase & ~mask | bits
            seen = counterBase
        default:
            guard let (index, field) = timer(at: offset & ~7) else { return }
            if field == Register.timerConfiguration { setConfiguration(of: index, bits, mask) }
            if field == Register.timerComparator { setComparator(of: index, bits, mask, at: now) }
        }
    }

    private mutating func setConfiguration(_ value: UInt64, at now: UInt64) {
        let counter = counter(at: now)
        configuration = value & Configuration.writable
        counterBase = isRunning ? counter &- now / Self.nanosecondsPerTick : counter
        seen = counter
    }

    private mutating func setConfiguration(of index: Int, _ bits: UInt64, _ mask: UInt64) {
        let writable = mask & TimerConfiguration.writable
        timers[index].configuration = timers[index].configuration & ~writable | bits & writable
        timers[index].comparator &= timers[index].mask
        timers[index].period &= timers[index].mask
        if !timers[index].has(TimerConfiguration.level) { status &= ~(1 << UInt64(index)) }
    }

    private mutating func setComparator(of index: Int, _ bits: UInt64, _ mask: UInt64, at now: UInt64) {
        let timer = timers[index]
        let isPeriodic = timer.has(TimerConfiguration.periodic)
        // In periodic mode Tn_VAL_SET_CNF says that the comparator itself is meant, not only what is added to it
        // (§2.3.9.2.2).
        if !isPeriodic || timer.has(TimerConfiguration.valueSet) {
            timers[index].comparator = (timer.comparator & ~mask | bits) & timer.mask
        }
        if isPeriodic { timers[index].period = (timer.period & ~mask | bits) & timer.mask }
        timers[index].configuration &= ~TimerConfiguration.valueSet
        guard !isPeriodic, isRunning else { return }
        let late = (seen &- timers[index].comparator) & timer.mask
        if late < Self.lateTicks { expire(index, counter: seen, now: now) }
    }
}
