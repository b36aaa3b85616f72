// A queue whose requests are finished as soon as they are looked at: transmit, control, entropy, balloon.
import GuestMemory
import Synchronization

/// Serves one queue under one lock, with notification suppression and a budget, so that devices that share a loop take
/// turns.
final class SynchronousQueue: Sendable {
    private struct State: Sendable {
        var active: ActiveQueue?
        var isRunning = false
        var chain = DescriptorChain()
    }

    /// Chains served before others on the loop get a turn.
    private static let budget = 256

    private let state = Mutex(State())

    func start(_ queue: ActiveQueue?) {
        state.withLock { state in
            state.active = queue
            state.isRunning = queue != nil
        }
    }

    func stop() { state.withLock { $0.isRunning = false } }

    func reset() {
        state.withLock { state in
            state.active = nil
            state.isRunning = false
        }
    }

    var position: RingPosition? { state.withLock { $0.active?.ring.position } }

    /// Serves what the driver offered. `body` returns how many bytes it wrote into the chain's writable buffers.
    func serve(_ body: (borrowing DescriptorChain) -> UInt32) {
        state.withLock { state in
            guard state.isRunning, var active = state.active else { return }
            do throws(QueueFault) {
                try Self.serve(&active, &state.chain, body)
            } catch {
                state.isRunning = false
                active.link.events.guestFault(error)
            }
            state.active = active
        }
    }

    private static func serve(
        _ active: inout ActiveQueue, _ chain: inout DescriptorChain, _ body: (borrowing DescriptorChain) -> UInt32
    ) throws(QueueFault) {
        var served = 0
        repeat {
            try active.ring.suppressNotifications()
            while served < budget, try active.ring.pop(into: &chain) {
                try active.ring.push(head: chain.head, byteCount: body(chain))
                served += 1
            }
            if try active.ring.publish() { active.link.interrupt() }
            if served == budget {
                active.link.signal()
                return
            }
        } while try active.ring.allowNotifications()
    }
}
