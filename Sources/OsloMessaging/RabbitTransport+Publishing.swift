// Publishing with confirmation until a deadline: what was not confirmed is sent again, byte for byte, so that the receiver
// knows the second copy by its `_unique_id`.
import AMQP

extension RabbitTransport {
    /// Longest wait between two attempts of one message; the pool's connections are made on demand.
    private static let blockedPause: Duration = .milliseconds(250)

    /// Publishes `message`; `declare` runs once for each connection before its first message of this `name`. Throws
    /// `.unroutable` at once, other failures only at the deadline.
    func publish(
        _ message: AMQPMessage, to target: PublishTarget, declaring name: String?,
        until deadline: ContinuousClock.Instant, declare: @Sendable (any AMQPConnection) async throws -> Void
    ) async throws {
        var backoff = Backoff(options)
        var isRepeated = false
        while true {
            do {
                let publisher = try await publishers.lease(until: deadline) {
                    let connection = try await self.connect { _ in }
                    do {
                        try await connection.selectConfirms()
                        return connection
                    } catch {
                        await connection.close()
                        throw error
                    }
                }
                do {
                    if let name { try await publisher.once(name, declare) }
                    if isRepeated { counters.count(\.republished) }
                    isRepeated = true
                    try await publisher.connection.publish(message, to: target)
                    await publishers.release(publisher)
                    counters.count(\.published)
                    return
                } catch {
                    await publishers.release(publisher)
                    throw error
                }
            } catch let error as AMQPError where error.code != .unroutable {
                let pause: Duration
                switch error.code {
                case .blocked, .refused: pause = Self.blockedPause
                // The connection that was there is gone: the next attempt makes one.
                case .connectionLost, .timedOut, .closed: pause = .milliseconds(50)
                case .channelClosed: pause = error.replyCode == 541 ? .seconds(2) : .milliseconds(50)
                case .connectFailed, .loginRefused, .protocolViolation, .unroutable: pause = backoff.next()
                }
                // Something that is wrong with the message or the topology does not get better by waiting.
                if error.code == .channelClosed, let code = error.replyCode, code == 403 || code == 406 { throw error }
                guard .now + pause < deadline else { throw error }
                try await Task.sleep(for: pause)
            }
        }
    }
}
