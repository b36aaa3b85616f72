// The program: nova-compute's command line, exit statuses and life. Everything it is made of is put together in
// Application.
//
//   0   ended as asked (SIGTERM, SIGINT)
//   1   could not start or could not go on; the reason is one line on standard error and in the log
//   64  wrong command line
//   78  wrong configuration, or not the host the control plane knows: a restart does not help
import ArgumentParser
import Compute
import Foundation
import Logging
import ServiceConfiguration

@main
struct NovaCompute: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "nova-compute", abstract: "OpenStack compute service with its own machine monitor.",
        version: ProgramVersion.text)

    @Option(
        name: .long,
        help: "Configuration file; may be repeated, the later wins. Default: the search path of oslo.config.")
    var configFile: [String] = []
    @Option(name: .long, help: "Directory of *.conf files, read after the files; may be repeated.")
    var configDir: [String] = []
    @Flag(name: [.customShort("d"), .long], help: "Log at level DEBUG.")
    var debug = false
    @Option(name: .long, help: "File to log to.")
    var logFile: String?
    @Option(name: .long, help: "Directory of the log file.")
    var logDir: String?
    @Flag(name: .long, help: "Check the configuration, say what is in it that is unknown or deprecated, and end.")
    var checkConfig = false

    func run() async throws {
        for path in configFile where !FileManager.default.isReadableFile(atPath: path) {
            throw Self.fail("read configuration: \(path) cannot be read (caller)", .configuration)
        }
        let files = ConfigurationFiles(files: configFile, directories: configDir)
        let loaded: LoadedConfiguration
        do {
            loaded = try Configuration.load(files: files, overrides: overrides, host: .local())
        } catch {
            throw Self.fail("\(error)", .configuration)
        }
        if checkConfig {
            print(Self.report(loaded), terminator: "")
            return
        }
        let logging = LogSetup(loaded.configuration.logging)
        let logger = logging.start()
        loaded.log(to: logger)
        do {
            let application = try Application(
                loaded, sink: logging.sink, logger: logger,
                reload: { [self] in try? Configuration.load(files: files, overrides: overrides, host: .local()) })
            try await application.run()
        } catch {
            logger.critical("nova-compute ends", error: error)
            let status: ExitStatus = error is IdentityError || error is ConfigurationError ? .configuration : .failure
            throw Self.fail("\(error)", status)
        }
    }

    private var overrides: [(group: String, name: String, value: String)] {
        var overrides: [(group: String, name: String, value: String)] = []
        if debug { overrides.append(("DEFAULT", "debug", "true")) }
        if let logFile { overrides.append(("DEFAULT", "log_file", logFile)) }
        if let logDir { overrides.append(("DEFAULT", "log_dir", logDir)) }
        return overrides
    }

    private enum ExitStatus: Int32 { case failure = 1, configuration = 78 }

    private static func fail(_ reason: String, _ status: ExitStatus) -> ExitCode {
        try? FileHandle.standardError.write(contentsOf: Data("nova-compute: \(reason)\n".utf8))
        return ExitCode(status.rawValue)
    }

    private static func report(_ loaded: LoadedConfiguration) -> String {
        var lines = ["read: " + (loaded.files.isEmpty ? "no file" : loaded.files.joined(separator: ", "))]
        lines += loaded.notices.map { "deprecated: \($0)" }
        lines += loaded.unknownOptions.map { "not used: \($0)" }
        return lines.joined(separator: "\n") + "\n"
    }
}

extension LoadedConfiguration {
    func log(to logger: Logger) {
        logger.info(
            "starting nova-compute",
            metadata: ["version": "\(ProgramVersion.text)", "files": "\(files.joined(separator: " "))"])
        for notice in notices { logger.warning("\(notice)") }
        for option in unknownOptions { logger.debug("option not used: \(option)") }
    }
}
