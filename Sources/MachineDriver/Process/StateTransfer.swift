// Has a monitor write its machine's state to a file: over a connection of its own, because a descriptor travels with a line of the
// socket it is for, and because saving takes as long as the guest's memory is large.
import CServiceHost
import Glibc
import JSON
import MonitorProtocol

enum StateTransfer {
    /// Writes the state of a paused machine to `file`. Blocking; looks every second whether it is cancelled.
    /// - Parameter socketPath: the monitor's control socket.
    static func save(
        _ socketPath: String, to file: Descriptor, timeout: Duration, isCancelled: () -> Bool
    ) throws {
        let number = unsafe apus_host_connect(socketPath, 1000)
        guard number >= 0 else { throw HostFailure("connect to", socketPath) }
        let deadline = ContinuousClock.now + timeout
        var connection = Connection(socket: Descriptor(owning: number), path: socketPath)
        let keep = MonitorRequest(.getfd(name: "state"), id: 1)
        try connection.send(keep.line, with: file)
        _ = try connection.reply(to: 1, before: deadline, isCancelled: isCancelled)
        try connection.send(MonitorRequest(.save(fdname: "state"), id: 2).line, with: nil)
        _ = try connection.reply(to: 2, before: deadline, isCancelled: isCancelled)
    }

    private struct Connection {
        let socket: Descriptor
        let path: String
        private var framer = LineFramer(limit: LineFramer.replyLimit)

        init(socket: Descriptor, path: String) {
            self.socket = socket
            self.path = path
        }

        func send(_ line: [UInt8], with file: Descriptor?) throws(HostFailure) {
            guard let file else { return try Files.append(line, to: socket, named: path) }
            // SAFETY: reads the array's own bytes. A line is far smaller than a socket's buffer, so it goes whole or not at all.
            let sent = unsafe line.withUnsafeBytes {
                unsafe apus_host_send_descriptor(socket.rawValue, $0.baseAddress, Int64($0.count), file.rawValue)
            }
            guard sent == line.count else { throw HostFailure("send a descriptor to", path) }
        }

        mutating func reply(to id: Int64, before deadline: ContinuousClock.Instant, isCancelled: () -> Bool) throws -> JSONValue {
            while true {
                while let line = try framer.next() {
                    guard case .reply(let reply) = try MonitorMessage(parsing: line), reply.id == .integer(id) else { continue }
                    return try reply.outcome.get()
                }
                try receive(before: deadline, isCancelled: isCancelled)
            }
        }

        private mutating func receive(before deadline: ContinuousClock.Instant, isCancelled: () -> Bool) throws {
            var buffer = [UInt8](repeating: 0, count: 16 << 10)
            while true {
                // SAFETY: fills at most the array's own length.
                let count = unsafe Glibc.read(socket.rawValue, &buffer, buffer.count)
                if count > 0 {
                    framer.append(buffer[..<count])
                    return
                }
                guard count < 0, errno == EAGAIN || errno == EINTR else {
                    throw HostFailure("read from", path, errno: count == 0 ? ECONNRESET : errno)
                }
                if isCancelled() { throw CancellationError() }
                guard ContinuousClock.now < deadline else { throw HostFailure("save the state through", path, errno: ETIMEDOUT) }
            }
        }
    }
}
