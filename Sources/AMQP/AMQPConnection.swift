// The line between the rabbit driver and a broker. `RabbitConnector` reaches a real one, `InMemoryBroker` is the twin.
//
//     let connection = try await RabbitConnector().connect(to: address, settings: settings) { event in … }
//     _ = try await connection.declare(QueueDeclaration("compute.host-1"))
//     try await connection.consume(queue: "compute.host-1", tag: "1")
//     …
//     connection.acknowledge(delivery.deliveryTag)
//     await connection.close()

/// What a connection reports unasked. Handlers run on the connection's thread: they hand over and return.
package enum AMQPEvent: Sendable, Equatable {
    case delivery(Delivery)
    /// The broker ended a consumer: its queue was deleted or moved.
    case consumerCancelled(tag: String)
    case blocked(reason: String)
    case unblocked
    /// The last event. `code` is `.closed` where we asked for it.
    case closed(AMQPError)
}

/// One connection with one channel. Every operation ends within the settings' answer time-out, or sooner with the task.
/// A channel error ends the connection: the declarations on it are not trusted any more.
package protocol AMQPConnection: Sendable {
    func declare(_ exchange: ExchangeDeclaration) async throws
    func declare(_ queue: QueueDeclaration) async throws -> QueueState
    func bind(queue: String, exchange: String, routingKey: String) async throws
    func deleteQueue(_ name: String) async throws
    /// Unacknowledged messages each consumer may have at a time.
    func setPrefetch(_ count: UInt16) async throws
    func consume(queue: String, tag: String, arguments: [String: FieldValue]) async throws
    func cancelConsumer(tag: String) async throws
    /// Turns publisher confirms on; once, before the first `publish`.
    func selectConfirms() async throws
    /// Returns once the broker has confirmed the message; throws `.unroutable` where it came back. A message that was
    /// not confirmed in time ends the connection: whether the broker has it is then unknown.
    func publish(_ message: AMQPMessage, to target: PublishTarget) async throws
    /// Never waits; lost with the connection, in which case the broker delivers again.
    func acknowledge(_ deliveryTag: UInt64)
    /// Sends what is queued, says goodbye, and returns when the connection is gone.
    func close() async
    /// Ends the connection at once.
    func abort(_ reason: AMQPError)

    var isOpen: Bool { get }
    /// The broker takes no messages on this connection for now.
    var isBlocked: Bool { get }
}

/// Makes connections.
package protocol AMQPConnector: Sendable {
    /// Connects and logs in; obeys cancellation and the settings' time-out also where the C library does not.
    func connect(
        to broker: BrokerAddress, settings: ConnectionSettings, onEvent: @escaping @Sendable (AMQPEvent) -> Void
    ) async throws -> any AMQPConnection
}
