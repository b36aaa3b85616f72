// A monitor's process: started so that it outlives this service, held by pidfd, found again by its pid and start time.
import CServiceHost
import Glibc

/// Which process: a pid alone may have been used again.
struct ProcessIdentity: Sendable, Equatable {
    let pid: Int32
    /// Field 22 of /proc/<pid>/stat, in clock ticks since the host started.
    let startTime: UInt64

    /// The pid file's text, "pid starttime".
    var text: String { "\(pid) \(startTime)\n" }

    init(pid: Int32, startTime: UInt64) {
        self.pid = pid
        self.startTime = startTime
    }

    init?(text: String) {
        let fields = text.split { $0 == " " || $0 == "\n" }
        guard fields.count == 2, let pid = Int32(fields[0]), pid > 0, let startTime = UInt64(fields[1]) else {
            return nil
        }
        self.init(pid: pid, startTime: startTime)
    }

    /// Of a process that exists and has not ended; nil: there is none.
    init?(pid: Int32) throws(HostFailure) {
        // The name in parentheses may hold anything; fields are counted after its end.
        guard let text = try Files.text("/proc/\(pid)/stat"), let end = text.lastIndex(of: ")") else { return nil }
        let fields = text[text.index(after: end)...].split(separator: " ")
        guard fields.count > 19, fields[0] != "Z", fields[0] != "X", let startTime = UInt64(fields[19]) else {
            return nil
        }
        self.init(pid: pid, startTime: startTime)
    }
}

/// A process that was started or found.
final class MonitorProcess: Sendable {
    let identity: ProcessIdentity
    let pidfd: Descriptor

    private init(identity: ProcessIdentity, pidfd: Descriptor) {
        self.identity = identity
        self.pidfd = pidfd
    }

    /// Starts `path`; `descriptors[i]` is open as 3 + i there.
    static func start(
        _ path: String, arguments: [String], descriptors: [Descriptor], errors: Descriptor
    ) throws(HostFailure) -> MonitorProcess {
        var pidfd: CInt = -1
        let null = try Descriptor(opening: "/dev/null", O_WRONLY)
        let pid = start(
            path, arguments, descriptors.map(\.rawValue), output: null.rawValue, errors: errors.rawValue,
            isSession: true, &pidfd)
        let reason = errno
        // The call borrows the descriptors: their owners stay until here.
        withExtendedLifetime((descriptors, errors, null)) {}
        guard pid > 0 else {
            throw HostFailure("start", path, errno: reason, remedy: "check [apus] monitor_path in nova.conf")
        }
        let process = Descriptor(owning: pidfd)
        guard let identity = try ProcessIdentity(pid: pid) else {
            var status: CInt = 0
            _ = unsafe apus_host_reap(process.rawValue, &status)
            throw HostFailure("start", path, errno: ECHILD, remedy: "it ended at once")
        }
        return MonitorProcess(identity: identity, pidfd: process)
    }

    /// The process of this identity, where it still runs.
    static func find(_ identity: ProcessIdentity) throws(HostFailure) -> MonitorProcess? {
        let pidfd = apus_host_pidfd_open(identity.pid)
        guard pidfd >= 0 else {
            if errno == ESRCH { return nil }
            throw HostFailure("open process", "\(identity.pid)")
        }
        let process = Descriptor(owning: pidfd)
        // Looked at after the pidfd is held: if the number was used again, the start time tells.
        guard try ProcessIdentity(pid: identity.pid) == identity else { return nil }
        return MonitorProcess(identity: identity, pidfd: process)
    }

    /// Ends it without asking. Ended already: nothing.
    func kill() { _ = apus_host_pidfd_signal(pidfd.rawValue, SIGKILL) }

    /// Takes the exit status where it is our child; nil: it is not, or it has not ended.
    func reap() -> CInt? {
        var status: CInt = 0
        return unsafe apus_host_reap(pidfd.rawValue, &status) == 1 ? status : nil
    }

    private static func start(
        _ path: String, _ arguments: [String], _ descriptors: [CInt], output: CInt, errors: CInt, isSession: Bool,
        _ pidfd: inout CInt
    ) -> CInt {
        // SAFETY: the strings are ours, terminated by strdup, and freed after the call; both lists end with nil; the callee
        // only reads them and writes one number to `pidfd`.
        var words = unsafe arguments.map { unsafe strdup($0) } + [nil]
        var environment = unsafe [strdup("PATH=/usr/sbin:/usr/bin:/sbin:/bin"), strdup("LANG=C.UTF-8"), nil]
        defer {
            unsafe words.forEach { unsafe free($0) }
            unsafe environment.forEach { unsafe free($0) }
        }
        return unsafe apus_host_start(
            path, &words, &environment, descriptors, CInt(descriptors.count), output, errors, isSession ? 1 : 0, &pidfd)
    }

    /// Runs a helper to its end: its exit status (128 + signal where one ended it) and the start of what it wrote. Blocks.
    static func run(
        _ path: String, arguments: [String], timeoutMilliseconds: CInt
    ) throws(HostFailure) -> (status: CInt, output: String) {
        let file = unsafe apus_host_memfd("output")
        guard file >= 0 else { throw HostFailure("make a file for the output of", path) }
        let output = Descriptor(owning: file)
        var number: CInt = -1
        let pid = start(path, arguments, [], output: file, errors: file, isSession: false, &number)
        guard pid > 0 else { throw HostFailure("start", path) }
        let pidfd = Descriptor(owning: number)
        let isInTime = apus_host_wait_end(pidfd.rawValue, timeoutMilliseconds) == 1
        if !isInTime {
            _ = apus_host_pidfd_signal(pidfd.rawValue, SIGKILL)
            _ = apus_host_wait_end(pidfd.rawValue, 5000)
        }
        var status: CInt = 0
        _ = unsafe apus_host_reap(pidfd.rawValue, &status)
        guard isInTime else { throw HostFailure("run", arguments.joined(separator: " "), errno: ETIMEDOUT) }
        var text = [UInt8](repeating: 0, count: 4096)
        // SAFETY: the buffer is ours and as long as said.
        let count = unsafe pread(output.rawValue, &text, text.count, 0)
        let exit = status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + status & 0x7F
        return (exit, String(decoding: text.prefix(max(0, count)), as: UTF8.self))
    }

    /// As `run`, of a helper that must end well. - Throws: HelperFailure where it does not.
    static func runToSuccess(_ path: String, arguments: [String], timeoutMilliseconds: CInt) throws {
        let result = try run(path, arguments: arguments, timeoutMilliseconds: timeoutMilliseconds)
        guard result.status == 0 else { throw HelperFailure(command: arguments, status: result.status, output: result.output) }
    }
}

/// A program of the distribution that ended with an error, and what it said.
struct HelperFailure: Error, CustomStringConvertible {
    let command: [String]
    let status: CInt
    let output: String

    var description: String { "\(command.joined(separator: " ")) ended with status \(status): \(output.prefix(512))" }
}
