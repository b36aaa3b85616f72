// When a heartbeat is due; the test owns the clock.
import Testing

@testable import AMQP

@Suite struct HeartbeatTests {
    private let start = ContinuousClock.now

    @Test func silenceOfAWholeTimeoutIsNoDeathAndHalfOneMoreIs() {
        var pulse = Heartbeat(timeoutSeconds: 60, rate: 2, now: start)
        // What RabbitMQ does on a sound connection: a frame at 1 s, a look at 30 s that finds it, a heartbeat at 60 s.
        pulse.received(at: start + .seconds(1))
        pulse.sent(at: start + .seconds(89))
        #expect(pulse.due(at: start + .seconds(62)) == .nothing)
        #expect(pulse.due(at: start + .seconds(90)) == .nothing)
        #expect(pulse.due(at: start + .seconds(91)) == .dead)
    }

    @Test func aByteStartsTheSilenceAnew() {
        var pulse = Heartbeat(timeoutSeconds: 60, rate: 2, now: start)
        pulse.received(at: start + .seconds(44))
        pulse.sent(at: start + .seconds(44))
        #expect(pulse.due(at: start + .seconds(60)) == .nothing)
    }

    @Test func sendsTwiceInATimeout() {
        let pulse = Heartbeat(timeoutSeconds: 60, rate: 2, now: start)
        #expect(pulse.due(at: start + .seconds(29)) == .nothing)
        #expect(pulse.due(at: start + .seconds(30)) == .send)
        #expect(pulse.nextCheck(after: start) == .seconds(30))
    }

    @Test func zeroTurnsHeartbeatsOff() {
        let pulse = Heartbeat(timeoutSeconds: 0, rate: 2, now: start)
        #expect(pulse.due(at: start + .seconds(86_400)) == .nothing)
    }
}
