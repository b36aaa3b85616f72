// One epoll loop, run by one thread: the monitor's I/O threads. Handlers run on that thread, one at a time.
import CLinux
import Glibc
import Synchronization

/// What a descriptor became ready for.
package struct Readiness: OptionSet, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    package static let readable = Readiness(rawValue: 0x001)
    package static let writable = Readiness(rawValue: 0x004)
    /// The peer went away or the descriptor failed; always reported.
    package static let hangUp = Readiness(rawValue: 0x018)
}

/// An epoll loop. `add`, `modify`, `remove` and `stop` from any thread; handlers on the thread in `run`.
package final class EventLoop: Sendable {
    package typealias Handler = @Sendable (Readiness) -> Void

    private struct Registration {
        var descriptor: CInt
        var handler: Handler
    }
    private struct State {
        var registrations: [UInt64: Registration] = [:]
        var tokens: [CInt: UInt64] = [:]
        var nextToken: UInt64 = 1
    }

    private let poll: OwnedDescriptor
    private let wake: EventDescriptor
    private let state = Mutex(State())
    private let isStopping = Atomic<Bool>(false)

    package init() throws(HostError) {
        let poll = epoll_create1(CInt(EPOLL_CLOEXEC))
        guard poll >= 0 else { throw HostError("create", subject: "epoll", errno: errno) }
        self.poll = OwnedDescriptor(owning: poll)
        wake = try EventDescriptor()
        try control(EPOLL_CTL_ADD, descriptor: wake.rawValue, events: .readable, token: 0)
    }

    /// Watches `descriptor`, which stays its owner's and must stay open until `remove`.
    package func add(_ descriptor: CInt, for events: Readiness, handler: @escaping Handler) throws(HostError) {
        let token = state.withLock { state in
            let token = state.nextToken
            state.nextToken += 1
            state.registrations[token] = Registration(descriptor: descriptor, handler: handler)
            state.tokens[descriptor] = token
            return token
        }
        do {
            try control(EPOLL_CTL_ADD, descriptor: descriptor, events: events, token: token)
        } catch {
            state.withLock { state in
                state.registrations[token] = nil
                state.tokens[descriptor] = nil
            }
            throw error
        }
    }

    /// Changes what a watched descriptor waits for.
    package func modify(_ descriptor: CInt, for events: Readiness) throws(HostError) {
        guard let token = state.withLock({ $0.tokens[descriptor] }) else {
            throw HostError("modify epoll of", subject: "descriptor \(descriptor)", errno: ENOENT)
        }
        try control(EPOLL_CTL_MOD, descriptor: descriptor, events: events, token: token)
    }

    /// Stops watching. A handler already running on the loop's thread may still finish.
    package func remove(_ descriptor: CInt) {
        let known = state.withLock { state -> Bool in
            guard let token = state.tokens.removeValue(forKey: descriptor) else { return false }
            state.registrations[token] = nil
            return true
        }
        if known { _ = epoll_ctl(poll.rawValue, EPOLL_CTL_DEL, descriptor, nil) }
    }

    /// Serves events until `stop`. The calling thread becomes the loop's thread.
    package func run() throws(HostError) {
        while !isStopping.load(ordering: .acquiring) { try serve(waiting: -1) }
    }

    /// Waits once and serves what is ready, at most 64 descriptors; for a caller that is the loop's thread itself.
    ///
    /// - Parameter milliseconds: the longest wait; -1: until something is ready.
    /// - Returns: how many descriptors were ready.
    @discardableResult
    package func serve(waiting milliseconds: CInt) throws(HostError) -> Int {
        // SAFETY: 64 events of room, which the kernel is told of.
        var events = unsafe InlineArray<64, epoll_event>(repeating: epoll_event())
        var span = unsafe events.mutableSpan
        let count = unsafe span.withUnsafeMutableBufferPointer { unsafe epoll_wait(poll.rawValue, $0.baseAddress, 64, milliseconds) }
        if count < 0 {
            if errno == EINTR { return 0 }
            throw HostError("wait for", subject: "epoll", errno: errno)
        }
        for index in 0..<Int(count) {
            let token = unsafe span[index].data.u64
            if token == 0 { wake.drain(); continue }
            guard let handler = state.withLock({ $0.registrations[token]?.handler }) else { continue }
            unsafe handler(Readiness(rawValue: span[index].events))
        }
        return Int(count)
    }

    /// Makes `run` return after the handler in progress.
    package func stop() {
        isStopping.store(true, ordering: .releasing)
        wake.signal()
    }

    private func control(
        _ operation: CInt, descriptor: CInt, events: Readiness, token: UInt64
    ) throws(HostError) {
        var event = unsafe epoll_event()
        unsafe event.events = events.rawValue
        unsafe event.data.u64 = token
        guard unsafe epoll_ctl(poll.rawValue, operation, descriptor, &event) == 0 else {
            throw HostError("watch with epoll", subject: "descriptor \(descriptor)", errno: errno)
        }
    }
}
