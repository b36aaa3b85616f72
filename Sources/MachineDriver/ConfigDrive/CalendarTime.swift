// A moment as the two kinds of config drive write it: by the calendar, in UTC.
import Glibc

struct CalendarTime: Sendable, Equatable {
    let year: Int
    /// 1 to 12, and 1 to 31.
    let month: Int, day: Int
    let hour: Int, minute: Int, second: Int

    init(secondsSinceEpoch: Int) {
        var seconds = time_t(secondsSinceEpoch)
        // SAFETY: both are locals; gmtime_r fills the second, whose zone name is not looked at.
        var parts = unsafe tm()
        _ = unsafe gmtime_r(&seconds, &parts)
        (year, month, day) = unsafe (Int(parts.tm_year) + 1900, Int(parts.tm_mon) + 1, Int(parts.tm_mday))
        (hour, minute, second) = unsafe (Int(parts.tm_hour), Int(parts.tm_min), Int(parts.tm_sec))
    }
}
