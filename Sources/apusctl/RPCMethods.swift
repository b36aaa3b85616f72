// `apusctl rpc`: which methods of the compute RPC API this program carries out, and what it answers to the others.
import ArgumentParser
import Compute

struct RPCMethods: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rpc", abstract: "List the methods of the compute RPC API: carried out or refused.")

    @Option(name: .long, help: "table or json") var format = OutputFormat.table
    @Flag(name: .long, help: "Only methods that are carried out.") var carriedOut = false

    func run() {
        var table = Table("method", "since", "delivery", "answer")
        for method in RPCMethodTable.all.sorted(by: { $0.name < $1.name }) where !carriedOut || method.isCarriedOut {
            let answer =
                switch method.refusal {
                case nil: "carried out"
                case .notImplemented: "refused: not available on this host (501)"
                case .exception(let name): "refused: \(name)"
                }
            table.rows.append([method.name, "6.\(method.minorVersion)", method.delivery.rawValue, answer])
        }
        Output.write(table.text(format))
    }
}
