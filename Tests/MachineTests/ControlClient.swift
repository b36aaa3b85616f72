import Glibc
import HostSystem
import JSON
import MonitorProtocol
import Testing

/// A client of a control socket, as another program would be one: it blocks, at most a minute.
final class Connection {
    struct TimedOut: Error {}
    let descriptor: CInt
    private var framer = LineFramer(limit: LineFramer.replyLimit)
    /// Read while something else was waited for.
    private var messages: [MonitorMessage] = []

    init(path: String) throws {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
        descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var timeout = timeval(tv_sec: 60, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        let connected = withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        try #require(connected == 0, "connect to \(path): \(errorName(errno))")
    }

    deinit { close(descriptor) }

    func send(_ bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            let done = Glibc.send(descriptor, Array(bytes[sent...]), bytes.count - sent, Int32(MSG_NOSIGNAL))
            guard done > 0 else { throw TimedOut() }
            sent += done
        }
    }

    /// The next line; nil at the end of the connection.
    func line() throws -> [UInt8]? {
        while true {
            if let line = try framer.next() { return line }
            var buffer = [UInt8](repeating: 0, count: 65536)
            let got = recv(descriptor, &buffer, buffer.count, 0)
            if got == 0 || (got < 0 && errno == ECONNRESET) { return nil }
            guard got > 0 else { throw TimedOut() }
            framer.append(buffer.prefix(got))
        }
    }

    private func next(_ isWanted: (MonitorMessage) -> Bool) throws -> MonitorMessage {
        if let index = messages.firstIndex(where: isWanted) { return messages.remove(at: index) }
        while let line = try line() {
            let message = try MonitorMessage(parsing: line)
            if isWanted(message) { return message }
            messages.append(message)
        }
        throw TimedOut()
    }

    func reply() throws -> MonitorReply {
        guard case .reply(let reply) = try next({ if case .reply = $0 { true } else { false } }) else {
            throw TimedOut()
        }
        return reply
    }

    func ask(_ command: MonitorCommand, with handed: CInt? = nil) throws -> Result<JSONValue, MonitorRefusal> {
        let line = MonitorRequest(command, id: 1).line
        if let handed { try #require(sendToSocket(descriptor, line, with: handed)) } else { try send(line) }
        return try reply().outcome
    }

    func status() throws -> MachineStatus { try MachineStatus(json: try ask(.status).get()) }

    func waitFor(_ isWanted: (MonitorEvent.News) -> Bool) throws -> MonitorEvent.News {
        let message = try next { if case .event(let event) = $0 { isWanted(event.news) } else { false } }
        guard case .event(let event) = message else { throw TimedOut() }
        return event.news
    }
}
