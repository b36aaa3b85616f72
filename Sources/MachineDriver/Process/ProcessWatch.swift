// One thread that sees every monitor's end at once, by pidfd.
import CServiceHost
import Glibc
import NIOPosix
import Synchronization

/// Tells once when a process has ended. Usage: one for all machines of this program.
final class ProcessWatch: Sendable {
    static let shared = ProcessWatch()

    private let descriptor: CInt
    private let thread = NIOThreadPool(numberOfThreads: 1)
    private struct Watched: Sendable {
        let process: MonitorProcess
        let action: @Sendable (CInt?) -> Void
    }
    private struct Table: Sendable {
        var last: UInt64 = 0
        var entries: [UInt64: Watched] = [:]
    }
    private let table = Mutex(Table())

    private init() {
        descriptor = apus_host_watch_create()
        thread.start()
        thread.submit { [self] state in
            if case .active = state { serve() }
        }
    }

    /// Calls `action` on the watch's thread when `process` has ended, with its wait status where it was our child. At once,
    /// where it has ended already.
    func whenEnded(_ process: MonitorProcess, perform action: @escaping @Sendable (CInt?) -> Void) throws(HostFailure) {
        let token = table.withLock { table in
            table.last += 1
            table.entries[table.last] = Watched(process: process, action: action)
            return table.last
        }
        guard apus_host_watch_add(descriptor, process.pidfd.rawValue, token) == 0 else {
            let reason = errno
            table.withLock { _ = $0.entries.removeValue(forKey: token) }
            throw HostFailure("watch process", "\(process.identity.pid)", errno: reason)
        }
    }

    private func serve() {
        var token: UInt64 = 0
        while unsafe apus_host_watch_next(descriptor, &token) == 0 {
            let key = token
            guard let ended = table.withLock({ $0.entries.removeValue(forKey: key) }) else { continue }
            ended.action(ended.process.reap())
        }
    }
}
