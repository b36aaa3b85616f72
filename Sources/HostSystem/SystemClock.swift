// The host's clocks.
import CLinux
import Glibc

package enum SystemClock {
    /// CLOCK_MONOTONIC in nanoseconds.
    package static var monotonicNanoseconds: UInt64 {
        var time = timespec()
        _ = unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }

    /// Seconds since 1970-01-01 00:00 UTC.
    package static var wallSeconds: Int64 {
        var time = timespec()
        _ = unsafe clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec)
    }

    /// The same clock's seconds and microseconds.
    package static var wallTime: (seconds: Int64, microseconds: Int) {
        var time = timespec()
        _ = unsafe clock_gettime(CLOCK_REALTIME, &time)
        return (Int64(time.tv_sec), time.tv_nsec / 1000)
    }
}
