// The AMQP side of the process by nova.conf, and its loops as services: the transport last to stop, because the others
// send their last words through it.
import AMQP
import Compute
import Logging
import OsloMessaging
import ServiceConfiguration
import ServiceLifecycle
import ServiceMetrics

struct MessagingParts: Sendable {
    let transport: RabbitTransport
    let client: RabbitRPCClient
    let notifier: any Notifier
    /// Nil where notifications go the way of the RPC.
    let notificationTransport: RabbitTransport?

    init(_ configuration: Configuration, logger: Logger) throws {
        let options = configuration.messaging
        let rabbit = RabbitOptions(options)
        do {
            transport = try RabbitTransport(
                url: options.transportURL, options: rabbit, programName: "nova-compute", logger: logger)
        } catch {
            throw ConfigurationError(problems: ["[DEFAULT] transport_url: \(error)"])
        }
        client = RabbitRPCClient(transport)
        if let url = configuration.notifications.transportURL, configuration.notifications.isEnabled {
            do {
                let other = try RabbitTransport(url: url, options: rabbit, programName: "nova-compute", logger: logger)
                notificationTransport = other
                notifier = RabbitNotifier(other)
            } catch {
                throw ConfigurationError(problems: ["[oslo_messaging_notifications] transport_url: \(error)"])
            }
        } else {
            notificationTransport = nil
            notifier = RabbitNotifier(transport)
        }
    }

    /// In the order of their start; they are stopped in the reverse one.
    var services: [any Service] {
        let transports = [transport] + (notificationTransport.map { [$0] } ?? [])
        return transports.map { transport in
            StoppableLoop("broker connections", run: { try await transport.run() }, stop: { transport.shutdown() })
        } + [
            StoppableLoop(
                "replies to calls", run: { [client] in try await client.run() }, stop: { [client] in client.shutdown() }
            )
        ]
    }

    func server(host: String, endpoints: [any RPCEndpoint], _ configuration: Configuration) -> any Service {
        let options = RPCServerOptions(
            parallelRequests: configuration.messaging.executorPoolSize,
            stopDeadline: configuration.compute.gracefulShutdownTimeout)
        let server = RPCServer(transport, topic: "compute", server: host, endpoints: endpoints, options: options)
        return StoppableLoop("requests", run: { try await server.run() }, stop: { server.shutdown() })
    }
}

/// A loop with a method that ends it.
struct StoppableLoop: Service, CustomStringConvertible {
    let description: String
    let run: @Sendable () async throws -> Void
    let stop: @Sendable () -> Void

    init(_ name: String, run: @escaping @Sendable () async throws -> Void, stop: @escaping @Sendable () -> Void) {
        description = name
        self.run = run
        self.stop = stop
    }

    func run() async throws {
        try await withGracefulShutdownHandler(operation: run, onGracefulShutdown: stop)
    }
}

extension RabbitOptions {
    init(_ options: MessagingOptions) {
        self.init()
        controlExchange = options.controlExchange
        usesTLS = options.usesTLS
        tls = TLSSettings(
            caFile: options.caFile, certificateFile: options.certificateFile, keyFile: options.keyFile,
            verifiesHostName: options.verifiesHostName)
        loginMethod = options.loginMethod
        heartbeatTimeout = options.heartbeatTimeout
        heartbeatRate = options.heartbeatRate
        retryInterval = options.retryInterval
        retryBackoff = options.retryBackoff
        retryIntervalMaximum = options.retryIntervalMaximum
        reconnectDelay = options.reconnectDelay
        missingConsumerRetryTimeout = options.missingConsumerRetryTimeout
        isFailoverShuffled = options.isFailoverShuffled
        areQueuesDurable = options.areQueuesDurable
        areQueuesAutoDeleted = options.areQueuesAutoDeleted
        areQueuesMirrored = options.areQueuesMirrored
        isQuorumQueue = options.isQuorumQueue
        quorumDeliveryLimit = options.quorumDeliveryLimit
        quorumMaximumMemoryLength = options.quorumMaximumMemoryLength
        quorumMaximumMemoryBytes = options.quorumMaximumMemoryBytes
        transientQueueTTL = options.transientQueueTTL
        prefetchCount = options.prefetchCount
        connectionPoolSize = options.connectionPoolSize
    }
}

/// The messaging counters as metrics; read at each scrape.
struct MessagingMetrics: MetricSource {
    let counters: MessagingCounters

    func metricFamilies() -> [MetricFamily] {
        let snapshot = counters.snapshot
        func counter(_ name: String, _ help: String, _ value: Int) -> MetricFamily {
            MetricFamily(name, .counter, help: help, samples: [MetricSample([], Double(value))])
        }
        return [
            MetricFamily(
                "apus_amqp_connected", .gauge, help: "1 while every listening connection to the broker is open.",
                samples: [MetricSample([], snapshot.isConnected ? 1 : 0)]),
            MetricFamily(
                "apus_amqp_blocked_connections", .gauge, help: "Connections on which the broker takes no messages.",
                samples: [MetricSample([], Double(snapshot.blockedConnections))]),
            counter("apus_amqp_reconnects_total", "Connections to the broker opened anew.", snapshot.reconnects),
            counter(
                "apus_amqp_connections_lost_total", "Connections to the broker that broke.", snapshot.connectionsLost),
            counter("apus_rpc_messages_received_total", "Messages taken from the broker.", snapshot.received),
            counter("apus_rpc_requests_total", "Requests carried out, successfully or not.", snapshot.dispatched),
            counter("apus_rpc_replies_total", "Replies sent.", snapshot.replied),
            counter("apus_rpc_calls_total", "Calls sent to other services.", snapshot.callsSent),
            counter("apus_rpc_calls_timed_out_total", "Calls nobody answered in time.", snapshot.callsTimedOut),
            counter("apus_amqp_published_total", "Messages published.", snapshot.published),
            counter(
                "apus_amqp_republished_total", "Messages published again, unconfirmed before.", snapshot.republished),
            MetricFamily(
                "apus_rpc_dropped_total", .counter, help: "Messages not carried out, by reason.",
                samples: snapshot.dropped.sorted { $0.key.rawValue < $1.key.rawValue }.map {
                    MetricSample([("reason", $0.key.rawValue)], Double($0.value))
                }),
        ]
    }
}
