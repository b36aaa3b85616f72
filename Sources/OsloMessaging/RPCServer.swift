// Answers calls and casts to a topic: three queues (the topic's, this server's, the fanout's), requests in parallel up to a
// limit, heartbeats for monitored calls, replies until the caller's time is over (oslo_messaging/rpc/server.py).
//
//     let server = RPCServer(transport, topic: "compute", server: "host-1", endpoints: [manager, base])
//     try await server.run()      // ends after server.shutdown(): consuming stops, running requests are waited for
import AMQP
import JSON
import Logging

package struct RPCServerOptions: Sendable {
    /// Requests at a time; the rest waits at the broker.
    package var parallelRequests = 64
    /// How many `_unique_id` are remembered. oslo remembers 16; a copy sent again after a broker's restart can come later
    /// than that under load, and a forgotten id is a request carried out twice.
    package var duplicateCapacity = 1024
    /// How long running requests may take after `shutdown()`.
    package var stopDeadline: Duration = .seconds(60)

    package init(parallelRequests: Int = 64, duplicateCapacity: Int = 1024, stopDeadline: Duration = .seconds(60)) {
        self.parallelRequests = parallelRequests
        self.duplicateCapacity = duplicateCapacity
        self.stopDeadline = stopDeadline
    }
}

package final class RPCServer: Sendable {
    package let topic: String
    package let server: String
    package let fanoutQueue: String
    private let transport: RabbitTransport
    private let consumer: MessageConsumer

    package init(
        _ transport: RabbitTransport, topic: String, server: String, endpoints: [any RPCEndpoint],
        options: RPCServerOptions = RPCServerOptions()
    ) {
        self.transport = transport
        self.topic = topic
        self.server = server
        let fanoutQueue = "\(topic)_fanout_\(MessageID.hex())"
        self.fanoutQueue = fanoutQueue
        let topology = Topology(transport.options)
        let requests = RequestHandler(
            transport: transport, dispatcher: RPCDispatcher(endpoints: endpoints),
            duplicates: DuplicateFilter(capacity: options.duplicateCapacity))
        consumer = MessageConsumer(
            transport,
            .init(
                purpose: "server \(topic).\(server)", limit: max(1, options.parallelRequests),
                stopDeadline: options.stopDeadline, tags: ["1", "2", "3"]),
            declare: { connection in
                for (tag, name) in [("1", topic), ("2", "\(topic).\(server)")] {
                    try await connection.declare(topology.controlExchange)
                    _ = try await connection.declare(topology.topicQueue(name))
                    try await connection.bind(
                        queue: name, exchange: topology.controlExchange.name, routingKey: name)
                    try await connection.consume(queue: name, tag: tag, arguments: [:])
                }
                let exchange = topology.fanoutExchange(topic)
                try await connection.declare(exchange)
                _ = try await connection.declare(topology.transientQueue(fanoutQueue))
                try await connection.bind(queue: fanoutQueue, exchange: exchange.name, routingKey: topic)
                try await connection.consume(queue: fanoutQueue, tag: "3", arguments: [:])
            },
            atStop: { connection in try? await connection.deleteQueue(fanoutQueue) },
            carryOut: { delivery in await requests.carryOut(delivery) })
    }

    /// Serves until `shutdown()` or cancellation. Call it once.
    package func run() async throws { await consumer.run() }

    package func shutdown() { consumer.shutdown() }

    /// Waits until the queues are declared and consumed.
    package func ready(within timeout: Duration) async throws {
        try await consumer.ready(
            until: .now + timeout,
            or: AMQPError(.timedOut, "serve \(topic).\(server)", reason: "not consuming within \(timeout)"))
    }
}
