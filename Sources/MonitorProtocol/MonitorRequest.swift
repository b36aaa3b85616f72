// What a client asks: {"execute": name, "arguments": {...}, "id": anything}. Names and arguments are in one table here.
package import JSON

/// A command to the monitor.
package enum MonitorCommand: Sendable, Equatable {
    /// QMP's first word; does nothing.
    case qmpCapabilities
    /// Answers MachineStatus.
    case status
    /// Answers MachineStatistics.
    case stats
    case pause
    case resume
    /// Presses the power button: the guest decides what it does.
    case powerButton
    case reset
    /// A non-maskable interrupt on every vCPU.
    case nmi
    /// Ends the machine and its process.
    case quit
    /// Answers ConsoleTail: the log's last bytes.
    case console(bytes: Int)
    case balloon(targetMiB: Int)
    /// Takes the descriptor that came beside this line and keeps it under a name, in place of an earlier one.
    case getfd(name: String)
    /// Closes a descriptor that getfd kept.
    case closefd(name: String)
    /// Pauses the machine and writes all of it to a descriptor that getfd kept: an empty regular file, open for reading and writing.
    /// Answers SaveReport when that is durable; until then the machine cannot be resumed. It stays paused.
    case save(fdname: String)
    /// Puts what `save` wrote in the place of a paused machine of the same description, which stays paused. RAM is mapped from the
    /// file as the guest touches it: the file must stay as it is until the machine has ended.
    case restore(fdname: String)

    /// What `console` gives at most.
    package static let consoleLimit = 1 << 20

    package var name: String {
        switch self {
        case .qmpCapabilities: "qmp_capabilities"
        case .status: "status"
        case .stats: "stats"
        case .pause: "pause"
        case .resume: "resume"
        case .powerButton: "power-button"
        case .reset: "reset"
        case .nmi: "nmi"
        case .quit: "quit"
        case .console: "console"
        case .balloon: "balloon"
        case .getfd: "getfd"
        case .closefd: "closefd"
        case .save: "save"
        case .restore: "restore"
        }
    }

    var arguments: [String: JSONValue] {
        switch self {
        case .console(let bytes): ["bytes": .integer(Int64(bytes))]
        case .balloon(let target): ["targetMiB": .integer(Int64(target))]
        case .getfd(let name), .closefd(let name), .save(let name), .restore(let name): ["fdname": .string(name)]
        default: [:]
        }
    }

    /// Nil for a name that is no command.
    init?(name: String, arguments: inout JSONMembers) throws(JSONMemberError) {
        switch name {
        case "qmp_capabilities":
            // QMP's clients may name capabilities to enable; there are none.
            _ = arguments.valueIfPresent("enable")
            self = .qmpCapabilities
        case "status": self = .status
        case "stats": self = .stats
        case "pause": self = .pause
        case "resume": self = .resume
        case "power-button": self = .powerButton
        case "reset": self = .reset
        case "nmi": self = .nmi
        case "quit": self = .quit
        case "console":
            self = .console(
                bytes: try arguments.integerIfPresent("bytes", in: 0...Self.consoleLimit) ?? Self.consoleLimit)
        case "balloon": self = .balloon(targetMiB: try arguments.integer("targetMiB", in: 1...1_048_576))
        case "getfd": self = .getfd(name: try Self.descriptorName(&arguments))
        case "closefd": self = .closefd(name: try Self.descriptorName(&arguments))
        case "save": self = .save(fdname: try Self.descriptorName(&arguments))
        case "restore": self = .restore(fdname: try Self.descriptorName(&arguments))
        default: return nil
        }
    }

    private static func descriptorName(_ arguments: inout JSONMembers) throws(JSONMemberError) -> String {
        let name = try arguments.string("fdname", upTo: 255)
        guard !name.isEmpty else { throw arguments.error("fdname", "empty") }
        return name
    }
}

/// A command with the id that its reply gives back.
package struct MonitorRequest: Sendable, Equatable {
    package var command: MonitorCommand
    package var id: JSONValue?

    package init(_ command: MonitorCommand, id: JSONValue? = nil) {
        self.command = command
        self.id = id
    }

    package var json: JSONValue {
        var members: [String: JSONValue] = ["execute": .string(command.name)]
        let arguments = command.arguments
        if !arguments.isEmpty { members["arguments"] = .object(arguments) }
        if let id { members["id"] = id }
        return .object(members)
    }

    /// The line for the socket, its end included.
    package var line: [UInt8] { json.serializedBytes() + [0x0A] }

    /// Reads a line. A line that is no request is answered with what is thrown, which carries the id where one could be read.
    package init(parsing line: [UInt8]) throws(RequestError) {
        let value: JSONValue
        do throws(JSONError) {
            value = try JSONValue.parse(line, limits: JSONLimits(depth: 16, byteCount: LineFramer.requestLimit))
        } catch {
            throw RequestError(
                id: nil,
                refusal: MonitorRefusal(.genericError, "the line is no JSON: \(error.reason) at byte \(error.offset)"))
        }
        let id = value["id"]
        do throws(JSONMemberError) {
            var members = try JSONMembers(value)
            _ = members.valueIfPresent("id")
            let name = try members.string("execute", upTo: 256)
            var arguments = try JSONMembers(members.valueIfPresent("arguments") ?? [:], path: "arguments")
            try members.refuseRest()
            guard let command = try MonitorCommand(name: name, arguments: &arguments) else {
                throw JSONMemberError(path: "", reason: Self.unknown)
            }
            try arguments.refuseRest()
            self.init(command, id: id)
        } catch {
            guard error.reason != Self.unknown else {
                throw RequestError(id: id, refusal: MonitorRefusal(.commandNotFound, "no such command"))
            }
            throw RequestError(id: id, refusal: MonitorRefusal(.genericError, "\(error)"))
        }
    }

    private static let unknown = "no such command"
}

/// A line that is no request, with what to answer.
package struct RequestError: Error, Sendable, Equatable {
    package let id: JSONValue?
    package let refusal: MonitorRefusal

    package init(id: JSONValue?, refusal: MonitorRefusal) {
        self.id = id
        self.refusal = refusal
    }

    package var reply: MonitorReply { MonitorReply(id: id, outcome: .failure(refusal)) }
}
