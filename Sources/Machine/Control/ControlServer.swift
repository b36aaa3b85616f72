// The control socket: a listening stream socket that was handed in, several clients, lines of MonitorProtocol each way.
//
//     let server = try ControlServer(listening: socket, on: loop) { command, client in ... }
//     server.announce(.stop)
//
// A client is never waited for. One that does not read its replies is not read from any more; one that does not read its events,
// sends a line without end, or keeps more descriptors than it may, is dropped. The guest hears nothing of it.
import Glibc
package import HostSystem
package import JSON
package import MonitorProtocol

/// @unchecked: after init everything is touched on the loop's thread only.
package final class ControlServer: @unchecked Sendable {
    package typealias Outcome = Result<JSONValue, MonitorRefusal>
    /// Does a command and gives its reply; nil: the reply comes later, by a call of the closure, once. On the loop's thread, both.
    package typealias Answer = (MonitorCommand, ControlClient, @escaping (Outcome) -> Void) -> Outcome?

    static let version = "1.0"
    private static let clientLimit = 16
    /// Read at once, so that clients take turns.
    private static let readByteCount = 16 << 10

    private let listener: OwnedDescriptor
    private let loop: EventLoop
    private let answer: Answer
    private var clients: [CInt: ControlClient] = [:]
    private var isAccepting = true

    package init(listening listener: consuming OwnedDescriptor, on loop: EventLoop, answer: @escaping Answer)
        throws(HostError)
    {
        self.listener = listener
        self.loop = loop
        self.answer = answer
        let number = self.listener.rawValue
        let flags = fcntl(number, F_GETFL)
        guard flags >= 0, fcntl(number, F_SETFL, flags | O_NONBLOCK) >= 0 else {
            throw HostError("make non-blocking", subject: "control socket", errno: errno)
        }
        try loop.add(number, for: .readable) { [weak self] _ in self?.accept() }
    }

    deinit {
        loop.remove(listener.rawValue)
        for client in clients.values {
            loop.remove(client.descriptor)
            client.close()
        }
    }

    package var clientCount: Int { clients.count }

    /// Tells every client.
    package func announce(_ news: MonitorEvent.News) {
        guard !clients.isEmpty else { return }
        let (seconds, microseconds) = SystemClock.wallTime
        let line = MonitorMessage.event(MonitorEvent(news, seconds: seconds, microseconds: microseconds)).line
        for client in Array(clients.values) {
            if client.outgoingByteCount > ControlClient.outgoingLimit { drop(client) } else { send(line, to: client) }
        }
    }

    // MARK: Coming and going

    private func accept() {
        let number = Glibc.accept(listener.rawValue, nil, nil)
        guard number >= 0 else {
            // Out of descriptors: the socket stays readable, and a loop that keeps asking helps nobody. The next client that
            // goes makes room.
            if errno != EAGAIN, errno != EINTR, errno != ECONNABORTED { setAccepting(clients.isEmpty) }
            return
        }
        guard clients.count < Self.clientLimit, fcntl(number, F_SETFD, FD_CLOEXEC) >= 0 else {
            let refusal = MonitorRefusal(.genericError, "\(Self.clientLimit) clients are the limit")
            _ = sendToSocket(number, MonitorMessage.reply(MonitorReply(id: nil, outcome: .failure(refusal))).line[...])
            _ = Glibc.close(number)
            return
        }
        let client = ControlClient(owning: number)
        do throws(HostError) {
            try loop.add(number, for: .readable) { [weak self] readiness in self?.serve(number, readiness) }
        } catch {
            // This client is refused; the others go on.
            return client.close()
        }
        clients[number] = client
        send(MonitorMessage.greeting(version: Self.version).line, to: client)
    }

    private func setAccepting(_ isAccepting: Bool) {
        guard isAccepting != self.isAccepting else { return }
        self.isAccepting = isAccepting
        try? loop.modify(listener.rawValue, for: isAccepting ? .readable : [])
    }

    private func drop(_ client: ControlClient) {
        guard clients.removeValue(forKey: client.descriptor) != nil else { return }
        loop.remove(client.descriptor)
        client.close()
        setAccepting(true)
    }

    // MARK: Serving

    private func serve(_ number: CInt, _ readiness: Readiness) {
        guard let client = clients[number] else { return }
        if readiness.contains(.writable) {
            flush(client)
            // Lines that waited for room.
            take(client)
        }
        guard !client.isClosed else { return }
        if readiness.contains(.readable), client.mayBeRead {
            receive(client)
        } else if !readiness.isDisjoint(with: .hangUp) {
            drop(client)
        }
    }

    private func receive(_ client: ControlClient) {
        switch receiveFromSocket(client.descriptor, upTo: Self.readByteCount) {
        case .nothing: break
        case .ended:
            // A client may close its own side and still wait for its replies.
            client.isEnding = true
            settle(client)
        case .bytes(let bytes, let descriptors):
            guard client.arrive(bytes, descriptors) else { return drop(client) }
            take(client)
        }
    }

    /// Answers the lines that have come, as long as the client takes the answers.
    private func take(_ client: ControlClient) {
        while !client.isClosed, client.mayBeRead {
            do throws(LineTooLong) {
                guard let line = try client.nextLine() else { break }
                if !line.isEmpty { reply(to: line, from: client) }
            } catch {
                let refusal = MonitorRefusal(.genericError, "a line longer than \(error.limit) bytes")
                client.isEnding = true
                send(MonitorMessage.reply(MonitorReply(id: nil, outcome: .failure(refusal))).line, to: client)
            }
        }
        settle(client)
    }

    private func reply(to line: [UInt8], from client: ControlClient) {
        do throws(RequestError) {
            let request = try MonitorRequest(parsing: line)
            client.isWaiting = true
            let outcome = answer(request.command, client) { [weak self] outcome in
                guard let self, !client.isClosed else { return }
                client.isWaiting = false
                send(MonitorMessage.reply(MonitorReply(id: request.id, outcome: outcome)).line, to: client)
                // Lines that waited.
                take(client)
            }
            guard let outcome else { return }
            client.isWaiting = false
            send(MonitorMessage.reply(MonitorReply(id: request.id, outcome: outcome)).line, to: client)
        } catch {
            send(MonitorMessage.reply(error.reply).line, to: client)
        }
    }

    private func send(_ line: [UInt8], to client: ControlClient) {
        client.enqueue(line)
        flush(client)
        settle(client)
    }

    private func flush(_ client: ControlClient) {
        guard !client.isClosed else { return }
        if !client.flush() { drop(client) }
    }

    /// Closes a client that is done with, and waits for what the others need.
    private func settle(_ client: ControlClient) {
        guard !client.isClosed else { return }
        if client.isEnding, !client.isWaiting, client.outgoingByteCount == 0 { return drop(client) }
        var wanted: Readiness = []
        if client.mayBeRead { wanted.insert(.readable) }
        if client.outgoingByteCount > 0 { wanted.insert(.writable) }
        guard wanted != client.interest else { return }
        client.interest = wanted
        if (try? loop.modify(client.descriptor, for: wanted)) == nil { drop(client) }
    }
}
