// Notifications (oslo_messaging/notify/messaging.py, driver messagingv2): a queue named <topic>.<priority> on the control
// exchange, which the sender declares so that nothing is lost while nobody listens.
//
//     try await RabbitNotifier(transport).notify(
//         topic: "versioned_notifications", publisherID: "nova-compute:host-1", eventType: "instance.create.end",
//         priority: "INFO", payload: payload, context: context)
import AMQP
package import JSON

package struct RabbitNotifier: Notifier {
    private let transport: RabbitTransport
    private let timeout: Duration

    /// `timeout`: how long one notification is tried.
    package init(_ transport: RabbitTransport, timeout: Duration = .seconds(60)) {
        self.transport = transport
        self.timeout = timeout
    }

    package func notify(
        topic: String, publisherID: String, eventType: String, priority: String, payload: JSONValue,
        context: RequestContext
    ) async throws {
        var message = context.wireEntries
        message["message_id"] = .string(MessageID.dashed())
        message["publisher_id"] = .string(publisherID)
        message["event_type"] = .string(eventType)
        message["priority"] = .string(priority.uppercased())
        message["payload"] = payload
        message["timestamp"] = .string(NotificationTime.now())
        message["_unique_id"] = .string(MessageID.hex())
        let topology = Topology(transport.options)
        let exchange = topology.controlExchange
        let queue = topology.topicQueue("\(topic).\(priority.lowercased())")
        try await transport.publish(
            AMQPMessage(body: Envelope.encode(message)),
            to: PublishTarget(exchange: exchange.name, routingKey: queue.name), declaring: "queue \(queue.name)",
            until: .now + timeout,
            declare: { connection in
                try await connection.declare(exchange)
                _ = try await connection.declare(queue)
                try await connection.bind(queue: queue.name, exchange: exchange.name, routingKey: queue.name)
            })
    }
}
