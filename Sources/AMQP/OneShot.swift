// A result that one thread or task gives and tasks wait for, with a deadline and with cancellation.
import Synchronization

/// A value that comes once.
package final class OneShot<Value: Sendable>: Sendable {
    private struct State {
        var result: Result<Value, any Error>?
        var waiting: [Int: CheckedContinuation<Value, any Error>] = [:]
        var nextID = 0
    }

    private let state = Mutex(State())

    package init() {}

    /// The first result counts; false for a later one.
    @discardableResult
    package func resolve(_ result: Result<Value, any Error>) -> Bool {
        let waiting: [CheckedContinuation<Value, any Error>]? = state.withLock { state in
            guard state.result == nil else { return nil }
            state.result = result
            defer { state.waiting = [:] }
            return Array(state.waiting.values)
        }
        guard let waiting else { return false }
        for continuation in waiting { continuation.resume(with: result) }
        return true
    }

    package var isResolved: Bool { state.withLock { $0.result != nil } }

    /// Waits for the result. Cancellation ends the wait, not what is waited for.
    package func value() async throws -> Value {
        let id = state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let known: Result<Value, any Error>? = state.withLock { state in
                    if let result = state.result { return result }
                    // Either this sees the flag, or the handler below finds the continuation: both are under the lock.
                    if Task.isCancelled { return .failure(CancellationError()) }
                    state.waiting[id] = continuation
                    return nil
                }
                if let known { continuation.resume(with: known) }
            }
        } onCancel: {
            state.withLock { $0.waiting.removeValue(forKey: id) }?.resume(throwing: CancellationError())
        }
    }

    /// Waits for the result until `deadline`, then throws `error`.
    package func value(until deadline: ContinuousClock.Instant, or error: any Error) async throws -> Value {
        if let result = state.withLock({ $0.result }) { return try result.get() }
        return try await withThrowingTaskGroup(of: Value.self) { group in
            group.addTask { try await self.value() }
            group.addTask {
                try await Task.sleep(until: deadline, clock: .continuous)
                throw error
            }
            defer { group.cancelAll() }
            guard let value = try await group.next() else { throw CancellationError() }
            return value
        }
    }
}
