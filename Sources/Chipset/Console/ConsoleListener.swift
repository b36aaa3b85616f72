// A serial console to type at: a listening socket, handed in, that takes one client at a time on an event loop.
//
//     let console = try ConsoleListener(listening: socket, on: loop, log: log)
//     let port = SerialPort(name: "uart@3f8", line: irq4, output: console)
//     console.connect(to: port)
//
// To the client: bytes pass to the log first, then into a bounded buffer that the loop empties; a client that does not read
// loses its oldest bytes and never holds the guest up. From the client: what the receiver refuses waits here, and the socket is
// not read until it has gone. Lock order: this lock, then the loop's; the serial port is called with neither.
import Glibc
package import HostSystem
package import Synchronization

package final class ConsoleListener: SerialOutput {
    private struct Client: Sendable {
        let descriptor: CInt
        var outgoing: [UInt8] = []
        /// Read from the socket and not taken by the port yet.
        var incoming: [UInt8] = []
        /// One thread at a time delivers, so that bytes keep their order; another that comes meanwhile asks for one more round.
        var isDelivering = false
        var mustDeliverAgain = false
        var interest: Readiness = .readable
    }
    private static let busy = Array("this console is in use\r\n".utf8)

    private let socket: OwnedDescriptor
    private let loop: EventLoop
    private let log: (any SerialOutput)?
    private let bufferLimit: Int
    private let client = Mutex<Client?>(nil)
    private let port = Mutex<SerialPort?>(nil)
    /// Bytes that a client was too slow for.
    package let dropped = Atomic<UInt64>(0)

    /// - Parameters:
    ///   - socket: a stream socket that listens already.
    ///   - log: what every byte goes to besides, client or not.
    package init(
        listening socket: consuming OwnedDescriptor, on loop: EventLoop, log: (any SerialOutput)?, bufferLimit: Int = 1 << 16
    ) throws(HostError) {
        self.socket = socket
        self.loop = loop
        self.log = log
        self.bufferLimit = max(bufferLimit, 2)
        try makeNonblocking(self.socket.rawValue, subject: "console socket")
        try loop.add(self.socket.rawValue, for: .readable) { [weak self] _ in self?.accept() }
    }

    deinit {
        loop.remove(socket.rawValue)
        if let descriptor = client.withLock({ $0?.descriptor }) {
            loop.remove(descriptor)
            _ = close(descriptor)
        }
    }

    /// Sends what clients type to `port`, until `disconnect`: the two hold each other.
    package func connect(to port: SerialPort) {
        self.port.withLock { $0 = port }
        port.onReceiveSpace { [weak self] in self?.deliver() }
    }

    /// Ends the mutual hold of listener and port.
    package func disconnect() {
        let port = port.withLock { $0.take() }
        port?.onReceiveSpace(nil)
    }

    // MARK: To the client

    package func write(_ byte: UInt8) {
        log?.write(byte)
        client.withLock { client in
            guard client != nil else { return }
            client?.outgoing.append(byte)
            trim(&client)
            setInterest(of: &client)
        }
    }

    /// Drops the oldest half of a buffer that is over its bound, so that a slow client costs little per byte.
    private func trim(_ client: inout Client?) {
        guard let count = client?.outgoing.count, count > bufferLimit else { return }
        let excess = count - bufferLimit / 2
        client?.outgoing.removeFirst(excess)
        dropped.wrappingAdd(UInt64(excess), ordering: .relaxed)
    }

    private func send() {
        guard let (descriptor, bytes) = client.withLock({ client -> (CInt, [UInt8])? in
            guard let current = client, !current.outgoing.isEmpty else { return nil }
            client?.outgoing = []
            return (current.descriptor, current.outgoing)
        }) else { return }
        // SAFETY: send reads at most the array's own bytes. The descriptor is closed on this thread only.
        let sent = unsafe Glibc.send(descriptor, bytes, bytes.count, CInt(MSG_DONTWAIT | MSG_NOSIGNAL))
        if sent < 0, errno != EAGAIN, errno != EINTR { return hangUp() }
        client.withLock { client in
            if sent < bytes.count { client?.outgoing.insert(contentsOf: bytes[max(sent, 0)...], at: 0) }
            trim(&client)
            setInterest(of: &client)
        }
    }

    // MARK: From the client

    private func receive() {
        guard let descriptor = client.withLock({ $0.flatMap { $0.incoming.isEmpty ? $0.descriptor : nil } }) else { return }
        var buffer = [UInt8](repeating: 0, count: 256)
        // SAFETY: recv writes at most the array's own length.
        let count = unsafe recv(descriptor, &buffer, buffer.count, CInt(MSG_DONTWAIT))
        if count == 0 { return hangUp() }
        guard count > 0 else {
            if errno != EAGAIN, errno != EINTR { hangUp() }
            return
        }
        client.withLock { $0?.incoming = Array(buffer[..<count]) }
        deliver()
    }

    /// Gives the port what waits, as far as it takes it. Loop thread or, when the guest has read a byte, a vCPU thread.
    private func deliver() {
        guard let port = port.withLock({ $0 }) else {
            client.withLock { $0?.incoming = [] }
            return
        }
        while let bytes = client.withLock({ client -> [UInt8]? in
            guard let current = client else { return nil }
            if current.isDelivering {
                client?.mustDeliverAgain = true
                return nil
            }
            guard !current.incoming.isEmpty else { return nil }
            client?.isDelivering = true
            client?.mustDeliverAgain = false
            return current.incoming
        }) {
            let taken = port.receive(bytes)
            let again = client.withLock { client -> Bool in
                guard var current = client, current.isDelivering else { return false }
                current.isDelivering = false
                current.incoming.removeFirst(min(taken, current.incoming.count))
                client = current
                setInterest(of: &client)
                return current.mustDeliverAgain
            }
            guard again else { return }
        }
    }

    // MARK: Coming and going, on the loop's thread

    private func accept() {
        let descriptor = Glibc.accept(socket.rawValue, nil, nil)
        guard descriptor >= 0 else { return }
        let isFirst = client.withLock { client -> Bool in
            guard client == nil else { return false }
            client = Client(descriptor: descriptor)
            return true
        }
        guard isFirst else {
            // SAFETY: the array's own bytes; a client that does not take them learns by the end of the connection.
            _ = unsafe Glibc.send(descriptor, Self.busy, Self.busy.count, CInt(MSG_DONTWAIT | MSG_NOSIGNAL))
            _ = close(descriptor)
            return
        }
        do throws(HostError) {
            try makeNonblocking(descriptor, subject: "console client")
            try loop.add(descriptor, for: .readable) { [weak self] readiness in self?.serve(readiness) }
            client.withLock { setInterest(of: &$0) }
        } catch {
            // The host is out of something: this client is refused, the console goes on.
            client.withLock { $0 = nil }
            _ = close(descriptor)
        }
    }

    private func serve(_ readiness: Readiness) {
        if readiness.contains(.writable) { send() }
        if readiness.contains(.readable) {
            receive()
        } else if !readiness.isDisjoint(with: .hangUp) {
            hangUp()
        }
    }

    private func hangUp() {
        guard let descriptor = client.withLock({ $0.take()?.descriptor }) else { return }
        loop.remove(descriptor)
        _ = close(descriptor)
    }

    /// Under the lock, so that the last state decided is the last one set.
    private func setInterest(of client: inout Client?) {
        guard let current = client else { return }
        var wanted: Readiness = []
        if current.incoming.isEmpty { wanted.insert(.readable) }
        if !current.outgoing.isEmpty { wanted.insert(.writable) }
        guard wanted != current.interest else { return }
        // A descriptor that is not watched yet or any more has nothing to be told.
        guard (try? loop.modify(current.descriptor, for: wanted)) != nil else { return }
        client?.interest = wanted
    }
}

private func makeNonblocking(_ descriptor: CInt, subject: String) throws(HostError) {
    let flags = fcntl(descriptor, F_GETFL)
    guard flags >= 0, fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) >= 0, fcntl(descriptor, F_SETFD, FD_CLOEXEC) >= 0 else {
        throw HostError("make non-blocking", subject: subject, errno: errno)
    }
}
