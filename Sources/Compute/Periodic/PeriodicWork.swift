// Runs periodic tasks one after the other, as nova-compute does: a long one delays the others, none overlaps itself. A
// task that fails is logged and runs again at its next time.
package import Logging
package import OsloMessaging
import ServiceLifecycle

/// A task and its rule.
package struct PeriodicTask: Sendable {
    package let rule: PeriodicRule
    package let body: @Sendable (RequestContext) async throws -> Void

    package init(_ rule: PeriodicRule, _ body: @escaping @Sendable (RequestContext) async throws -> Void) {
        self.rule = rule
        self.body = body
    }
}

package struct PeriodicWork<Time: Clock<Duration>>: Service {
    private let tasks: [PeriodicTask]
    private let clock: Time
    private let initialDelay: Duration
    private let logger: Logger
    private let jitter: @Sendable () -> Double

    /// - Parameter initialDelay: chosen from 0…`periodic_fuzzy_delay`.
    package init(
        _ tasks: [PeriodicTask], clock: Time, initialDelay: Duration, logger: Logger,
        jitter: @escaping @Sendable () -> Double = { .random(in: 0..<1) }
    ) {
        self.tasks = tasks
        self.clock = clock
        self.initialDelay = initialDelay
        self.logger = logger
        self.jitter = jitter
    }

    package func run() async throws {
        do {
            try await cancelWhenGracefulShutdown { try await runUntilCancelled() }
        } catch is CancellationError {
            return
        }
    }

    func runUntilCancelled() async throws {
        let start = clock.now
        // Nova counts the spacing of a task from the program's start, the delay included.
        var schedule = PeriodicSchedule(tasks.map(\.rule), startingAt: .zero)
        try await clock.sleep(until: start.advanced(by: initialDelay), tolerance: nil)
        while true {
            for name in schedule.due(at: start.duration(to: clock.now)) {
                try Task.checkCancellation()
                schedule.began(name, at: start.duration(to: clock.now), jitter: jitter())
                await runTask(named: name)
            }
            guard let next = schedule.nextTime(after: start.duration(to: clock.now)) else { return }
            try await clock.sleep(until: start.advanced(by: next), tolerance: nil)
        }
    }

    private func runTask(named name: String) async {
        guard let task = tasks.first(where: { $0.rule.name == name }) else { return }
        let began = clock.now
        do {
            try await task.body(.administrator())
            logger.debug(
                "periodic task done", metadata: ["task": "\(name)", "took": "\(began.duration(to: clock.now))"])
        } catch is CancellationError {
            return
        } catch {
            logger.error("periodic task failed", error: error, metadata: ["task": "\(name)"])
        }
    }
}
