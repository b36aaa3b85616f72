// News of a machine, told to every client: {"event": name, "data": {...}, "timestamp": {...}}.
package import JSON

package struct MonitorEvent: Sendable, Equatable {
    package enum News: Sendable, Equatable {
        case resume
        case stop
        /// `guest`: the guest asked for it. Reasons by QMP, for example `guest-reset`, `host-qmp-system-reset`.
        case reset(guest: Bool, reason: String)
        /// Reasons by QMP, for example `guest-shutdown`, `host-qmp-quit`, `host-signal`.
        case shutdown(guest: Bool, reason: String)
        /// The power button was pressed.
        case powerdown
        /// The guest says that it crashed; what comes of it follows as another event.
        case guestPanicked(reason: String)
        /// The guest's kernel crashed and another one takes over.
        case guestCrashLoaded
        /// The watchdog ran out; `action` is Nova's word for what comes of it, and follows as another event.
        case watchdog(action: String)
        /// The processor or the monitor cannot go on.
        case internalError(reason: String)
        /// An event of a newer monitor.
        case other(name: String, data: JSONValue)
    }
    package var news: News
    /// Wall clock of the monitor's host.
    package var seconds: Int64
    package var microseconds: Int

    package init(_ news: News, seconds: Int64, microseconds: Int) {
        self.news = news
        self.seconds = seconds
        self.microseconds = microseconds
    }

    package var json: JSONValue {
        let name: String
        let data: JSONValue
        switch news {
        case .resume: (name, data) = ("RESUME", [:])
        case .stop: (name, data) = ("STOP", [:])
        case .reset(let guest, let reason):
            (name, data) = ("RESET", ["guest": .bool(guest), "reason": .string(reason)])
        case .shutdown(let guest, let reason):
            (name, data) = ("SHUTDOWN", ["guest": .bool(guest), "reason": .string(reason)])
        case .powerdown: (name, data) = ("POWERDOWN", [:])
        case .guestPanicked(let reason): (name, data) = ("GUEST_PANICKED", ["reason": .string(reason)])
        case .guestCrashLoaded: (name, data) = ("GUEST_CRASHLOADED", [:])
        case .watchdog(let action): (name, data) = ("WATCHDOG", ["action": .string(action)])
        case .internalError(let reason): (name, data) = ("INTERNAL_ERROR", ["reason": .string(reason)])
        case .other(let other, let value): (name, data) = (other, value)
        }
        return [
            "event": .string(name), "data": data,
            "timestamp": ["seconds": .integer(seconds), "microseconds": .integer(Int64(microseconds))],
        ]
    }

    init(json value: JSONValue) throws(JSONMemberError) {
        var members = try JSONMembers(value)
        let name = try members.string("event", upTo: 256)
        let data = members.valueIfPresent("data") ?? [:]
        (seconds, microseconds) = try members.object("timestamp") {
            (time: inout JSONMembers) throws(JSONMemberError) -> (Int64, Int) in
            (Int64(try time.integer("seconds", in: 0...Int.max)), try time.integer("microseconds", in: 0...999_999))
        }
        var details = try JSONMembers(data, path: "data")
        switch name {
        case "RESUME": news = .resume
        case "STOP": news = .stop
        case "RESET": news = .reset(guest: try details.bool("guest"), reason: try details.string("reason"))
        case "SHUTDOWN": news = .shutdown(guest: try details.bool("guest"), reason: try details.string("reason"))
        case "POWERDOWN": news = .powerdown
        case "GUEST_PANICKED": news = .guestPanicked(reason: try details.string("reason"))
        case "GUEST_CRASHLOADED": news = .guestCrashLoaded
        case "WATCHDOG": news = .watchdog(action: try details.string("action"))
        case "INTERNAL_ERROR": news = .internalError(reason: try details.string("reason"))
        default: news = .other(name: name, data: data)
        }
    }
}
