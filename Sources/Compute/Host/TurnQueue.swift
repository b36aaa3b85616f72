// Nova's lock "compute_resources" in structured concurrency: what is done under it awaits the conductor and Placement,
// and an actor alone would let another operation in at each await. Turns are given in the order they were asked for.
import Synchronization

/// Lets one operation at a time run to its end, the waiting ones in order.
package final class TurnQueue: Sendable {
    private struct State {
        var isTaken = false
        var nextID = 0
        var waiting: [(id: Int, turn: CheckedContinuation<Void, any Error>)] = []
    }
    private let state = Mutex(State())

    package init() {}

    /// Runs `body` when it is this caller's turn. A caller that is cancelled while it waits gets `CancellationError`.
    package func run<Answer>(_ body: () async throws -> Answer) async throws -> Answer {
        try await takeTurn()
        defer { passOn() }
        return try await body()
    }

    private func takeTurn() async throws {
        let id = state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (turn: CheckedContinuation<Void, any Error>) in
                let outcome: Result<Void, any Error>? = state.withLock { state in
                    if Task.isCancelled { return .failure(CancellationError()) }
                    guard state.isTaken else {
                        state.isTaken = true
                        return .success(())
                    }
                    state.waiting.append((id, turn))
                    return nil
                }
                if let outcome { turn.resume(with: outcome) }
            }
        } onCancel: {
            let turn = state.withLock { state in
                state.waiting.firstIndex { $0.id == id }.map { state.waiting.remove(at: $0).turn }
            }
            turn?.resume(throwing: CancellationError())
        }
    }

    private func passOn() {
        let next = state.withLock { state in
            guard !state.waiting.isEmpty else {
                state.isTaken = false
                return nil as CheckedContinuation<Void, any Error>?
            }
            return state.waiting.removeFirst().turn
        }
        next?.resume()
    }
}
