// The answers to status, save and console.
package import JSON

/// What a machine is doing.
package struct MachineStatus: Sendable, Equatable {
    package var state: RunState
    /// Why it is not running any more, where there is more to say: QMP's reason of a shutdown, words for a breakdown.
    package var reason: String?
    package var name: String
    package var uuid: String
    package var pid: Int
    /// Since the monitor began.
    package var uptimeNanoseconds: Int
    /// From the restore that was asked for last (the beginning of the process, where the description asked) to the first entry into
    /// the guest; nil before that, or where nothing was restored.
    package var restoreNanoseconds: Int?

    package init(
        state: RunState, reason: String?, name: String, uuid: String, pid: Int, uptimeNanoseconds: Int, restoreNanoseconds: Int? = nil
    ) {
        self.state = state
        self.reason = reason
        self.name = name
        self.uuid = uuid
        self.pid = pid
        self.uptimeNanoseconds = uptimeNanoseconds
        self.restoreNanoseconds = restoreNanoseconds
    }

    package var json: JSONValue {
        [
            "status": .string(state.rawValue), "running": .bool(state.executes),
            "reason": reason.map(JSONValue.string) ?? .null,
            "name": .string(name), "uuid": .string(uuid), "pid": .integer(Int64(pid)),
            "uptimeNanoseconds": .integer(Int64(uptimeNanoseconds)),
            "restoreNanoseconds": restoreNanoseconds.map { .integer(Int64($0)) } ?? .null,
        ]
    }

    /// From a reply; members of a newer monitor are left alone.
    package init(json value: JSONValue) throws(JSONMemberError) {
        var members = try JSONMembers(value)
        let text = try members.string("status", upTo: 64)
        guard let state = RunState(rawValue: text) else { throw members.error("status", "an unknown state") }
        self.init(
            state: state, reason: try members.stringIfPresent("reason", upTo: 1 << 16),
            name: try members.string("name"),
            uuid: try members.string("uuid"), pid: try members.integer("pid", in: 1...Int.max),
            uptimeNanoseconds: try members.integer("uptimeNanoseconds", in: 0...Int.max),
            restoreNanoseconds: try members.integerIfPresent("restoreNanoseconds", in: 0...Int.max))
    }
}

/// What a save came to.
package struct SaveReport: Sendable, Equatable {
    /// The file's length; what it takes on the disk is less where RAM has pages of zeros.
    package var bytes: Int
    /// Of RAM, what was not zero and was written.
    package var ramBytes: Int
    /// From the command to the end of the last fsync; the guest stood still all the while.
    package var nanoseconds: Int

    package init(bytes: Int, ramBytes: Int, nanoseconds: Int) {
        self.bytes = bytes
        self.ramBytes = ramBytes
        self.nanoseconds = nanoseconds
    }

    package var json: JSONValue {
        ["bytes": .integer(Int64(bytes)), "ramBytes": .integer(Int64(ramBytes)), "nanoseconds": .integer(Int64(nanoseconds))]
    }

    /// From a reply; members of a newer monitor are left alone.
    package init(json value: JSONValue) throws(JSONMemberError) {
        var members = try JSONMembers(value)
        self.init(
            bytes: try members.integer("bytes", in: 0...Int.max), ramBytes: try members.integer("ramBytes", in: 0...Int.max),
            nanoseconds: try members.integer("nanoseconds", in: 0...Int.max))
    }
}

/// The end of the console's log.
package struct ConsoleTail: Sendable, Equatable {
    package var bytes: [UInt8]

    package init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// As text; what is not UTF-8 is replaced.
    package var text: String { String(decoding: bytes, as: UTF8.self) }

    package var json: JSONValue { ["text": .string(text), "base64": .string(Base64.encode(bytes))] }

    package init(json value: JSONValue) throws(JSONMemberError) {
        var members = try JSONMembers(value)
        guard let bytes = Base64.decode(try members.string("base64", upTo: LineFramer.replyLimit)) else {
            throw members.error("base64", "not base64")
        }
        self.init(bytes: bytes)
    }
}
