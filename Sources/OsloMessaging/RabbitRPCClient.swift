// Calls and casts over RabbitMQ. One reply queue a process, declared before the first call; replies find their call by
// `_msg_id`. `run()` must be running for calls to be answered.
//
//     let client = RabbitRPCClient(transport)
//     let value = try await client.call(
//         RPCTarget(topic: "conductor", version: "3.0"), "object_action", arguments, context: context, timeout: .seconds(60),
//         monitor: nil)
import AMQP
package import JSON
import Logging
import Synchronization

package final class RabbitRPCClient: RPCClient {
    private let transport: RabbitTransport
    private let topology: Topology
    package let replyQueue = "reply_\(MessageID.hex())"
    private let calls: PendingCalls
    private let consumer: MessageConsumer
    private let isWanted = OneShot<Bool>()
    /// How long a message waits for a broker that is away.
    private let brokerPatience: Duration

    /// - Parameter brokerPatience: as oslo.messaging has it, a call's time-out counts from the moment when the broker has the request. What
    ///   oslo.messaging waits for that has no end; here it has this one.
    package init(_ transport: RabbitTransport, brokerPatience: Duration = .seconds(300)) {
        self.transport = transport
        self.brokerPatience = brokerPatience
        let topology = Topology(transport.options)
        self.topology = topology
        let calls = PendingCalls(transport.counters)
        self.calls = calls
        let replyQueue = replyQueue
        consumer = MessageConsumer(
            transport, .init(purpose: "replies", limit: 8, tags: ["1"]),
            declare: { connection in
                // No binding: the default exchange knows every queue by its name.
                _ = try await connection.declare(topology.transientQueue(replyQueue))
                try await connection.consume(queue: replyQueue, tag: "1", arguments: [:])
            },
            atStop: { _ in },
            carryOut: { delivery in calls.receive(delivery) })
    }

    /// Listens for replies from the first call on, until `shutdown()` or cancellation. Call it once.
    package func run() async throws {
        guard (try? await isWanted.value()) == true else { return }
        await consumer.run()
    }

    package func shutdown() {
        isWanted.resolve(.success(false))
        consumer.shutdown()
    }

    package func call(
        _ target: RPCTarget, _ method: String, _ arguments: [String: JSONValue], context: RequestContext,
        timeout: Duration, monitor: Duration?
    ) async throws -> JSONValue {
        let sending = ContinuousClock.now + max(timeout, brokerPatience)
        let late = MessagingTimeout(method: method, seconds: timeout / .seconds(1))
        do {
            isWanted.resolve(.success(true))
            try await consumer.ready(until: sending, or: late)
            let id = MessageID.hex()
            let call = calls.begin(id)
            defer { calls.end(id) }
            let request = WireRequest(
                method: method, arguments: arguments, namespace: target.namespace, version: target.version,
                context: context, uniqueID: MessageID.hex(), reply: ReplyAddress(queue: replyQueue, messageID: id),
                monitorSeconds: monitor.map { $0 / .seconds(1) })
            transport.counters.count(\.callsSent)
            try await publish(request, target, expiration: timeout, until: sending)
            return try await call.outcome(until: .now + timeout, monitor: monitor, method: method, late: late)
        } catch let error as MessagingTimeout {
            transport.counters.count(\.callsTimedOut)
            throw error
        } catch let error as AMQPError where ContinuousClock.now + .seconds(1) >= sending && error.code != .closed {
            // The time was spent on a broker that was not there.
            transport.logger.warning("A call was not sent", metadata: ["method": "\(method)", "error": "\(error)"])
            transport.counters.count(\.callsTimedOut)
            throw late
        }
    }

    package func cast(
        _ target: RPCTarget, _ method: String, _ arguments: [String: JSONValue], context: RequestContext
    ) async throws {
        let request = WireRequest(
            method: method, arguments: arguments, namespace: target.namespace, version: target.version,
            context: context, uniqueID: MessageID.hex(), reply: nil, monitorSeconds: nil)
        try await publish(request, target, expiration: nil, until: .now + brokerPatience)
    }

    private func publish(
        _ request: WireRequest, _ target: RPCTarget, expiration: Duration?, until deadline: ContinuousClock.Instant
    ) async throws {
        let exchange = target.isFanout ? topology.fanoutExchange(target.topic) : topology.controlExchange
        let key = target.isFanout ? "" : target.server.map { "\(target.topic).\($0)" } ?? target.topic
        let milliseconds = expiration.map { String(max(1, Int($0 / .milliseconds(1)))) }
        try await transport.publish(
            AMQPMessage(body: Envelope.encode(request.message), expiration: milliseconds),
            to: PublishTarget(exchange: exchange.name, routingKey: key), declaring: "exchange \(exchange.name)",
            until: deadline, declare: { try await $0.declare(exchange) })
    }
}
