// `apusctl config`: the options nova-compute obeys, where each value comes from, and what in the files it does not use.
import ArgumentParser
import ServiceConfiguration

struct ShowConfiguration: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Show the options in effect, without secrets.")

    @OptionGroup var source: ConfigurationArguments
    @Option(name: .long, help: "table or json") var format = OutputFormat.table
    @Flag(name: .long, help: "Only what was written somewhere, not the defaults.") var written = false

    func run() throws {
        do {
            let loaded = try source.load()
            var table = Table("group", "option", "value", "from")
            for option in loaded.effective where !written || option.origin != .preset {
                table.rows.append([option.group, option.name, option.value, option.origin.description])
            }
            Output.write(table.text(format))
            guard format == .table else { return }
            for notice in loaded.notices { Output.write("deprecated: \(notice)\n") }
            for option in loaded.unknownOptions { Output.write("not used: \(option)\n") }
        } catch {
            throw Output.fail("\(error)")
        }
    }
}
