// Logging of the process, as nova.conf says.
import Logging
import ServiceConfiguration

struct LogSetup {
    let options: LoggingOptions
    let sink: LogSink

    init(_ options: LoggingOptions) {
        self.options = options
        sink = LogSink(options)
    }

    /// Once in a process. Loggers are named after the part they belong to, below "nova": that is what log pipelines
    /// select by.
    func start() -> Logger {
        LoggingSystem.bootstrap { [options, sink] name in OsloLogHandler(name: name, options: options, sink: sink) }
        return Logger(label: "nova.compute")
    }
}
