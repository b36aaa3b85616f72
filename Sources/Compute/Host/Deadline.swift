// A wait with an end. What is waited for must obey cancellation: it is cancelled at the deadline and awaited.

/// A wait that took too long.
package struct DeadlineExceeded: Error, Sendable, CustomStringConvertible {
    package let limit: Duration
    package var description: String { "no result within \(limit)" }
}

package func withDeadline<Answer: Sendable>(
    _ limit: Duration, _ body: @escaping @Sendable () async throws -> Answer
) async throws -> Answer {
    try await withThrowingTaskGroup(of: Answer?.self) { group in
        group.addTask { try await body() }
        group.addTask {
            try await Task.sleep(for: limit)
            return nil
        }
        defer { group.cancelAll() }
        guard let first = try await group.next(), let answer = first else { throw DeadlineExceeded(limit: limit) }
        return answer
    }
}
