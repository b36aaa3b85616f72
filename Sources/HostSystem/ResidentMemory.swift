// How much memory this process holds, and how long its threads ran: for statistics.
import CLinux
import Glibc

/// The process's resident memory. Opens its source once, so that it can be asked where nothing may be opened any more.
package struct ResidentMemory: ~Copyable, Sendable {
    /// Negative where there is no /proc.
    private let statm: CInt

    package init() {
        statm = unsafe open("/proc/self/statm", O_RDONLY | O_CLOEXEC)
    }

    deinit { if statm >= 0 { _ = close(statm) } }

    package borrowing func kibibytes() -> Int {
        guard statm >= 0 else { return peak }
        var text = [UInt8](repeating: 0, count: 128)
        // SAFETY: writes at most the array's own length.
        let count = unsafe pread(statm, &text, text.count, 0)
        // The second number of proc(5)'s statm: resident pages.
        let fields = text.prefix(max(count, 0)).split(separator: 0x20)
        guard fields.count > 1, let pages = Int(String(decoding: fields[1], as: UTF8.self)) else { return peak }
        return pages * Int(sysconf(CInt(_SC_PAGESIZE))) / 1024
    }

    /// Without /proc: the most it ever was.
    private var peak: Int {
        var usage = rusage()
        // 0 is RUSAGE_SELF, which the module shows with another type.
        _ = unsafe getrusage(0, &usage)
        return usage.ru_maxrss
    }
}

/// Threads by the kernel's numbers.
package enum ThreadNumber {
    /// The calling thread's.
    package static var current: CInt { apus_thread_number() }
    /// Processor time of a thread of this process; 0 where it has gone.
    package static func nanoseconds(of thread: CInt) -> UInt64 { thread == 0 ? 0 : apus_thread_nanoseconds(thread) }
}
