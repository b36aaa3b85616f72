// A private RabbitMQ for a suite: its own node name, ports, epmd and directories, all on loopback, ended by process group.
import Foundation
import Glibc
import Testing

/// A child process in a group of its own, writing into a file.
final class ChildProcess: Sendable {
    struct SpawnFailure: Error { var path: String, status: Int32 }

    let pid: pid_t
    let outputPath: String

    init(_ arguments: [String], environment: [String: String] = [:], output: String) throws {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_APPEND, 0o644)
        posix_spawn_file_actions_adddup2(&actions, 1, 2)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK))
        let inherited = ["PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"]
        let variables = inherited.merging(environment) { _, own in own }.map { "\($0.key)=\($0.value)" }
        var argv = arguments.map { strdup($0) } + [nil]
        var envp = variables.map { strdup($0) } + [nil]
        defer { for pointer in argv + envp { free(pointer) } }
        var pid: pid_t = 0
        let status = posix_spawn(&pid, arguments[0], &actions, &attributes, &argv, &envp)
        guard status == 0 else { throw SpawnFailure(path: arguments[0], status: status) }
        self.pid = pid
        outputPath = output
    }

    var output: String { (try? String(contentsOfFile: outputPath, encoding: .utf8)) ?? "" }
    var lines: [String] { output.split(separator: "\n").map(String.init) }

    func signal(_ number: Int32) { kill(-pid, number) }

    func waitForEnd() -> Int32 {
        var status: Int32 = 0
        waitpid(pid, &status, 0)
        return status
    }

    /// Ends the whole group and takes the child's status.
    func end() {
        kill(-pid, SIGKILL)
        var status: Int32 = 0
        waitpid(pid, &status, 0)
    }
}

/// Waits by looking again and again, up to a deadline.
func eventually(
    within limit: Duration = .seconds(20), _ what: Comment, sourceLocation: SourceLocation = #_sourceLocation,
    _ condition: () async throws -> Bool
) async rethrows -> Bool {
    let deadline = ContinuousClock.now + limit
    while ContinuousClock.now < deadline {
        if try await condition() { return true }
        try? await Task.sleep(for: .milliseconds(20))
    }
    Issue.record("not within \(limit): \(what)", sourceLocation: sourceLocation)
    return false
}

final class Broker: @unchecked Sendable {
    // @unchecked: `server` is replaced by one test at a time, the suite is serialized.
    static let program = "/usr/lib/rabbitmq/bin/rabbitmq-server"
    static var isAvailable: Bool { getuid() == 0 && access(program, X_OK) == 0 }
    static var hasPython: Bool { access("/usr/lib/python3/dist-packages/oslo_messaging", F_OK) == 0 }
    /// Made by `BrokerTrait` before the suite's first test.
    nonisolated(unsafe) static var shared: Broker?

    let directory: String
    let port: Int
    let tlsPort: Int
    private let epmdPort: Int
    private let distributionPort: Int
    private let epmd: ChildProcess
    private var server: ChildProcess

    init() throws {
        var template = Array("/tmp/apus-broker.XXXXXX".utf8CString)
        directory = String(cString: mkdtemp(&template))
        (port, tlsPort) = (try Self.freePort(), try Self.freePort())
        (epmdPort, distributionPort) = (try Self.freePort(), try Self.freePort())
        for name in ["mnesia", "log", "home"] {
            try FileManager.default.createDirectory(atPath: "\(directory)/\(name)", withIntermediateDirectories: true)
        }
        try """
        listeners.tcp.1 = 127.0.0.1:\(port)
        listeners.ssl.1 = 127.0.0.1:\(tlsPort)
        ssl_options.cacertfile = \(directory)/ca.pem
        ssl_options.certfile = \(directory)/ca.pem
        ssl_options.keyfile = \(directory)/key.pem
        log.file.level = warning
        """.write(toFile: "\(directory)/rabbitmq.conf", atomically: true, encoding: .utf8)
        try "[].".write(toFile: "\(directory)/enabled_plugins", atomically: true, encoding: .utf8)
        // One certificate that signs itself is its own authority.
        let openssl = try ChildProcess(
            [
                "/usr/bin/openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "\(directory)/key.pem", "-out",
                "\(directory)/ca.pem",
            ], output: "\(directory)/openssl.log")
        try #require(openssl.waitForEnd() == 0, "\(openssl.output)")
        let owner = getpwnam("rabbitmq").pointee
        for name in ["", "/mnesia", "/log", "/home", "/rabbitmq.conf", "/enabled_plugins", "/key.pem"] {
            chown(directory + name, owner.pw_uid, owner.pw_gid)
        }
        epmd = try ChildProcess(
            ["/usr/bin/epmd", "-address", "127.0.0.1", "-port", "\(epmdPort)"], output: "\(directory)/epmd.log")
        server = try Self.start(directory, Self.environment(directory, epmdPort, distributionPort))
    }

    var url: String { "rabbit://guest:guest@127.0.0.1:\(port)/" }

    private static func freePort() throws -> Int {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let status = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) | getsockname(descriptor, $0, &length)
            }
        }
        try #require(status == 0)
        return Int(UInt16(bigEndian: address.sin_port))
    }

    private static func environment(_ directory: String, _ epmdPort: Int, _ distributionPort: Int) -> [String: String] {
        [
            "HOME": "\(directory)/home", "RABBITMQ_NODENAME": "apus-test-\(getpid())@localhost",
            "RABBITMQ_MNESIA_BASE": "\(directory)/mnesia", "RABBITMQ_LOG_BASE": "\(directory)/log",
            "RABBITMQ_CONFIG_FILE": "\(directory)/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": "\(directory)/enabled_plugins", "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_DIST_PORT": "\(distributionPort)",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CTL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_ADDRESS": "127.0.0.1", "ERL_EPMD_PORT": "\(epmdPort)",
        ]
    }

    private static func start(_ directory: String, _ environment: [String: String]) throws -> ChildProcess {
        try ChildProcess(
            ["/usr/bin/setpriv", "--reuid", "rabbitmq", "--regid", "rabbitmq", "--clear-groups", program],
            environment: environment, output: "\(directory)/server.log")
    }

    /// Waits until the broker answers with its protocol.
    func waitUntilUp() async throws {
        let isUp = await eventually(within: .seconds(90), "the broker listens; see \(directory)/server.log") {
            self.answers()
        }
        try #require(isUp)
    }

    private func answers() -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let status = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard status == 0 else { return false }
        let header: [UInt8] = Array("AMQP".utf8) + [0, 0, 9, 1]
        guard send(descriptor, header, header.count, Int32(MSG_NOSIGNAL)) == header.count else { return false }
        var ready = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        var first: UInt8 = 0
        return poll(&ready, 1, 2000) == 1 && recv(descriptor, &first, 1, 0) == 1
    }

    /// SIGKILL, then a new start on the same data.
    func killAndRestart() throws {
        server.end()
        server = try Self.start(directory, Self.environment(directory, epmdPort, distributionPort))
    }

    func pause() { server.signal(SIGSTOP) }
    func resume() { server.signal(SIGCONT) }

    func control(_ arguments: String...) async throws {
        let child = try ChildProcess(
            [
                "/usr/bin/setpriv", "--reuid", "rabbitmq", "--regid", "rabbitmq", "--clear-groups",
                "/usr/lib/rabbitmq/bin/rabbitmqctl", "-q",
            ] + arguments,
            environment: Self.environment(directory, epmdPort, distributionPort),
            output: "\(directory)/control-\(UUID().uuidString).log")
        var status: Int32 = 0
        let isDone = await eventually(within: .seconds(30), "rabbitmqctl \(arguments) ends") {
            waitpid(child.pid, &status, WNOHANG) == child.pid
        }
        try #require(isDone)
        #expect(status == 0, "rabbitmqctl \(arguments): \(child.output)")
    }

    func peer(_ mode: String) throws -> ChildProcess {
        let script = try #require(Bundle.module.path(forResource: "peer", ofType: "py", inDirectory: "Peers"))
        return try ChildProcess(
            ["/usr/bin/python3", script, mode, url], output: "\(directory)/\(mode)-\(UUID().uuidString).log")
    }

    func stop() {
        server.end()
        epmd.end()
        try? FileManager.default.removeItem(atPath: directory)
    }
}

/// Starts the broker before a suite and ends it after.
struct BrokerTrait: SuiteTrait, TestScoping {
    func provideScope(
        for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
    ) async throws {
        let broker = try Broker()
        defer { broker.stop() }
        try await broker.waitUntilUp()
        Broker.shared = broker
        try await function()
    }
}

extension Trait where Self == BrokerTrait {
    static var broker: BrokerTrait { BrokerTrait() }
}
