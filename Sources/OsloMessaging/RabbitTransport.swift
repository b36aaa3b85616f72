// The brokers of a process: which host to try, how long to wait between attempts, what connections look like, and the
// publishing connections that the client, the servers and the notifier share.
//
//     let transport = try RabbitTransport(url: url, options: options, programName: "nova-compute", logger: logger)
//     let client = RabbitRPCClient(transport)
//     let server = RPCServer(transport, topic: "compute", server: host, endpoints: [manager, base])
//     let notifier = RabbitNotifier(transport)
//
// Run `transport.run()`, `client.run()` and `server.run()` side by side; stop them with `shutdown()` in the reverse order,
// the transport last: the others send their last words through it. The notifier needs no loop of its own.
package import AMQP
import Glibc
package import Logging
import Synchronization

package final class RabbitTransport: Sendable {
    package let options: RabbitOptions
    package let counters = MessagingCounters()
    let logger: Logger
    private let connector: any AMQPConnector
    private let brokers: [BrokerAddress]
    private let loginMethod: LoginMethod
    private let programName: String
    /// Index of the broker to try next.
    private let current = Mutex(0)
    let publishers: PublisherPool
    private let stop = OneShot<Void>()

    package init(
        url: String, options: RabbitOptions, programName: String, logger: Logger,
        connector: (any AMQPConnector)? = nil
    ) throws {
        let parsed = try TransportURL(url)
        let options = try options.overridden(by: parsed.query)
        guard let method = LoginMethod(rawValue: options.loginMethod) else {
            throw TransportURLError(
                reason: "rabbit_login_method \(options.loginMethod); AMQPLAIN, PLAIN and EXTERNAL are served")
        }
        self.options = options
        self.logger = logger
        self.programName = programName
        self.connector = connector ?? RabbitConnector(logger: logger)
        loginMethod = method
        // Each process starts somewhere else, so that the hosts of a cluster share the connections.
        brokers = parsed.brokers.shuffled()
        publishers = PublisherPool(counters: counters, limit: options.connectionPoolSize)
    }

    /// Keeps the pool of publishing connections; ends after `shutdown()` or cancellation.
    package func run() async throws {
        while !stop.isResolved, !Task.isCancelled {
            let wake = AMQPError(.timedOut, "wait", reason: "time to look at the pool")
            _ = try? await stop.value(until: .now + .seconds(30), or: wake)
            if stop.isResolved || Task.isCancelled { break }
            await publishers.closeIdle(
                olderThan: .seconds(options.connectionPoolTTL), keeping: options.connectionPoolMinimum)
        }
        await publishers.closeAll()
    }

    package func shutdown() { stop.resolve(.success(())) }

    /// One attempt at the broker whose turn it is; a failure moves the turn on.
    func connect(onEvent: @escaping @Sendable (AMQPEvent) -> Void) async throws -> any AMQPConnection {
        let index = current.withLock { $0 }
        let broker = brokers[index % brokers.count]
        let settings = ConnectionSettings(
            loginMethod: loginMethod, tls: options.usesTLS ? options.tls : nil,
            connectionName: "\(programName):\(getpid()):\(MessageID.dashed())",
            heartbeatSeconds: options.heartbeatTimeout, heartbeatRate: options.heartbeatRate)
        let counters = counters
        let blocked = BlockedCount(counters)
        do {
            return try await connector.connect(to: broker, settings: settings) { event in
                switch event {
                case .blocked: blocked.set(true)
                case .unblocked: blocked.set(false)
                case .closed(let error):
                    blocked.set(false)
                    if error.code != .closed { counters.count(\.connectionsLost) }
                case .delivery, .consumerCancelled: break
                }
                onEvent(event)
            }
        } catch {
            if !(error is CancellationError) { moveOn(from: index) }
            throw error
        }
    }

    private func moveOn(from index: Int) {
        current.withLock { current in
            guard current == index, brokers.count > 1 else { return }
            let step = options.isFailoverShuffled ? Int.random(in: 1..<brokers.count) : 1
            current = (index + step) % brokers.count
        }
    }
}

/// Whether one connection is among the blocked ones of the counters.
private final class BlockedCount: Sendable {
    private let counters: MessagingCounters
    private let isBlocked = Mutex(false)

    init(_ counters: MessagingCounters) { self.counters = counters }

    func set(_ value: Bool) {
        isBlocked.withLock { isBlocked in
            guard isBlocked != value else { return }
            isBlocked = value
            counters.count(\.blockedConnections, value ? 1 : -1)
        }
    }
}

extension RabbitOptions {
    /// The options with those of the URL's query put over them.
    func overridden(by query: [String: String]) throws(TransportURLError) -> RabbitOptions {
        var options = self
        for (key, value) in query {
            func integer() throws(TransportURLError) -> Int {
                guard let number = Int(value), number >= 0 else {
                    throw TransportURLError(reason: "\(key) is no number")
                }
                return number
            }
            func flag() -> Bool { ["1", "true", "yes", "on"].contains(value.lowercased()) }
            switch key {
            case "ssl": options.usesTLS = flag()
            case "ssl_ca_file": options.tls.caFile = value
            case "ssl_cert_file": options.tls.certificateFile = value
            case "ssl_key_file": options.tls.keyFile = value
            case "ssl_enforce_hostname_verification": options.tls.verifiesHostName = flag()
            case "rabbit_login_method": options.loginMethod = value
            case "heartbeat_timeout_threshold": options.heartbeatTimeout = try integer()
            case "heartbeat_rate": options.heartbeatRate = try integer()
            case "rabbit_retry_interval": options.retryInterval = try integer()
            case "rabbit_retry_backoff": options.retryBackoff = try integer()
            case "rabbit_interval_max": options.retryIntervalMaximum = try integer()
            case "amqp_durable_queues": options.areQueuesDurable = flag()
            case "amqp_auto_delete": options.areQueuesAutoDeleted = flag()
            case "rabbit_ha_queues": options.areQueuesMirrored = flag()
            case "rabbit_quorum_queue": options.isQuorumQueue = flag()
            case "rabbit_transient_queues_ttl": options.transientQueueTTL = try integer()
            case "rabbit_qos_prefetch_count": options.prefetchCount = try integer()
            default: break  // options that only kombu has
            }
        }
        return options
    }
}
