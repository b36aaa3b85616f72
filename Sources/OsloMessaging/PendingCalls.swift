// Calls that wait for their replies.
import AMQP
import JSON
import Synchronization

/// One call: its outcome, and when the server was last heard of.
final class PendingCall: Sendable {
    private let result = OneShot<JSONValue>()
    private let progress = Mutex<(lastHeard: ContinuousClock.Instant, partial: JSONValue)>((.now, .null))

    func receive(_ reply: WireReply) {
        if let failure = reply.failure {
            result.resolve(.failure(failure))
            return
        }
        let value = progress.withLock { progress in
            progress.lastHeard = .now
            // Older senders put the result into a message before the ending one.
            if !reply.result.isNull { progress.partial = reply.result }
            return progress.partial
        }
        if reply.isEnding { result.resolve(.success(value)) }
    }

    /// Waits for the end; both the whole time and, where monitored, the silence of the server are limited.
    func outcome(
        until deadline: ContinuousClock.Instant, monitor: Duration?, method: String, late: MessagingTimeout
    ) async throws -> JSONValue {
        guard let monitor else { return try await result.value(until: deadline, or: late) }
        progress.withLock { $0.lastHeard = .now }
        let silent = MessagingTimeout(method: method, seconds: monitor / .seconds(1))
        while true {
            let silence = progress.withLock { $0.lastHeard } + monitor
            let isSilence = silence < deadline
            do {
                return try await result.value(until: min(silence, deadline), or: isSilence ? silent : late)
            } catch is MessagingTimeout {
                // A heartbeat may have come while this waited.
                guard isSilence, progress.withLock({ $0.lastHeard }) + monitor > .now else {
                    throw isSilence ? silent : late
                }
            }
        }
    }
}

final class PendingCalls: Sendable {
    private let counters: MessagingCounters
    private let calls = Mutex<[String: PendingCall]>([:])
    private let duplicates = DuplicateFilter(capacity: 1024)

    init(_ counters: MessagingCounters) {
        self.counters = counters
    }

    func begin(_ id: String) -> PendingCall {
        let call = PendingCall()
        calls.withLock { $0[id] = call }
        return call
    }

    func end(_ id: String) { calls.withLock { _ = $0.removeValue(forKey: id) } }

    func receive(_ delivery: Delivery) {
        guard !delivery.isOversized else { return counters.drop(.oversized) }
        let message: [String: JSONValue]
        do {
            message = try Envelope.decode(delivery.message.body)
        } catch {
            return counters.drop(error.reason)
        }
        guard let reply = WireReply(message) else { return counters.drop(.notAMessage) }
        guard reply.uniqueID.isEmpty || duplicates.isNew(reply.uniqueID) else { return counters.drop(.duplicate) }
        guard let call = calls.withLock({ $0[reply.messageID] }) else { return counters.drop(.unexpectedReply) }
        call.receive(reply)
    }
}
