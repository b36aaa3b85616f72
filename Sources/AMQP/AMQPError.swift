// What can go wrong with a broker, by what the caller can do about it.

/// A broker operation that failed.
package struct AMQPError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Code: Sendable, Equatable {
        /// Nothing answered, the name does not resolve, or TLS failed.
        case connectFailed
        /// The broker does not take these credentials or this virtual host.
        case loginRefused
        /// The connection ended under the operation: closed by the broker, broken, or silent.
        case connectionLost
        /// The broker closed the channel: 404, 405, 406, 541 and others are in `replyCode`.
        case channelClosed
        /// No answer by the deadline.
        case timedOut
        /// A mandatory message that no queue takes.
        case unroutable
        /// The broker refused to take the message over (basic.nack).
        case refused
        /// The broker's memory or disk alarm: it takes no messages for now.
        case blocked
        /// We closed the connection.
        case closed
        /// The broker broke the protocol.
        case protocolViolation
    }

    package var code: Code
    /// What was done, and to what.
    package var operation: String
    package var reason: String
    /// The AMQP reply code where the broker gave one.
    package var replyCode: UInt16?

    package init(_ code: Code, _ operation: String, reason: String, replyCode: UInt16? = nil) {
        self.code = code
        self.operation = operation
        self.reason = reason
        self.replyCode = replyCode
    }

    package var description: String {
        "\(operation): \(reason)\(replyCode.map { " (reply code \($0))" } ?? "") (\(code == .closed ? "caller" : "peer"))"
    }
}
