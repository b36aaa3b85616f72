// apusctl: what an operator may look at on a compute host. It changes nothing: every verb reads files, sockets or the
// program itself.
//
//   0   answered       1   could not be answered, or the answer is bad news (health)       64   wrong command line
import ArgumentParser
import Foundation

@main
struct ApusCtl: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apusctl", abstract: "Looks at an Apus compute host. Changes nothing.",
        version: "0.1.0",
        subcommands: [Guests.self, RPCMethods.self, ShowConfiguration.self, Health.self])
}

/// How answers are written.
enum OutputFormat: String, ExpressibleByArgument, CaseIterable { case table, json }

/// A verb that has no answer, with the reason for the operator.
struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

enum Output {
    static func fail(_ reason: String) -> ExitCode {
        try? FileHandle.standardError.write(contentsOf: Data("apusctl: \(reason)\n".utf8))
        return ExitCode(1)
    }

    static func write(_ text: String) {
        // A reader that closed the pipe has seen enough.
        try? FileHandle.standardOutput.write(contentsOf: Data(text.utf8))
    }
}
