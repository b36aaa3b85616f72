// Keeps one consuming connection: connects, declares, consumes, acknowledges each message as it comes, and hands it to at most
// `limit` tasks at a time; the rest waits here unacknowledged, bounded by the prefetch, and otherwise at the broker. After a loss
// everything is declared again. One loop owns all of it; connections and tasks only put inputs into its stream.
//
//     connecting ──▶ consuming ──▶ lost ──▶ connecting …        stop: consumers cancelled, running tasks waited for
import AMQP
import Logging
import Synchronization

final class MessageConsumer: Sendable {
    struct Configuration: Sendable {
        /// For logs.
        var purpose: String
        /// Tasks at a time.
        var limit: Int
        /// How long running tasks may take after `shutdown()`.
        var stopDeadline: Duration = .zero
        /// Consumer tags, for cancelling.
        var tags: [String]
    }

    /// Unacknowledged messages for each consumer where the options name none. Messages are acknowledged as soon as they are
    /// read, so this bounds only what waits for a free task; without it the broker would send a whole backlog at once.
    private static let defaultPrefetch: UInt16 = 16

    private enum Input: Sendable {
        case connected(generation: Int, any AMQPConnection)
        case failed(generation: Int, any Error)
        case event(generation: Int, AMQPEvent)
        case reconnect
        case finished
        case stop
        case stopDeadline
    }

    private let transport: RabbitTransport
    private let configuration: Configuration
    private let declare: @Sendable (any AMQPConnection) async throws -> Void
    private let atStop: @Sendable (any AMQPConnection) async -> Void
    private let carryOut: @Sendable (Delivery) async -> Void
    private let inputs: AsyncStream<Input>
    private let input: AsyncStream<Input>.Continuation
    private let connectedOnce = Mutex(OneShot<Void>())
    /// The latest connection, also while its `.connected` is still on the way: the end of the loop must not forget it.
    private let latest = Mutex<(any AMQPConnection)?>(nil)

    /// `atStop` runs on the connection before it closes for good.
    init(
        _ transport: RabbitTransport, _ configuration: Configuration,
        declare: @escaping @Sendable (any AMQPConnection) async throws -> Void,
        atStop: @escaping @Sendable (any AMQPConnection) async -> Void,
        carryOut: @escaping @Sendable (Delivery) async -> Void
    ) {
        self.transport = transport
        self.configuration = configuration
        self.declare = declare
        self.atStop = atStop
        self.carryOut = carryOut
        (inputs, input) = AsyncStream.makeStream()
    }

    func shutdown() { input.yield(.stop) }

    /// Waits until the consumer is declared and consuming.
    func ready(until deadline: ContinuousClock.Instant, or error: any Error) async throws {
        try await connectedOnce.withLock { $0 }.value(until: deadline, or: error)
    }

    /// Ends after `shutdown()` or cancellation. Call it once.
    func run() async {
        transport.counters.count(\.listeners)
        defer { transport.counters.count(\.listeners, -1) }
        await withDiscardingTaskGroup { group in
            var state = State(backoff: Backoff(transport.options))
            connect(&state, in: &group)
            loop: for await input in inputs {
                switch input {
                case .connected(let generation, let connection):
                    guard generation == state.generation, !state.isStopping, connection.isOpen else {
                        group.addTask { await connection.close() }
                        if generation == state.generation, !state.isStopping { lose(&state, nil, in: &group) }
                        continue loop
                    }
                    consume(connection, &state)
                    startWaiting(&state, in: &group)
                case .failed(let generation, let error):
                    if generation == state.generation, !state.isStopping { lose(&state, error, in: &group) }
                case .event(let generation, let event):
                    guard generation == state.generation else { continue loop }
                    receive(event, &state, in: &group)
                case .reconnect:
                    if !state.isStopping { connect(&state, in: &group) }
                case .finished:
                    state.running -= 1
                    startWaiting(&state, in: &group)
                    if state.isStopping, state.running == 0 { break loop }
                case .stop:
                    guard !state.isStopping else { continue loop }
                    await beginStop(&state, in: &group)
                    if state.running == 0 { break loop }
                case .stopDeadline: break loop
                }
            }
            input.finish()
            group.cancelAll()
            disconnected(&state)
            if let connection = state.connection, connection.isOpen { await atStop(connection) }
        }
        // Now that no attempt is under way any more.
        await latest.withLock { $0 }?.close()
    }

    private struct State {
        var backoff: Backoff
        var generation = 0
        var connection: (any AMQPConnection)?
        var waiting: [Delivery] = []
        var running = 0
        var isConnected = false
        var wasConnected = false
        var isStopping = false
    }

    private func connect(_ state: inout State, in group: inout DiscardingTaskGroup) {
        state.generation += 1
        state.waiting = []
        let generation = state.generation
        group.addTask { [self] in
            do {
                let connection = try await transport.connect { self.input.yield(.event(generation: generation, $0)) }
                latest.withLock { $0 = connection }
                do {
                    let prefetch = transport.options.prefetchCount
                    try await connection.setPrefetch(prefetch > 0 ? UInt16(clamping: prefetch) : Self.defaultPrefetch)
                    try await declare(connection)
                } catch {
                    await connection.close()
                    throw error
                }
                input.yield(.connected(generation: generation, connection))
            } catch {
                input.yield(.failed(generation: generation, error))
            }
        }
    }

    private func consume(_ connection: any AMQPConnection, _ state: inout State) {
        state.connection = connection
        state.backoff.reset()
        state.isConnected = true
        transport.counters.count(\.connectedListeners)
        if state.wasConnected {
            transport.counters.count(\.reconnects)
            transport.logger.info("Consuming again", metadata: ["consumer": "\(configuration.purpose)"])
        }
        state.wasConnected = true
        connectedOnce.withLock { $0 }.resolve(.success(()))
    }

    private func disconnected(_ state: inout State) {
        guard state.isConnected else { return }
        state.isConnected = false
        transport.counters.count(\.connectedListeners, -1)
        connectedOnce.withLock { $0 = OneShot() }
    }

    /// The connection is gone, or was not made: try again after a while. What waited unacknowledged comes again.
    private func lose(_ state: inout State, _ error: (any Error)?, in group: inout DiscardingTaskGroup) {
        disconnected(&state)
        state.connection = nil
        state.waiting = []
        // Late inputs of this connection mean nothing any more.
        state.generation += 1
        var pause = state.backoff.next()
        if let error = error as? AMQPError, error.code == .channelClosed {
            // A queue or exchange vanished between two declarations (404), or the broker is in trouble (541).
            pause = error.replyCode == 404 ? .milliseconds(50) : error.replyCode == 541 ? .seconds(2) : pause
        }
        let wait = pause
        transport.logger.warning(
            "Not connected to the broker",
            metadata: [
                "consumer": "\(configuration.purpose)", "error": "\(error.map { "\($0)" } ?? "connection lost")",
                "retry_in": "\(wait)",
            ])
        group.addTask { [self] in
            guard (try? await Task.sleep(for: wait)) != nil else { return }
            input.yield(.reconnect)
        }
    }

    private func receive(_ event: AMQPEvent, _ state: inout State, in group: inout DiscardingTaskGroup) {
        switch event {
        case .delivery(let delivery):
            guard !state.isStopping else { return }  // unacknowledged: it goes back with the connection
            state.waiting.append(delivery)
            startWaiting(&state, in: &group)
        case .consumerCancelled(let tag):
            guard !state.isStopping else { return }
            // The queue was deleted or moved; a new connection declares it again.
            let gone = AMQPError(
                .channelClosed, "consume", reason: "the broker cancelled consumer \(tag)", replyCode: 404)
            state.connection?.abort(gone)
            lose(&state, gone, in: &group)
        case .closed(let error):
            if state.isStopping {
                disconnected(&state)
                state.connection = nil
            } else if state.connection != nil {
                lose(&state, error, in: &group)
            }
        // Before `.connected`: the attempt itself reports the failure.
        case .blocked, .unblocked: break
        }
    }

    private func startWaiting(_ state: inout State, in group: inout DiscardingTaskGroup) {
        guard let connection = state.connection, !state.isStopping else { return }
        while state.running < configuration.limit, !state.waiting.isEmpty {
            let delivery = state.waiting.removeFirst()
            // On receipt, before anything is done with it: a request is carried out at most once.
            connection.acknowledge(delivery.deliveryTag)
            transport.counters.count(\.received)
            state.running += 1
            group.addTask { [self] in
                await carryOut(delivery)
                input.yield(.finished)
            }
        }
    }

    private func beginStop(_ state: inout State, in group: inout DiscardingTaskGroup) async {
        state.isStopping = true
        state.waiting = []
        if let connection = state.connection {
            for tag in configuration.tags { try? await connection.cancelConsumer(tag: tag) }
        }
        let deadline = configuration.stopDeadline
        group.addTask { [self] in
            try? await Task.sleep(for: deadline)
            input.yield(.stopDeadline)
        }
    }
}
