// Which configuration a verb is about: the arguments of nova-compute that name it.
import ArgumentParser
import Foundation
import ServiceConfiguration

struct ConfigurationArguments: ParsableArguments {
    @Option(name: .long, help: "Configuration file; may be repeated. Default: nova-compute's search path.")
    var configFile: [String] = []
    @Option(name: .long, help: "Directory of *.conf files, read after the files; may be repeated.")
    var configDir: [String] = []

    func load() throws -> LoadedConfiguration {
        for path in configFile where !FileManager.default.isReadableFile(atPath: path) {
            throw Failure("read configuration: \(path) cannot be read")
        }
        let name = ((try? String(contentsOfFile: "/proc/sys/kernel/hostname", encoding: .utf8)) ?? "localhost")
            .trimmingCharacters(in: .whitespacesAndNewlines)
        return try Configuration.load(
            files: ConfigurationFiles(files: configFile, directories: configDir),
            host: HostDefaults(hostName: name, address: "127.0.0.1"))
    }
}
