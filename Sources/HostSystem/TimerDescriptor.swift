// timerfd: a moment of CLOCK_MONOTONIC that an event loop can wait for (timerfd_create(2)).
import CLinux
import Glibc

/// A one-shot timer that becomes readable when its moment has come. Any thread may set it.
package struct TimerDescriptor: ~Copyable, Sendable {
    private let descriptor: OwnedDescriptor

    package init() throws(HostError) {
        let number = timerfd_create(CLOCK_MONOTONIC, CInt(TFD_CLOEXEC | TFD_NONBLOCK))
        guard number >= 0 else { throw HostError("create", subject: "timerfd", errno: errno) }
        descriptor = OwnedDescriptor(owning: number)
    }

    /// The number for epoll.
    package var rawValue: CInt { descriptor.rawValue }

    /// Fires at `nanoseconds` of CLOCK_MONOTONIC, at once where that has passed; nil: never.
    package borrowing func set(to nanoseconds: UInt64?) {
        var setting = itimerspec()
        if let nanoseconds {
            setting.it_value.tv_sec = Int(clamping: nanoseconds / 1_000_000_000)
            setting.it_value.tv_nsec = Int(nanoseconds % 1_000_000_000)
            // All zero would disarm.
            if nanoseconds == 0 { setting.it_value.tv_nsec = 1 }
        }
        // SAFETY: reads the local structure; no old value is asked for.
        _ = unsafe timerfd_settime(descriptor.rawValue, CInt(TFD_TIMER_ABSTIME), &setting, nil)
    }

    /// Takes the expiry, so that the descriptor is not readable any more. True where there was one.
    @discardableResult
    package borrowing func drain() -> Bool {
        var count: UInt64 = 0
        // SAFETY: eight bytes into a local.
        return unsafe read(descriptor.rawValue, &count, 8) == 8
    }
}
