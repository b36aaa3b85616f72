// What the monitor says: its greeting, replies and events. One line each.
package import JSON

/// Why a command was not done: QMP's error object.
package struct MonitorRefusal: Error, Sendable, Equatable, CustomStringConvertible {
    /// QMP's error classes, open: a newer monitor may know more.
    package struct Class: RawRepresentable, Sendable, Equatable {
        package let rawValue: String
        package init(rawValue: String) { self.rawValue = rawValue }
        package static let genericError = Class(rawValue: "GenericError")
        package static let commandNotFound = Class(rawValue: "CommandNotFound")
        /// The device that the command is for is not part of this machine.
        package static let deviceNotFound = Class(rawValue: "DeviceNotFound")
        /// The machine's state does not allow it.
        package static let stateNotAllowed = Class(rawValue: "StateNotAllowed")
    }
    package let errorClass: Class
    package let reason: String

    package init(_ errorClass: Class, _ reason: String) {
        self.errorClass = errorClass
        self.reason = reason
    }

    package var description: String { "\(reason) (\(errorClass.rawValue))" }
}

/// The answer to one request.
package struct MonitorReply: Sendable, Equatable {
    package var id: JSONValue?
    package var outcome: Result<JSONValue, MonitorRefusal>

    package init(id: JSONValue?, outcome: Result<JSONValue, MonitorRefusal>) {
        self.id = id
        self.outcome = outcome
    }
}

/// Everything that comes from a monitor.
package enum MonitorMessage: Sendable, Equatable {
    /// The first line of a connection, with the monitor's version.
    case greeting(version: String)
    case reply(MonitorReply)
    case event(MonitorEvent)

    package var json: JSONValue {
        switch self {
        case .greeting(let version): return ["QMP": ["version": ["apus": .string(version)], "capabilities": []]]
        case .event(let event): return event.json
        case .reply(let reply):
            var members: [String: JSONValue] = [:]
            switch reply.outcome {
            case .success(let value): members["return"] = value
            case .failure(let refusal):
                members["error"] = ["class": .string(refusal.errorClass.rawValue), "desc": .string(refusal.reason)]
            }
            if let id = reply.id { members["id"] = id }
            return .object(members)
        }
    }

    /// The line for the socket, its end included.
    package var line: [UInt8] { json.serializedBytes() + [0x0A] }

    /// Reads a line that a monitor wrote.
    package init(parsing line: [UInt8]) throws(MessageError) {
        let value: JSONValue
        do throws(JSONError) {
            value = try JSONValue.parse(line, limits: JSONLimits(depth: 16, byteCount: LineFramer.replyLimit))
        } catch {
            throw MessageError(reason: "\(error.reason) at byte \(error.offset)")
        }
        try self.init(json: value)
    }

    package init(json value: JSONValue) throws(MessageError) {
        if let error = value["error"] {
            guard let name = error["class"]?.stringValue, let text = error["desc"]?.stringValue else {
                throw MessageError(reason: "an error without class and desc")
            }
            let refusal = MonitorRefusal(MonitorRefusal.Class(rawValue: name), text)
            self = .reply(MonitorReply(id: value["id"], outcome: .failure(refusal)))
        } else if let result = value["return"] {
            self = .reply(MonitorReply(id: value["id"], outcome: .success(result)))
        } else if value["event"] != nil {
            do throws(JSONMemberError) { self = .event(try MonitorEvent(json: value)) } catch {
                throw MessageError(reason: "\(error)")
            }
        } else if let greeting = value["QMP"] {
            self = .greeting(version: greeting["version"]?["apus"]?.stringValue ?? "")
        } else {
            throw MessageError(reason: "neither greeting, reply nor event")
        }
    }
}

/// A line that is no message of a monitor.
package struct MessageError: Error, Sendable, Equatable, CustomStringConvertible {
    package let reason: String
    package init(reason: String) { self.reason = reason }
    package var description: String { "read what the monitor said: \(reason) (peer)" }
}
