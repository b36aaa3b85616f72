// The listener for probes and scrapes: GET or HEAD of /healthz, /readyz and /metrics. It trusts nobody: requests have no
// body and a small head, each must be complete and its answer taken within a few seconds, and connections are counted.
package import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import ServiceLifecycle
import Synchronization

package struct OperatorEndpointOptions: Sendable {
    package enum Address: Sendable, Equatable {
        /// Port 0 lets the kernel choose.
        case network(host: String, port: Int)
        case unixSocket(path: String)
    }
    package var address: Address
    /// For the whole of a request and its answer, and for an idle connection.
    package var exchangeTimeout: Duration = .seconds(10)
    package var requestByteLimit = 16 << 10
    package var connectionLimit = 64

    package init(address: Address) { self.address = address }
}

package final class OperatorEndpoint: Service {
    private let options: OperatorEndpointOptions
    private let responder: OperatorResponder
    private let logger: Logger
    private let boundPort = Mutex<Int?>(nil)

    /// `liveness` fails only where a restart helps; `readiness` says whether work can be taken on.
    package init(
        options: OperatorEndpointOptions, metrics: any MetricSource,
        liveness: @escaping @Sendable () async -> HealthReport,
        readiness: @escaping @Sendable () async -> HealthReport, logger: Logger
    ) {
        self.options = options
        self.responder = OperatorResponder(metrics: metrics, liveness: liveness, readiness: readiness)
        self.logger = logger
    }

    /// The port, once listening on one.
    package var port: Int? { boundPort.withLock { $0 } }

    package func run() async throws {
        let (options, responder) = (options, responder)
        let connections = ConnectionCount(limit: options.connectionLimit)
        let bootstrap = ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                guard connections.enter() else { return channel.close() }
                channel.closeFuture.whenComplete { _ in connections.leave() }
                return channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    let guardian = ExchangeGuard(
                        timeout: TimeAmount(options.exchangeTimeout), byteLimit: options.requestByteLimit)
                    try pipeline.addHandler(guardian)
                    try pipeline.configureHTTPServerPipeline(withErrorHandling: true)
                    try pipeline.addHandler(OperatorHandler(responder: responder, guardian: guardian))
                }
            }
        let listener =
            switch options.address {
            case .network(let host, let port): try await bootstrap.bind(host: host, port: port).get()
            case .unixSocket(let path):
                try await bootstrap.bind(unixDomainSocketPath: path, cleanupExistingSocketFile: true).get()
            }
        boundPort.withLock { $0 = listener.localAddress?.port }
        logger.info(
            "serving health and metrics", metadata: ["address": "\(listener.localAddress.map { "\($0)" } ?? "-")"])
        try await withTaskCancellationHandler {
            try await withGracefulShutdownHandler {
                try await listener.closeFuture.get()
            } onGracefulShutdown: {
                listener.close(promise: nil)
            }
        } onCancel: {
            listener.close(promise: nil)
        }
    }
}

/// How many connections are open.
private final class ConnectionCount: Sendable {
    private let open = Mutex(0)
    private let limit: Int

    init(limit: Int) { self.limit = limit }

    func enter() -> Bool {
        open.withLock { open in
            guard open < limit else { return false }
            open += 1
            return true
        }
    }

    func leave() { open.withLock { $0 -= 1 } }
}
