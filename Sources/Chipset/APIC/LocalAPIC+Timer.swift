// The local APIC's timer (Intel SDM 3A §11.5.4): one-shot, periodic, or at a value of the time-stamp counter. Its clock
// ticks once a nanosecond before the divider.

extension LocalAPIC {
    package enum TimerMode: UInt32, Sendable { case oneShot = 0, periodic = 1, deadline = 2 }

    struct Timer: Sendable, Equatable {
        var initialCount: UInt32 = 0
        var divideConfiguration: UInt32 = 0
        /// When the count began, in nanoseconds.
        var start: UInt64 = 0
        /// The one-shot count has been told of, or none was set.
        var isOver = true
        /// IA32_TSC_DEADLINE, 0 where disarmed, and the moment it stands for.
        var deadline: UInt64 = 0
        var deadlineNanoseconds: UInt64 = 0

        /// Divide by 2, 4, 8, 16, 32, 64, 128, 1: bits 3, 1 and 0.
        var divider: UInt64 {
            let code = divideConfiguration >> 1 & 4 | divideConfiguration & 3
            return code == 7 ? 1 : 2 << UInt64(code)
        }

        /// A whole count in nanoseconds; 0: none is set.
        var length: UInt64 { UInt64(initialCount) * divider }

        func currentCount(mode: TimerMode, at now: UInt64) -> UInt32 {
            guard mode != .deadline, length > 0 else { return 0 }
            let elapsed = now &- start
            if mode == .periodic {
                return UInt32(truncatingIfNeeded: (length - elapsed % length + divider - 1) / divider)
            }
            return elapsed >= length ? 0 : UInt32(truncatingIfNeeded: (length - elapsed + divider - 1) / divider)
        }

        mutating func start(_ count: UInt32, at now: UInt64) {
            initialCount = count
            start = now
            isOver = count == 0
        }

        /// The count goes on from where it stands, at the new speed.
        mutating func setDivide(_ value: UInt32, mode: TimerMode, at now: UInt64) {
            let count = currentCount(mode: mode, at: now)
            divideConfiguration = value
            guard length > 0, !isOver else { return }
            start = now &- (length - UInt64(count) * divider)
        }

        mutating func stop() {
            initialCount = 0
            isOver = true
            deadline = 0
        }
    }

    /// The least time between two interrupts of a periodic timer the host wakes for.
    static let minimumPeriodNanoseconds: UInt64 = 50_000

    /// The reserved value 3 is as one-shot.
    package var timerMode: TimerMode { TimerMode(rawValue: localVectors[0] >> 17 & 3) ?? .oneShot }

    /// IA32_TSC_DEADLINE (0x6E0). `tsc` is the counter's value at `now`, `hertz` its rate.
    package mutating func setDeadline(_ value: UInt64, tsc: UInt64, hertz: UInt64, at now: UInt64) {
        guard timerMode == .deadline else { return }
        timer.deadline = value
        let ticks = value > tsc ? value - tsc : 0
        // Beyond three centuries it never comes.
        let nanoseconds = hertz == 0 ? UInt128(UInt64.max) : UInt128(ticks) * 1_000_000_000 / UInt128(hertz)
        let (sum, overflow) = now.addingReportingOverflow(UInt64(min(nanoseconds, UInt128(UInt64.max))))
        timer.deadlineNanoseconds = overflow ? .max : sum
        advance(to: now)
    }

    /// What IA32_TSC_DEADLINE reads: 0 once it has come.
    package var tscDeadline: UInt64 { timerMode == .deadline ? timer.deadline : 0 }

    /// Raises the timer's interrupt where it is due until `now`, nanoseconds of a clock that does not go back.
    package mutating func advance(to now: UInt64) {
        switch timerMode {
        case .deadline:
            guard timer.deadline != 0, now >= timer.deadlineNanoseconds else { return }
            timer.deadline = 0
        case .oneShot:
            guard !timer.isOver, now &- timer.start >= timer.length else { return }
            timer.isOver = true
        case .periodic:
            let length = timer.length
            guard length > 0, now &- timer.start >= length else { return }
            // Periods that the host missed are one interrupt.
            timer.start = timer.start &+ (now &- timer.start) / length * length
        }
        deliver(localVectors[0], isLevel: false)
    }

    /// When `advance` is next needed, in nanoseconds; nil: not at all.
    package var nextDeadline: UInt64? {
        guard isEnabled, localVectors[0] & LocalVector.masked == 0 else { return nil }
        switch timerMode {
        case .deadline:
            return timer.deadline == 0 || timer.deadlineNanoseconds == .max ? nil : timer.deadlineNanoseconds
        case .oneShot: return timer.isOver ? nil : timer.start &+ timer.length
        case .periodic:
            return timer.length == 0 ? nil : timer.start &+ max(timer.length, Self.minimumPeriodNanoseconds)
        }
    }
}
