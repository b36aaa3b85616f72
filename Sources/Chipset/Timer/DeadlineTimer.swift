// The one way a chip waits: a moment to be woken at. Tests hand in a timer they fire themselves.
package import HostSystem
import Synchronization

/// A one-shot timer on the clock of `MachineClock.nanoseconds`.
package protocol DeadlineTimer: AnyObject, Sendable {
    /// Who is told when the moment has come. Set once, before the first `set`; called on any thread, with no lock held.
    func onExpiry(_ handler: @escaping @Sendable () -> Void)
    /// Expires at `nanoseconds`, replacing any earlier moment; nil: not at all. A leaf: may be called under a lock.
    func set(to nanoseconds: UInt64?)
}

/// A `DeadlineTimer` on an event loop, whose thread the handler runs on.
package final class LoopTimer: DeadlineTimer {
    private let timer: TimerDescriptor
    private let loop: EventLoop
    private let handler = Mutex<(@Sendable () -> Void)?>(nil)

    package init(on loop: EventLoop) throws(HostError) {
        timer = try TimerDescriptor()
        self.loop = loop
        try loop.add(timer.rawValue, for: .readable) { [weak self] _ in self?.expire() }
    }

    deinit { loop.remove(timer.rawValue) }

    package func onExpiry(_ handler: @escaping @Sendable () -> Void) { self.handler.withLock { $0 = handler } }

    package func set(to nanoseconds: UInt64?) { timer.set(to: nanoseconds) }

    private func expire() {
        guard timer.drain() else { return }
        handler.withLock { $0 }?()
    }
}
