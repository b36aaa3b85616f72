import Testing

@testable import AMQP

@Suite struct OneShotTests {
    struct Late: Error {}

    @Test func firstResultCounts() async throws {
        let shot = OneShot<Int>()
        #expect(shot.resolve(.success(1)))
        #expect(!shot.resolve(.success(2)))
        #expect(try await shot.value() == 1)
    }

    @Test func everyWaiterGetsTheResult() async throws {
        let shot = OneShot<Int>()
        async let one = shot.value()
        async let two = shot.value(until: .now + .seconds(10), or: Late())
        shot.resolve(.success(7))
        #expect(try await one + two == 14)
    }

    @Test func theDeadlineThrowsTheGivenError() async {
        await #expect(throws: Late.self) {
            try await OneShot<Int>().value(until: .now + .milliseconds(20), or: Late())
        }
    }

    @Test func cancellationEndsTheWait() async {
        let shot = OneShot<Int>()
        let task = Task { try await shot.value() }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
    }
}
