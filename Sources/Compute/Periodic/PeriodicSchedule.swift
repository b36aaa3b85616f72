// When periodic work is due (oslo_service.periodic_task, contract §5.6), as a function of time: no waiting, no clock. A
// task that was late keeps its rhythm: its next time is counted from the boundary it missed, with up to a twentieth of
// its spacing added so that many hosts that were started together do not stay together.

/// One task's rule.
package struct PeriodicRule: Sendable, Equatable {
    package static let defaultSpacing: Duration = .seconds(60)

    package let name: String
    package let spacing: Duration
    /// Due with the first pass; else after one spacing.
    package let runsImmediately: Bool

    package init(_ name: String, every spacing: Duration, runsImmediately: Bool = false) {
        self.name = name
        self.spacing = spacing
        self.runsImmediately = runsImmediately
    }

    /// From an option in seconds: 0 stands for 60 s; nil where it is negative, which switches the task off.
    package init?(_ name: String, option seconds: Int, runsImmediately: Bool = false) {
        guard seconds >= 0 else { return nil }
        self.init(
            name, every: seconds == 0 ? Self.defaultSpacing : .seconds(seconds), runsImmediately: runsImmediately)
    }
}

/// Rules with the times they were last kept. Times are durations since any fixed instant.
package struct PeriodicSchedule: Sendable {
    /// A task this close to its time is run with the others rather than in a pass of its own.
    private static let tolerance: Duration = .milliseconds(200)

    private struct Entry {
        let rule: PeriodicRule
        var lastRun: Duration?

        var nextRun: Duration? { lastRun.map { $0 + rule.spacing } }
    }
    private var entries: [Entry]

    package init(_ rules: [PeriodicRule], startingAt now: Duration) {
        entries = rules.map { Entry(rule: $0, lastRun: $0.runsImmediately ? nil : now) }
    }

    /// Names of the tasks to run now, in the order of the rules.
    package func due(at now: Duration) -> [String] {
        entries.filter { entry in entry.nextRun.map { $0 - now <= Self.tolerance } ?? true }.map(\.rule.name)
    }

    /// Notes that a task begins. - Parameter jitter: 0..<1, how much of the twentieth is added.
    package mutating func began(_ name: String, at now: Duration, jitter: Double) {
        guard let index = entries.firstIndex(where: { $0.rule.name == name }) else { return }
        let spacing = entries[index].rule.spacing
        guard let last = entries[index].lastRun, spacing > .zero, now > last else {
            entries[index].lastRun = now
            return
        }
        let late = Self.remainder(now - last, spacing)
        // Whole seconds, so that short spacings have none.
        let added = Int64((Double(spacing.components.seconds) * min(max(jitter, 0), 1) / 20).rounded(.down))
        entries[index].lastRun = now - late + .seconds(added)
    }

    /// When `due` has something next; nil: there are no tasks.
    package func nextTime(after now: Duration) -> Duration? {
        entries.map { $0.nextRun ?? now }.min().map { max($0, now) }
    }

    private static func remainder(_ duration: Duration, _ spacing: Duration) -> Duration {
        let count = (duration / spacing).rounded(.down)
        return duration - spacing * Int(count)
    }
}
