// What the driver counts; the service turns a snapshot into metrics.
import Synchronization

/// Why a message was not carried out.
package enum DropReason: String, Sendable, CaseIterable {
    /// Its body was longer than the driver takes.
    case oversized
    /// Not JSON, or nested too deeply.
    case notJSON = "not_json"
    /// JSON, but no envelope and no message.
    case notAMessage = "not_a_message"
    /// An envelope of another major version.
    case envelopeVersion = "envelope_version"
    /// No method, or arguments that are no object. A call is answered all the same.
    case malformedRequest = "malformed_request"
    /// Its `_unique_id` was seen.
    case duplicate
    /// A reply nobody waits for.
    case unexpectedReply = "unexpected_reply"
    /// A reply whose queue is gone.
    case replyQueueGone = "reply_queue_gone"
    /// A reply that no broker took before its deadline.
    case replyNotSent = "reply_not_sent"
}

package final class MessagingCounters: Sendable {
    package struct Snapshot: Sendable, Equatable {
        /// Messages taken from the broker and acknowledged.
        package var received = 0
        /// Requests carried out, successfully or not.
        package var dispatched = 0
        package var replied = 0
        package var callsSent = 0
        package var callsTimedOut = 0
        package var published = 0
        /// Publishes that were sent again because the first was not confirmed.
        package var republished = 0
        package var dropped: [DropReason: Int] = [:]
        /// Connections made after one was lost.
        package var reconnects = 0
        package var connectionsLost = 0
        /// Listening connections that should be there, and that are.
        package var listeners = 0
        package var connectedListeners = 0
        /// Connections on which the broker takes no messages (its memory or disk alarm).
        package var blockedConnections = 0
        package var isConnected: Bool { connectedListeners > 0 && connectedListeners == listeners }

        package init() {}
    }

    private let state = Mutex(Snapshot())

    package init() {}

    package var snapshot: Snapshot { state.withLock { $0 } }

    func count(_ counter: any WritableKeyPath<Snapshot, Int> & Sendable, _ amount: Int = 1) {
        state.withLock { $0[keyPath: counter] += amount }
    }

    func drop(_ reason: DropReason) { state.withLock { $0.dropped[reason, default: 0] += 1 } }
}
