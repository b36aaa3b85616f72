// swift-log in oslo.log's text format. Metadata with these keys fills the format's fields: request_id, global_request_id,
// user_identity, instance. Other metadata follows the message as key=value.
import Foundation
package import Logging

/// Metadata keys that have a place in the format.
package enum LogKey {
    package static let requestID = "request_id"
    package static let globalRequestID = "global_request_id"
    package static let userIdentity = "user_identity"
    package static let instance = "instance"

    static let placed: Set<String> = [requestID, globalRequestID, userIdentity, instance]
}

package struct OsloLogHandler: LogHandler {
    package var metadata: Logger.Metadata = [:]
    package var metadataProvider: Logger.MetadataProvider?

    private let name: String
    private let sink: LogSink
    private let contextFormat: LogFormat
    private let defaultFormat: LogFormat
    private let debugSuffix: LogFormat
    private let instanceFormat: LogFormat
    private let processID = String(ProcessInfo.processInfo.processIdentifier)

    package init(name: String, options: LoggingOptions, sink: LogSink) {
        self.name = name
        self.sink = sink
        contextFormat = LogFormat(options.contextFormat)
        defaultFormat = LogFormat(options.defaultFormat)
        debugSuffix = LogFormat(options.debugSuffix)
        instanceFormat = LogFormat(options.instanceFormat)
    }

    /// The sink's, so that one change reaches all loggers; a level set on one logger is not kept.
    package var logLevel: Logger.Level {
        get { sink.isDebug ? .debug : .info }
        set {}
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) { sink.write(render(event, at: Date())) }

    func render(_ event: LogEvent, at date: Date) -> String {
        var all = metadataProvider?.get() ?? [:]
        all.merge(metadata) { _, new in new }
        if let explicit = event.metadata { all.merge(explicit) { _, new in new } }
        let message = event.message.description + (event.error.map { ": \($0)" } ?? "")
        let values = all.mapValues { Self.oneLine($0.description) }
        let milliseconds = Int((date.timeIntervalSince1970 * 1000).rounded(.down)) % 1000
        let extra = values.filter { !LogKey.placed.contains($0.key) }.sorted { $0.key < $1.key }
            .map { " \($0.key)=\($0.value)" }.joined()
        let instance = values[LogKey.instance].map { uuid in instanceFormat.render { $0 == "uuid" ? uuid : nil } }

        func value(_ key: String) -> String? {
            switch key {
            case "asctime": Self.timeText(date)
            case "msecs": String(milliseconds)
            case "process": processID
            case "levelname": Self.levelName(event.level)
            case "name": name
            case "message": Self.oneLine(message) + extra
            case "instance": instance ?? ""
            case "resource": ""
            case "funcName": event.function
            case "pathname", "filename": event.file
            case "lineno": String(event.line)
            default: values[key]
            }
        }
        let format = values[LogKey.requestID] == nil ? defaultFormat : contextFormat
        let text = format.render(value)
        guard event.level <= .debug else { return text }
        let suffix = debugSuffix.render(value)
        return suffix.isEmpty ? text : text + " " + suffix
    }

    /// A line of the log is one line: what comes from elsewhere cannot begin another.
    private static func oneLine(_ text: String) -> String {
        guard text.utf8.contains(where: { $0 == 0x0A || $0 == 0x0D }) else { return text }
        return text.replacing("\r", with: "\\r").replacing("\n", with: "\\n")
    }

    private static func levelName(_ level: Logger.Level) -> String {
        switch level {
        case .trace, .debug: "DEBUG"
        case .info, .notice: "INFO"
        case .warning: "WARNING"
        case .error: "ERROR"
        case .critical: "CRITICAL"
        }
    }

    /// "2026-01-02 03:04:05" in local time.
    private static func timeText(_ date: Date) -> String {
        let style = Date.ISO8601FormatStyle(
            dateSeparator: .dash, dateTimeSeparator: .space, timeSeparator: .colon, timeZone: .current)
        return String(date.formatted(style).prefix(19))
    }
}
