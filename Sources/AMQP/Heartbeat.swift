// When to send a heartbeat and when to give a silent broker up (AMQP 0-9-1 section 4.2.7). A peer sends at least twice in a
// time-out, so three quarters of one without a byte are one heartbeat missed and half a period of grace: with the usual 60 s a
// half-open connection is noticed within 45 s.

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

    var silenceLimit: Duration { (timeout ?? .zero) * 3 / 4 }
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
