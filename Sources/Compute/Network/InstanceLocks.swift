// One lock per instance, for asynchronous work: whoever writes an instance's network information does it alone, in the order
// of arrival. A waiter that is cancelled leaves the line.
import Synchronization

final class InstanceLocks: Sendable {
    private struct Waiter {
        let number: UInt64
        let continuation: CheckedContinuation<Void, any Error>
    }
    private struct State {
        var nextNumber: UInt64 = 0
        /// A key that is here is held; its value is the line behind the holder.
        var lines: [String: [Waiter]] = [:]
    }
    private let state = Mutex(State())

    /// Runs `body` while no other body of the same key runs. Not reentrant.
    func withLock<Result>(_ key: String, _ body: () async throws -> Result) async throws -> Result {
        try await acquire(key)
        defer { release(key) }
        return try await body()
    }

    /// How many keys are held: nothing stays behind an instance that is gone.
    var heldCount: Int { state.withLock { $0.lines.count } }

    private func acquire(_ key: String) async throws {
        let number = state.withLock { state in
            state.nextNumber &+= 1
            return state.nextNumber
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                let answer: Swift.Result<Void, any Error>? = state.withLock { state in
                    // Checked under the lock: a cancellation from here on finds the waiter in the line.
                    if Task.isCancelled { return .failure(CancellationError()) }
                    if state.lines[key] == nil {
                        state.lines[key] = []
                        return .success(())
                    }
                    state.lines[key]?.append(Waiter(number: number, continuation: continuation))
                    return nil
                }
                if let answer { continuation.resume(with: answer) }
            }
        } onCancel: {
            let waiter = state.withLock { state -> Waiter? in
                guard let index = state.lines[key]?.firstIndex(where: { $0.number == number }) else { return nil }
                return state.lines[key]?.remove(at: index)
            }
            waiter?.continuation.resume(throwing: CancellationError())
        }
    }

    private func release(_ key: String) {
        let next = state.withLock { state -> Waiter? in
            guard var line = state.lines[key], !line.isEmpty else {
                state.lines[key] = nil
                return nil
            }
            let first = line.removeFirst()
            state.lines[key] = line
            return first
        }
        next?.continuation.resume()
    }
}
