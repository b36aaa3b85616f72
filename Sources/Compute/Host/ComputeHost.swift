// The host's life as one service: the start, and then side by side what may begin only after it (requests, heartbeats,
// periodic work, news of machines). A graceful shutdown during the start gives the start up; after it, each part ends
// by itself.
package import Logging
package import ServiceLifecycle

package struct ComputeHost: Service, CustomStringConvertible {
    /// For the log of starts and ends.
    package var description: String { "this host" }

    private let startup: HostStartup
    private let health: HostHealth
    private let parts: @Sendable () -> [any Service]
    private let hasStarted: @Sendable () -> Void
    private let logger: Logger

    /// - Parameters:
    ///   - parts: made when the start is over.
    ///   - hasStarted: called then; tells the service manager.
    package init(
        startup: HostStartup, health: HostHealth, logger: Logger, parts: @escaping @Sendable () -> [any Service],
        hasStarted: @escaping @Sendable () -> Void
    ) {
        self.startup = startup
        self.health = health
        self.logger = logger
        self.parts = parts
        self.hasStarted = hasStarted
    }

    package func run() async throws {
        do {
            try await cancelWhenGracefulShutdown { try await startup.run() }
        } catch is CancellationError {
            return
        }
        health.serving()
        hasStarted()
        logger.info("this host takes requests")
        try await withThrowingTaskGroup(of: Void.self) { group in
            for part in parts() { group.addTask { try await part.run() } }
            try await withGracefulShutdownHandler {
                try await group.waitForAll()
            } onGracefulShutdown: {
                health.stopping()
            }
        }
    }
}
