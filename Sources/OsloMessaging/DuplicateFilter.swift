// A broker delivers again what it is not sure we have, and a sender sends again what was not confirmed: both carry the
// `_unique_id` of the first copy.
import Synchronization

/// Remembers the last ids of one listener.
final class DuplicateFilter: Sendable {
    private struct State {
        var known: Set<String> = []
        /// A ring: `next` is the oldest.
        var order: [String] = []
        var next = 0
    }

    private let capacity: Int
    private let state = Mutex(State())

    init(capacity: Int) {
        self.capacity = max(1, capacity)
    }

    /// False where the id was seen among the last `capacity`.
    func isNew(_ id: String) -> Bool {
        state.withLock { state in
            guard state.known.insert(id).inserted else { return false }
            if state.order.count < capacity {
                state.order.append(id)
            } else {
                state.known.remove(state.order[state.next])
                state.order[state.next] = id
                state.next = (state.next + 1) % capacity
            }
            return true
        }
    }
}
