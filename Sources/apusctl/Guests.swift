// `apusctl guests`: the instances whose directories are on this host, and what the monitor of each says over its
// control socket.
import ArgumentParser
import Foundation
import JSON
import MonitorProtocol
import ServiceConfiguration

struct Guests: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "guests", abstract: "List the guests of this host with what their monitors say.")

    @OptionGroup var source: ConfigurationArguments
    @Option(name: .long, help: "table or json") var format = OutputFormat.table
    @Argument(help: "Beginnings of instance UUIDs; none: all guests.") var instances: [String] = []

    func run() async throws {
        do {
            let path = try source.load().configuration.instancesPath
            var table = Table("uuid", "name", "vcpus", "memory_mib", "state", "pid", "up_seconds", "remark")
            for guest in try Guest.all(in: path)
            where instances.isEmpty || instances.contains(where: guest.uuid.hasPrefix) {
                table.rows.append(await guest.row())
            }
            Output.write(table.text(format))
        } catch {
            throw Output.fail("\(error)")
        }
    }
}

/// One instance directory: its description, and the socket of the last start.
struct Guest {
    let uuid: String
    let machine: JSONValue
    let run: JSONValue

    static func all(in path: String) throws -> [Guest] {
        let names: [String]
        do {
            names = try FileManager.default.contentsOfDirectory(atPath: path)
        } catch {
            throw Failure("instances_path \(path) cannot be read: \(error.localizedDescription)")
        }
        return names.sorted().filter { UUID(uuidString: $0) != nil }.compactMap { name in
            guard let machine = read("\(path)/\(name)/machine.json") else { return nil }
            return Guest(uuid: name, machine: machine, run: read("\(path)/\(name)/run.json") ?? .null)
        }
    }

    func row() async -> [String] {
        let (state, pid, uptime, remark) = await status()
        return [
            uuid, machine["name"]?.stringValue ?? "-", machine["vcpus"]?.intValue.map(String.init) ?? "-",
            machine["memoryMiB"]?.intValue.map(String.init) ?? "-", state, pid, uptime, remark,
        ]
    }

    private func status() async -> (state: String, pid: String, uptime: String, remark: String) {
        if let end = run["end"]?.stringValue { return (end, "-", "-", "") }
        guard let socket = run["controlSocket"]?.stringValue else { return ("shutdown", "-", "-", "never started") }
        do {
            let status = try await Self.ask(socket)
            return (
                status.state.rawValue, String(status.pid), String(status.uptimeNanoseconds / 1_000_000_000),
                status.reason ?? ""
            )
        } catch {
            return ("unknown", "-", "-", "\(error)")
        }
    }

    /// The monitor greets, then answers; events may come between.
    private static func ask(_ socket: String) async throws -> MachineStatus {
        let request = MonitorRequest(.status, id: 1)
        let bytes = try await SocketExchange.ask(.unix(socket), request.line, within: .seconds(3)) { bytes in
            (try? reply(in: bytes)) != nil
        }
        guard let reply = try reply(in: bytes) else {
            throw Failure("the monitor closed the connection without an answer")
        }
        return try MachineStatus(json: try reply.outcome.get())
    }

    private static func reply(in bytes: [UInt8]) throws -> MonitorReply? {
        var framer = LineFramer(limit: LineFramer.replyLimit)
        framer.append(bytes)
        while let line = try framer.next() {
            if case .reply(let reply) = try MonitorMessage(parsing: line), reply.id == 1 { return reply }
        }
        return nil
    }

    private static func read(_ path: String) -> JSONValue? {
        (try? String(contentsOfFile: path, encoding: .utf8)).flatMap { try? JSONValue.parse($0) }
    }
}
