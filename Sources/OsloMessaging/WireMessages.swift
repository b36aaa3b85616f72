// Requests and replies as values, and their keys on the wire (oslo_messaging/_drivers/common.py and amqpdriver.py).
package import JSON

/// Where a call wants its answer.
package struct ReplyAddress: Sendable, Equatable {
    package var queue: String
    package var messageID: String
}

package struct WireRequest: Sendable {
    package var method: String
    package var arguments: [String: JSONValue]
    package var namespace: String?
    package var version: String
    package var context: RequestContext
    package var uniqueID: String
    package var reply: ReplyAddress?
    /// The call-monitor time-out in seconds: heartbeats are wanted twice in it.
    package var monitorSeconds: Double?

    /// The message around it.
    package var message: [String: JSONValue] {
        var message = context.wireEntries
        message["method"] = .string(method)
        message["args"] = .object(arguments)
        message["version"] = .string(version)
        if let namespace { message["namespace"] = .string(namespace) }
        message["_unique_id"] = .string(uniqueID)
        if let reply {
            message["_msg_id"] = .string(reply.messageID)
            message["_reply_q"] = .string(reply.queue)
            message["_timeout"] = monitorSeconds.map { $0 == $0.rounded() ? .integer(Int64($0)) : .double($0) } ?? .null
        }
        return message
    }
}

extension WireRequest {
    /// Reads a request; what is missing has oslo's defaults. A message without a method gives one with an empty name.
    package init(_ message: [String: JSONValue]) {
        method = message["method"]?.stringValue ?? ""
        arguments = message["args"]?.objectValue ?? [:]
        namespace = message["namespace"]?.stringValue
        version = message["version"]?.stringValue ?? "1.0"
        context = RequestContext(wire: message)
        uniqueID = message["_unique_id"]?.stringValue ?? ""
        if let id = message["_msg_id"]?.stringValue, let queue = message["_reply_q"]?.stringValue, !queue.isEmpty,
            queue.utf8.count <= 255
        {
            reply = ReplyAddress(queue: queue, messageID: id)
        }
        monitorSeconds = message["_timeout"]?.doubleValue
    }

    /// False where the method is missing or `args` is no object.
    package static func isWellFormed(_ message: [String: JSONValue]) -> Bool {
        guard let method = message["method"]?.stringValue, !method.isEmpty else { return false }
        guard let arguments = message["args"] else { return true }
        return arguments.isNull || arguments.objectValue != nil
    }
}

/// A message to a reply queue: a heartbeat of a monitored call, or its end.
package struct WireReply: Sendable {
    package var messageID: String
    package var uniqueID: String
    package var isEnding: Bool
    package var result: JSONValue
    package var failure: RemoteFailure?

    package var message: [String: JSONValue] {
        [
            "result": failure == nil ? result : .null,
            "failure": failure.map { .string($0.wireText) } ?? .null,
            "ending": .bool(isEnding),
            "_msg_id": .string(messageID),
            "_unique_id": .string(uniqueID),
        ]
    }

    package static func heartbeat(_ messageID: String) -> WireReply {
        WireReply(messageID: messageID, uniqueID: MessageID.hex(), isEnding: false, result: .null, failure: nil)
    }

    package static func end(_ messageID: String, _ outcome: Result<JSONValue, RemoteFailure>) -> WireReply {
        var reply = WireReply(
            messageID: messageID, uniqueID: MessageID.hex(), isEnding: true, result: .null, failure: nil)
        switch outcome {
        case .success(let value): reply.result = value
        case .failure(let failure): reply.failure = failure
        }
        return reply
    }
}

extension WireReply {
    /// nil for a message that is no reply.
    package init?(_ message: [String: JSONValue]) {
        guard let id = message["_msg_id"]?.stringValue else { return nil }
        messageID = id
        uniqueID = message["_unique_id"]?.stringValue ?? ""
        isEnding = message["ending"]?.boolValue ?? false
        result = message["result"] ?? .null
        switch message["failure"] {
        case .string(let text)?: failure = RemoteFailure(wireText: text)
        case nil, .null?, .bool(false)?: failure = nil
        case let other?: failure = RemoteFailure(className: "RemoteError", module: "", message: other.serialize())
        }
    }
}
