// Time is handed in: tests own the clock.

/// A monotonic clock in nanoseconds, and the wall clock the RTC shows.
package protocol MachineClock: AnyObject, Sendable {
    /// Nanoseconds of a clock that never goes back.
    var nanoseconds: UInt64 { get }
    /// Seconds since 1970-01-01 00:00 UTC.
    var wallSeconds: Int64 { get }
}
