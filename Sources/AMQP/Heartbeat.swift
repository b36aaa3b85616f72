// When to send a heartbeat and when to give a silent broker up (AMQP 0-9-1 section 4.2.7). RabbitMQ looks twice in a time-out
// whether it has sent anything since it last looked, and sends a heartbeat only where it has not: a frame just after one look is
// followed by up to a whole time-out of silence on a sound connection. Half a time-out more is a heartbeat that is missing.

struct Heartbeat {
    enum Due: Equatable { case nothing, send, dead }

    /// nil: heartbeats are off.
    private let timeout: Duration?
    private let rate: Int
    private var lastSent: ContinuousClock.Instant
    private var lastReceived: ContinuousClock.Instant

    init(timeoutSeconds: Int, rate: Int, now: ContinuousClock.Instant) {
        timeout = timeoutSeconds > 0 ? .seconds(timeoutSeconds) : nil
        self.rate = max(2, rate)
        lastSent = now
        lastReceived = now
    }

    var silenceLimit: Duration { (timeout ?? .zero) * 3 / 2 }
    private var sendInterval: Duration { (timeout ?? .zero) / rate }

    mutating func sent(at now: ContinuousClock.Instant) { lastSent = now }
    mutating func received(at now: ContinuousClock.Instant) { lastReceived = now }

    func due(at now: ContinuousClock.Instant) -> Due {
        guard timeout != nil else { return .nothing }
        if now - lastReceived >= silenceLimit { return .dead }
        return now - lastSent >= sendInterval ? .send : .nothing
    }

    /// How long to wait at most before `due` is asked again.
    func nextCheck(after now: ContinuousClock.Instant) -> Duration {
        guard timeout != nil else { return .seconds(60) }
        return max(.milliseconds(10), min(lastReceived + silenceLimit, lastSent + sendInterval) - now)
    }
}
