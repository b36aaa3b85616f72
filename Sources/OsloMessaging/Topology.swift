// The exchanges and queues of oslo.messaging. Arguments must be those that every other service declares: the broker refuses
// anything else with 406.
package import AMQP

package struct Topology: Sendable {
    let options: RabbitOptions

    package init(_ options: RabbitOptions) {
        self.options = options
    }

    private var isDurable: Bool { options.areQueuesDurable || options.isQuorumQueue }

    /// Calls, casts and notifications.
    package var controlExchange: ExchangeDeclaration {
        ExchangeDeclaration(
            options.controlExchange, kind: .topic, isDurable: isDurable, isAutoDeleted: options.areQueuesAutoDeleted)
    }

    package func fanoutExchange(_ topic: String) -> ExchangeDeclaration {
        ExchangeDeclaration("\(topic)_fanout", kind: .fanout, isAutoDeleted: true)
    }

    /// A queue that is bound to the control exchange under its own name: a topic, a server, a notification priority.
    package func topicQueue(_ name: String) -> QueueDeclaration {
        var arguments: [String: FieldValue] = [:]
        if options.areQueuesMirrored { arguments["x-ha-policy"] = .string("all") }
        if options.isQuorumQueue {
            arguments["x-queue-type"] = .string("quorum")
            let limits = [
                "x-delivery-limit": options.quorumDeliveryLimit,
                "x-max-in-memory-length": options.quorumMaximumMemoryLength,
                "x-max-in-memory-bytes": options.quorumMaximumMemoryBytes,
            ]
            for (key, limit) in limits where limit > 0 { arguments[key] = .integer(Int64(limit)) }
        }
        return QueueDeclaration(
            name, isDurable: isDurable, isAutoDeleted: options.areQueuesAutoDeleted, arguments: arguments)
    }

    /// A reply or fanout queue: it goes by itself when its owner stays away.
    package func transientQueue(_ name: String) -> QueueDeclaration {
        var arguments: [String: FieldValue] = [:]
        if options.areQueuesMirrored { arguments["x-ha-policy"] = .string("all") }
        if options.transientQueueTTL > 0 { arguments["x-expires"] = .integer(Int64(options.transientQueueTTL) * 1000) }
        return QueueDeclaration(name, arguments: arguments)
    }
}
