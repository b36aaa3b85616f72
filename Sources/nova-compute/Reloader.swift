// SIGHUP: the options that may change while the service runs (log level), and the log file, which logrotate has moved
// away.
import Logging
import ServiceConfiguration
import ServiceLifecycle
import UnixSignals

struct Reloader: Service, CustomStringConvertible {
    var description: String { "SIGHUP" }
    let sink: LogSink
    let reload: @Sendable () -> LoadedConfiguration?
    let logger: Logger

    func run() async throws {
        for await _ in await UnixSignalsSequence(trapping: .sighup).cancelOnGracefulShutdown() {
            sink.reopen()
            guard let loaded = reload() else {
                logger.error("configuration not read again: it has errors; nothing changed")
                continue
            }
            sink.isDebug = loaded.configuration.logging.isDebug
            logger.info("log file opened again, log level read again")
        }
    }
}
