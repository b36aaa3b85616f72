import Glibc
import HostSystem
import JSON
import MachineConfiguration
import MonitorProtocol
import Testing

/// Everything that runs guest code: one at a time, for the lab's processor is slow. `kvm-tests` runs these by this name.
@Suite(
    .enabled(
        if: MonitorProcess.setting("APUS_KVM_TESTS") == "1",
        "needs a /dev/kvm with hardware semantics: `make kvm-test` runs these in the lab host"), .serialized)
struct GuestTests {}

/// The monitor as a service starts it: every file a descriptor, the whole machine one JSON text.
final class MonitorProcess {
    let pid: pid_t
    let controlPath: String, consolePath: String
    private let log: CInt
    private var status: Int32?

    static func setting(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

    /// An inheritable descriptor of a file.
    static func open(_ path: String, _ flags: Int32 = O_RDONLY) throws -> Int {
        let number = Glibc.open(path, flags)
        try #require(number >= 0, "open \(path): \(errorName(errno))")
        return Int(number)
    }

    /// - Parameters:
    ///   - console: a file that goes on from a process before this one.
    ///   - change: what is different from one vCPU, 256 MiB, Debian's kernel and the test's RAM disk.
    convenience init(commandLine: String = "", console: CInt? = nil, _ change: (inout GuestConfiguration) throws -> Void = { _ in }) throws {
        try self.init(memoryMiB: 256, console: console) { machine in
            machine.kernel = try Self.open(try #require(Self.setting("APUS_TEST_KERNEL")))
            machine.initrd = try Self.open(try #require(Self.setting("APUS_TEST_INITRD")))
            machine.commandLine = "console=ttyS0 panic=-1 quiet \(commandLine)"
            try change(&machine)
        }
    }

    /// A machine with one vCPU and nothing to start from but what `change` gives it.
    init(memoryMiB: Int, console: CInt? = nil, _ change: (inout GuestConfiguration) throws -> Void) throws {
        let name = "/tmp/apus-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        (controlPath, consolePath) = (name + ".control", name + ".console")
        var machine = GuestConfiguration(
            name: "instance-00000001", uuid: try #require(MachineUUID("3f0a2b1c-0001-4c4b-9f5e-0123456789ab")), memoryMiB: memoryMiB,
            cpu: CPUConfiguration(count: 1))
        log = if let console { dup(console) } else { try makeMemoryFile(named: "console", byteCount: 0).release() }
        machine.console.log = Int(dup(log))
        machine.console.listen = Int(try listenOnUnixSocket(at: consolePath).release())
        machine.control = Int(try listenOnUnixSocket(at: controlPath).release())
        machine.kvm = try Self.open("/dev/kvm", O_RDWR)
        try change(&machine)
        pid = try Self.start(machine.json.serializedBytes(), handing: machine.namedDescriptors.map { CInt($0.number) })
    }

    /// Starts the monitor with this text; the descriptors are its own afterwards.
    static func start(_ text: [UInt8], handing descriptors: [CInt], errors: CInt? = nil) throws -> pid_t {
        let file = try makeMemoryFile(named: "machine", byteCount: 0)
        try #require(write(file.rawValue, text, text.count) == text.count)
        for number in descriptors + [file.rawValue] { _ = fcntl(number, F_SETFD, 0) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        if let errors { posix_spawn_file_actions_adddup2(&actions, errors, 2) }
        defer { posix_spawn_file_actions_destroy(&actions) }
        let program = try #require(setting("APUS_TEST_MONITOR"))
        var arguments: [UnsafeMutablePointer<CChar>?] = [
            strdup(program), strdup("--machine"), strdup("fd:\(file.rawValue)"), nil,
        ]
        defer { for argument in arguments { free(argument) } }
        var pid = pid_t()
        let result = posix_spawn(&pid, program, &actions, nil, &arguments, environ)
        for number in descriptors { close(number) }
        try #require(result == 0, "start \(program): \(errorName(result))")
        return pid
    }

    deinit {
        if status == nil {
            kill(pid, SIGKILL)
            _ = waitpid(pid, nil, 0)
        }
        close(log)
        unlink(controlPath)
        unlink(consolePath)
    }

    func connect() throws -> Connection { try Connection(path: controlPath) }

    /// What the guest wrote so far.
    var console: String {
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = pread(log, &bytes, bytes.count, 0)
        return String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self)
    }

    /// Polls until the console holds this, at most five minutes: the lab's processor is slow.
    func waitForConsole(_ isThere: (String) -> Bool) -> Bool { Self.within(seconds: 300) { isThere(console) } }

    static func within(seconds: UInt64, _ condition: () -> Bool) -> Bool {
        let deadline = SystemClock.monotonicNanoseconds + seconds * 1_000_000_000
        while SystemClock.monotonicNanoseconds < deadline {
            if condition() { return true }
            usleep(20_000)
        }
        return condition()
    }

    /// The exit status, once it has ended; nil where it does not end.
    func exitStatus() -> Int32? {
        _ = Self.within(seconds: 60) {
            var raw: Int32 = 0
            if status == nil, waitpid(pid, &raw, WNOHANG) == pid { status = raw }
            return status != nil
        }
        return status.map { $0 & 0x7F == 0 ? $0 >> 8 & 0xFF : -($0 & 0x7F) }
    }
}
