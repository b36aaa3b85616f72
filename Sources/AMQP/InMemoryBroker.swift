// A broker in memory: the twin of RabbitMQ for tests of what stands on `AMQPConnection`. Exchanges route by exact key or to all,
// queues deliver in turn and take back what was not acknowledged, mandatory messages come back, `disconnectAll` is a broker's
// restart with durable queues.
import Synchronization

package final class InMemoryBroker: AMQPConnector {
    fileprivate struct Consumer {
        var tag: String
        var connection: InMemoryConnection
    }

    fileprivate struct Queue {
        var messages: [(message: AMQPMessage, exchange: String, key: String, isRedelivered: Bool)] = []
        var consumers: [Consumer] = []
    }

    fileprivate struct State {
        var exchanges: [String: ExchangeDeclaration] = [:]
        var queues: [String: Queue] = [:]
        var bindings: [(exchange: String, queue: String, key: String)] = []
        var connections: [ObjectIdentifier: InMemoryConnection] = [:]
        var isAccepting = true
    }

    fileprivate let state = Mutex(State())

    package init() {}

    package func connect(
        to broker: BrokerAddress, settings: ConnectionSettings, onEvent: @escaping @Sendable (AMQPEvent) -> Void
    ) async throws -> any AMQPConnection {
        let connection = InMemoryConnection(self, onEvent)
        try state.withLock { state in
            guard state.isAccepting else {
                throw AMQPError(.connectFailed, "connect to \(broker)", reason: "connection refused")
            }
            state.connections[ObjectIdentifier(connection)] = connection
        }
        return connection
    }

    /// Whether new connections are taken.
    package func accept(_ isAccepting: Bool) { state.withLock { $0.isAccepting = isAccepting } }

    /// Drops every connection.
    package func disconnectAll() {
        for connection in state.withLock({ Array($0.connections.values) }) {
            connection.abort(AMQPError(.connectionLost, "keep connection", reason: "the broker went away"))
        }
    }

    /// Messages that wait in a queue; nil where there is none.
    package func depth(of queue: String) -> Int? { state.withLock { $0.queues[queue]?.messages.count } }
    package var connectionCount: Int { state.withLock { $0.connections.count } }

    fileprivate func route(_ message: AMQPMessage, to target: PublishTarget) throws -> Bool {
        let isRouted = try state.withLock { state in
            var queues: [String]
            if target.exchange.isEmpty {
                queues = [target.routingKey]
            } else if let exchange = state.exchanges[target.exchange] {
                queues = state.bindings.filter {
                    $0.exchange == exchange.name && (exchange.kind == .fanout || $0.key == target.routingKey)
                }.map(\.queue)
            } else {
                throw AMQPError(
                    .channelClosed, "publish to \(target.exchange)", reason: "no such exchange", replyCode: 404)
            }
            queues = queues.filter { state.queues[$0] != nil }
            for queue in queues {
                state.queues[queue]?.messages.append((message, target.exchange, target.routingKey, false))
            }
            return !queues.isEmpty
        }
        deliver()
        return isRouted
    }

    /// Hands waiting messages to consumers, outside the lock.
    fileprivate func deliver() {
        while true {
            let next: (InMemoryConnection, Delivery)? = state.withLock { state in
                for (name, queue) in state.queues where !queue.messages.isEmpty {
                    guard let index = queue.consumers.firstIndex(where: { $0.connection.hasRoom(for: $0.tag) }) else {
                        continue
                    }
                    let consumer = queue.consumers[index]
                    guard let message = state.queues[name]?.messages.removeFirst() else { continue }
                    // Round robin: who was served goes to the end.
                    state.queues[name]?.consumers.remove(at: index)
                    state.queues[name]?.consumers.append(consumer)
                    let delivery = consumer.connection.take(
                        message.message, queue: name, tag: consumer.tag, exchange: message.exchange, key: message.key,
                        isRedelivered: message.isRedelivered)
                    return (consumer.connection, delivery)
                }
                return nil
            }
            guard let (connection, delivery) = next else { return }
            connection.report(.delivery(delivery))
        }
    }

    fileprivate func remove(_ connection: InMemoryConnection, returning deliveries: [(queue: String, Delivery)]) {
        state.withLock { state in
            state.connections[ObjectIdentifier(connection)] = nil
            for name in state.queues.keys {
                state.queues[name]?.consumers.removeAll { $0.connection === connection }
            }
            for (queue, delivery) in deliveries.reversed() {
                state.queues[queue]?.messages.insert(
                    (delivery.message, delivery.exchange, delivery.routingKey, true), at: 0)
            }
        }
        deliver()
    }
}

package final class InMemoryConnection: AMQPConnection {
    private struct State {
        var unacknowledged: [UInt64: (queue: String, delivery: Delivery)] = [:]
        var lastTag: UInt64 = 0
        var prefetch = 0
        var isOpen = true
    }

    private let broker: InMemoryBroker
    private let onEvent: @Sendable (AMQPEvent) -> Void
    private let state = Mutex(State())

    fileprivate init(_ broker: InMemoryBroker, _ onEvent: @escaping @Sendable (AMQPEvent) -> Void) {
        self.broker = broker
        self.onEvent = onEvent
    }

    fileprivate func report(_ event: AMQPEvent) { onEvent(event) }

    fileprivate func hasRoom(for tag: String) -> Bool {
        state.withLock { state in
            state.isOpen
                && (state.prefetch == 0
                    || state.unacknowledged.values.count { $0.delivery.consumerTag == tag } < state.prefetch)
        }
    }

    fileprivate func take(
        _ message: AMQPMessage, queue: String, tag: String, exchange: String, key: String, isRedelivered: Bool
    ) -> Delivery {
        state.withLock { state in
            state.lastTag += 1
            let delivery = Delivery(
                consumerTag: tag, deliveryTag: state.lastTag, isRedelivered: isRedelivered, exchange: exchange,
                routingKey: key, message: message)
            state.unacknowledged[state.lastTag] = (queue, delivery)
            return delivery
        }
    }

    private func check(_ operation: String) throws {
        guard isOpen else { throw AMQPError(.connectionLost, operation, reason: "the connection is gone") }
    }

    /// A channel error ends the connection, as it does with the real one.
    private func fail(_ operation: String, _ reason: String, _ code: UInt16) -> AMQPError {
        let error = AMQPError(.channelClosed, operation, reason: reason, replyCode: code)
        abort(error)
        return error
    }

    package var isOpen: Bool { state.withLock { $0.isOpen } }
    package var isBlocked: Bool { false }

    package func declare(_ exchange: ExchangeDeclaration) async throws {
        try check("declare exchange \(exchange.name)")
        let isKnown = broker.state.withLock { state in
            if let known = state.exchanges[exchange.name] { return exchange.isPassive || known == exchange }
            if !exchange.isPassive { state.exchanges[exchange.name] = exchange }
            return !exchange.isPassive
        }
        guard isKnown else { throw fail("declare exchange \(exchange.name)", "missing or different", 406) }
    }

    @discardableResult
    package func declare(_ queue: QueueDeclaration) async throws -> QueueState {
        try check("declare queue \(queue.name)")
        let known: QueueState? = broker.state.withLock { state in
            if state.queues[queue.name] == nil, !queue.isPassive { state.queues[queue.name] = .init() }
            return state.queues[queue.name].map {
                QueueState(messageCount: $0.messages.count, consumerCount: $0.consumers.count)
            }
        }
        guard let known else { throw fail("declare queue \(queue.name)", "no such queue", 404) }
        return known
    }

    package func bind(queue: String, exchange: String, routingKey: String) async throws {
        try check("bind queue \(queue)")
        broker.state.withLock { state in
            if !state.bindings.contains(where: { $0 == (exchange, queue, routingKey) }) {
                state.bindings.append((exchange, queue, routingKey))
            }
        }
    }

    package func deleteQueue(_ name: String) async throws {
        try check("delete queue \(name)")
        let consumers = broker.state.withLock { state in
            state.bindings.removeAll { $0.queue == name }
            return state.queues.removeValue(forKey: name)?.consumers ?? []
        }
        for consumer in consumers { consumer.connection.report(.consumerCancelled(tag: consumer.tag)) }
    }

    package func setPrefetch(_ count: UInt16) async throws {
        try check("set prefetch")
        state.withLock { $0.prefetch = Int(count) }
    }

    package func consume(queue: String, tag: String, arguments: [String: FieldValue]) async throws {
        try check("consume from \(queue)")
        let isKnown = broker.state.withLock { state in
            state.queues[queue]?.consumers.append(.init(tag: tag, connection: self))
            return state.queues[queue] != nil
        }
        guard isKnown else { throw fail("consume from \(queue)", "no such queue", 404) }
        broker.deliver()
    }

    package func cancelConsumer(tag: String) async throws {
        try check("cancel consumer \(tag)")
        broker.state.withLock { state in
            for name in state.queues.keys {
                state.queues[name]?.consumers.removeAll { $0.connection === self && $0.tag == tag }
            }
        }
    }

    package func selectConfirms() async throws { try check("turn publisher confirms on") }

    package func publish(_ message: AMQPMessage, to target: PublishTarget) async throws {
        let operation = "publish to \(target.exchange)/\(target.routingKey)"
        try check(operation)
        let isRouted: Bool
        do {
            isRouted = try broker.route(message, to: target)
        } catch {
            throw fail(operation, "no such exchange", 404)
        }
        if !isRouted, target.isMandatory {
            throw AMQPError(.unroutable, operation, reason: "NO_ROUTE", replyCode: 312)
        }
    }

    package func acknowledge(_ deliveryTag: UInt64) {
        state.withLock { _ = $0.unacknowledged.removeValue(forKey: deliveryTag) }
        broker.deliver()
    }

    package func close() async { abort(AMQPError(.closed, "use connection", reason: "closed")) }

    package func abort(_ reason: AMQPError) {
        let (wasOpen, deliveries) = state.withLock { state in
            defer {
                state.isOpen = false
                state.unacknowledged = [:]
            }
            let ordered = state.unacknowledged.sorted { $0.key < $1.key }.map { ($0.value.queue, $0.value.delivery) }
            return (state.isOpen, ordered)
        }
        guard wasOpen else { return }
        broker.remove(self, returning: deliveries)
        onEvent(.closed(reason))
    }
}
