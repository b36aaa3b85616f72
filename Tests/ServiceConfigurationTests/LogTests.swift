import Foundation
import Logging
import ServiceConfiguration
import Testing

@Suite struct LogTests {
    /// Writes with a logger of these options and reads the file.
    private func lines(_ options: LoggingOptions, _ write: (Logger) -> Void) throws -> [String] {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).log")
        defer { try? FileManager.default.removeItem(at: file) }
        var options = options
        options.file = file.path
        let sink = LogSink(options)
        var logger = Logger(label: "nova.service") { OsloLogHandler(name: $0, options: options, sink: sink) }
        logger[metadataKey: "host"] = "a"
        write(logger)
        return try String(contentsOf: file, encoding: .utf8).split(separator: "\n").map(String.init)
    }

    @Test func `a line has oslo's form`() throws {
        let lines = try lines(LoggingOptions()) { $0.info("started") }
        let form = /\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \d+ INFO nova\.service \[-\] started host=a/
        #expect(try form.wholeMatch(in: lines.first ?? "") != nil, "\(lines)")
    }

    @Test func `a request's line has its ids and its instance`() throws {
        let options = LoggingOptions(contextFormat: "%(levelname)s [%(global_request_id)s %(request_id)s %(user_identity)s] %(instance)s%(message)s 100%%")
        let lines = try lines(options) {
            $0.warning("late", metadata: ["request_id": "req-1", "instance": "u-1", "user_identity": "u p"])
        }
        #expect(lines == ["WARNING [- req-1 u p] [instance: u-1] late host=a 100%"])
    }

    @Test func `a message cannot begin another line`() throws {
        let options = LoggingOptions(defaultFormat: "%(message)s")
        #expect(try lines(options) { $0.error("a\nCRITICAL b\r") } == ["a\\nCRITICAL b\\r host=a"])
    }

    @Test func `metadata cannot begin another line`() throws {
        let options = LoggingOptions(defaultFormat: "%(message)s")
        #expect(try lines(options) { $0.error("a", metadata: ["error": "b\nCRITICAL c"]) } == ["a error=b\\nCRITICAL c host=a"])
    }

    @Test func `debug lines are written only with debug`() throws {
        let quiet = try lines(LoggingOptions(defaultFormat: "%(message)s")) { $0.debug("x") }
        #expect(quiet.isEmpty)
        let options = LoggingOptions(isDebug: true, defaultFormat: "%(message)s", debugSuffix: "%(lineno)s")
        #expect(try lines(options) { $0.debug("x", line: 7) } == ["x host=a 7"])
    }

    @Test func `a moved file is opened anew`() throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).log")
        defer { try? FileManager.default.removeItem(at: file) }
        let options = LoggingOptions(file: file.path, defaultFormat: "%(message)s")
        let sink = LogSink(options)
        let logger = Logger(label: "a") { OsloLogHandler(name: $0, options: options, sink: sink) }
        logger.info("one")
        try FileManager.default.removeItem(at: file)
        sink.reopen()
        logger.info("two")
        #expect(try String(contentsOf: file, encoding: .utf8) == "two\n")
    }
}
