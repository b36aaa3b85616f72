// One client of the control socket: what it sent, what it has not read yet, and the descriptors it handed over.
import Glibc
import HostSystem
import MonitorProtocol

/// For the thread of its server.
package final class ControlClient {
    /// What a client may leave unread before it is dropped at the next event.
    static let outgoingLimit = 4 << 20
    /// What a client may leave unread before it is not read from.
    private static let readingLimit = 64 << 10
    private static let descriptorLimit = 64

    let descriptor: CInt
    /// What the loop waits for.
    var interest: Readiness = .readable
    /// Nothing more is read; what is left to say is said.
    var isEnding = false
    private(set) var isClosed = false
    /// A reply comes later; what the client sent meanwhile waits, so that replies keep the order of requests.
    var isWaiting = false
    private var framer = LineFramer(limit: LineFramer.requestLimit)
    private var outgoing: [UInt8] = []
    private var sentByteCount = 0
    /// Came with a line and are not named yet.
    private var arrived: [CInt] = []
    private var named: [String: CInt] = [:]

    init(owning descriptor: CInt) {
        self.descriptor = descriptor
    }

    func close() {
        guard !isClosed else { return }
        isClosed = true
        for number in arrived + named.values { _ = Glibc.close(number) }
        arrived = []
        named = [:]
        _ = Glibc.close(descriptor)
    }

    // MARK: What it sent

    var mayBeRead: Bool { !isEnding && !isWaiting && outgoingByteCount <= Self.readingLimit }

    /// False where there are more descriptors than a client may keep.
    func arrive(_ bytes: [UInt8], _ descriptors: [CInt]) -> Bool {
        framer.append(bytes)
        arrived += descriptors
        return arrived.count + named.count <= Self.descriptorLimit
    }

    /// Descriptors that came with lines which did not take them are closed once all those lines are served: which of several
    /// lines they came with, a stream does not tell.
    func nextLine() throws(LineTooLong) -> [UInt8]? {
        if let line = try framer.next() { return line }
        if framer.isEmpty {
            for number in arrived { _ = Glibc.close(number) }
            arrived = []
        }
        return nil
    }

    /// Gives the descriptor that came with the line a name. False where none came.
    package func keepDescriptor(as name: String) -> Bool {
        guard !arrived.isEmpty else { return false }
        if let old = named.updateValue(arrived.removeFirst(), forKey: name) { _ = Glibc.close(old) }
        return true
    }

    /// False where nothing has this name.
    package func closeDescriptor(named name: String) -> Bool {
        guard let number = named.removeValue(forKey: name) else { return false }
        _ = Glibc.close(number)
        return true
    }

    /// Stays the client's.
    package func descriptor(named name: String) -> CInt? { named[name] }

    // MARK: What it has not read

    var outgoingByteCount: Int { outgoing.count - sentByteCount }

    func enqueue(_ bytes: [UInt8]) {
        outgoing += bytes
    }

    /// Sends what the socket takes. False where the connection broke.
    func flush() -> Bool {
        while sentByteCount < outgoing.count {
            guard let sent = sendToSocket(descriptor, outgoing[sentByteCount...]) else { return false }
            guard sent > 0 else { break }
            sentByteCount += sent
        }
        if sentByteCount == outgoing.count {
            outgoing.removeAll()
            sentByteCount = 0
        } else if sentByteCount > 1 << 20 {
            outgoing.removeFirst(sentByteCount)
            sentByteCount = 0
        }
        return true
    }
}
