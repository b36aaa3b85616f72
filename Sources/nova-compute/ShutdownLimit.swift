// The end of patience. Operations that are given up still tidy up behind them, each step with the time-out of its call;
// where nobody answers, that is many minutes, in which a service manager would kill this process without a word. What
// is unfinished then is mended at the next start (contract §5.3), so the process says that it gives up and ends.
import Foundation
import Logging
import ServiceLifecycle

/// Ends the process when a shutdown takes longer than `limit`. Listed last: a group stops its services from the last to
/// the first.
struct ShutdownLimit: Service, CustomStringConvertible {
    let limit: Duration
    let logger: Logger
    var description: String { "shutdown limit" }

    func run() async throws {
        try? await gracefulShutdown()
        let (limit, logger) = (limit, logger)
        // Not a child of anything: it outlives this service, and nothing waits for it.
        Task.detached {
            try? await Task.sleep(for: limit)
            logger.critical(
                "operations did not end within \(limit.components.seconds) s of the shutdown, giving them up")
            exit(1)
        }
    }
}
