// News from other services that an operation waits for (RPC reference §5.13): registered before what causes them, because one
// that nobody waits for is lost.
package import NovaObjects
import Synchronization

/// Who waits for which event of which instance.
package final class ExternalEvents: Sendable {
    package enum Status: Sendable, Equatable { case completed, failed }

    /// Events an operation has registered for; `cancel` when it is done with them.
    package final class Expectation: Sendable {
        fileprivate let id: UInt64
        fileprivate let instanceUUID: String
        fileprivate let keys: Set<String>
        fileprivate let arrivals: AsyncStream<(String, Status)>
        fileprivate let arrival: AsyncStream<(String, Status)>.Continuation
        fileprivate let owner: ExternalEvents
        private let missing: Mutex<Set<String>>

        fileprivate init(id: UInt64, instanceUUID: String, keys: Set<String>, owner: ExternalEvents) {
            self.id = id
            self.instanceUUID = instanceUUID
            self.keys = keys
            self.owner = owner
            missing = Mutex(keys)
            (arrivals, arrival) = AsyncStream.makeStream(of: (String, Status).self)
        }

        package enum Outcome: Sendable, Equatable {
            case completed
            /// These events came with status "failed".
            case failed([String])
            /// These did not come.
            case timedOut([String])
            /// Nobody may wait any more: the instance is being deleted.
            case cancelled
        }

        /// Waits until all have come, one failed, or `timeout` passed. Throws only `CancellationError`. Once.
        package func outcome(within timeout: Duration) async throws -> Outcome {
            if keys.isEmpty { return .completed }
            return try await withThrowingTaskGroup(of: Outcome.self) { group in
                group.addTask { try await self.allArrived() }
                group.addTask {
                    try await Task.sleep(for: timeout)
                    return .timedOut(self.missing.withLock { $0.sorted() })
                }
                defer { group.cancelAll() }
                return try await group.next() ?? .cancelled
            }
        }

        private func allArrived() async throws -> Outcome {
            for await (key, status) in arrivals {
                if status == .failed { return .failed([key]) }
                let isDone = missing.withLock { missing in
                    missing.remove(key)
                    return missing.isEmpty
                }
                if isDone { return .completed }
            }
            try Task.checkCancellation()
            return .cancelled
        }

        package func cancel() { owner.remove(self) }
    }

    private struct State {
        var expectations: [String: [Expectation]] = [:]
        var nextID: UInt64 = 0
    }
    private let state = Mutex(State())

    package init() {}

    /// Registers for events of `name`, one per tag.
    package func expect(_ name: String, tags: [String], of instanceUUID: String) -> Expectation {
        state.withLock { state in
            state.nextID &+= 1
            let expectation = Expectation(
                id: state.nextID, instanceUUID: instanceUUID, keys: Set(tags.map { "\(name)-\($0)" }), owner: self)
            if !tags.isEmpty { state.expectations[instanceUUID, default: []].append(expectation) }
            return expectation
        }
    }

    /// True where somebody waited for it. "in-progress" is no news.
    package func deliver(_ event: InstanceExternalEvent) -> Bool {
        guard let instanceUUID = event.instanceUUID else { return false }
        let waiting = state.withLock { state in
            (state.expectations[instanceUUID] ?? []).filter { $0.keys.contains(event.key) }
        }
        if event.status != "in-progress" {
            for one in waiting { one.arrival.yield((event.key, event.status == "failed" ? .failed : .completed)) }
        }
        return !waiting.isEmpty
    }

    /// Ends all waiting for an instance.
    package func drop(instanceUUID: String) {
        let dropped = state.withLock { $0.expectations.removeValue(forKey: instanceUUID) ?? [] }
        for one in dropped { one.arrival.finish() }
    }

    private func remove(_ expectation: Expectation) {
        state.withLock { state in
            state.expectations[expectation.instanceUUID]?.removeAll { $0.id == expectation.id }
            if state.expectations[expectation.instanceUUID]?.isEmpty == true {
                state.expectations[expectation.instanceUUID] = nil
            }
        }
        expectation.arrival.finish()
    }
}
