// `apusctl health`: what the running service says of itself at /readyz.
import ArgumentParser
import Foundation
import ServiceConfiguration

struct Health: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "health", abstract: "Ask the running service whether it is ready, and for what it waits.")

    @OptionGroup var source: ConfigurationArguments
    @Option(name: .long, help: "Where it listens; default: [apus] listen of its configuration.") var listen: String?

    func run() async throws {
        let report: (status: Int, body: String)
        do {
            let text = try listen ?? source.load().configuration.apus.metricsListen
            guard !text.isEmpty else { throw Failure("[apus] listen is empty: the service answers no probes") }
            report = try await Self.get("/readyz?verbose", at: try Self.address(text))
        } catch {
            throw Output.fail("\(error)")
        }
        Output.write(report.body)
        if report.status != 200 { throw ExitCode(1) }
    }

    static func address(_ text: String) throws -> SocketExchange.Address {
        if text.hasPrefix("/") { return .unix(text) }
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]) else {
            throw Failure("\"\(text)\" is neither address:port nor a path")
        }
        let host = text[..<colon].filter { $0 != "[" && $0 != "]" }
        // A service that listens everywhere is asked here.
        return .network(host: ["0.0.0.0", "::"].contains(host) ? "127.0.0.1" : host, port: port)
    }

    static func get(_ target: String, at address: SocketExchange.Address) async throws -> (status: Int, body: String) {
        let request = "GET \(target) HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        let bytes = try await SocketExchange.ask(address, Array(request.utf8), within: .seconds(10))
        let text = String(decoding: bytes, as: UTF8.self)
        guard text.hasPrefix("HTTP/1.1 "), let status = Int(text.dropFirst(9).prefix(3)),
            let end = text.range(of: "\r\n\r\n")
        else { throw Failure("\(address) is not this service's listener") }
        return (status, String(text[end.upperBound...]))
    }
}
