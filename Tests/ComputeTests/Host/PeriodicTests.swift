import Compute
import ComputeDriver
import JSON
import Logging
import NovaObjects
import OsloMessaging
import Synchronization
import Testing

@Suite struct PeriodicScheduleTests {
    @Test func `an option of 0 means a minute and a negative one never`() {
        #expect(PeriodicRule("a", option: 0)?.spacing == .seconds(60))
        #expect(PeriodicRule("a", option: 600)?.spacing == .seconds(600))
        #expect(PeriodicRule("a", option: -1) == nil)
    }

    @Test func `only immediate tasks are due at the start, the others after their spacing`() {
        let schedule = PeriodicSchedule(
            [
                PeriodicRule("minute", every: .seconds(60)),
                PeriodicRule("now", every: .seconds(600), runsImmediately: true),
            ], startingAt: .zero)
        #expect(schedule.due(at: .zero) == ["now"])
        #expect(schedule.due(at: .seconds(59)) == ["now"])
        #expect(schedule.due(at: .milliseconds(59_900)) == ["minute", "now"])
        #expect(schedule.nextTime(after: .seconds(7)) == .seconds(7))
    }

    @Test func `a late task keeps its rhythm and gets at most a twentieth of its spacing`() {
        var schedule = PeriodicSchedule([PeriodicRule("a", every: .seconds(60))], startingAt: .zero)
        schedule.began("a", at: .seconds(145), jitter: 0)
        #expect(schedule.nextTime(after: .seconds(145)) == .seconds(180))
        schedule.began("a", at: .seconds(180), jitter: 0.99)
        // 60 s / 20 = 3 s, in whole seconds below.
        #expect(schedule.nextTime(after: .seconds(180)) == .seconds(242))
    }

    @Test func `the first run of an immediate task begins its rhythm`() {
        var schedule = PeriodicSchedule(
            [PeriodicRule("a", every: .seconds(600), runsImmediately: true)], startingAt: .zero)
        schedule.began("a", at: .seconds(17), jitter: 0)
        #expect(schedule.due(at: .seconds(18)) == [])
        #expect(schedule.nextTime(after: .seconds(18)) == .seconds(617))
    }
}

@Suite struct PeriodicWorkTests {
    /// A clock that jumps to the time that is waited for, and ends the wait for good at `end`.
    final class JumpingClock: Clock {
        let time: Mutex<ContinuousClock.Instant>
        let start: ContinuousClock.Instant
        let end: ContinuousClock.Instant
        let minimumResolution: Duration = .zero

        init(for duration: Duration) {
            start = .now
            end = start + duration
            time = Mutex(start)
        }
        var now: ContinuousClock.Instant { time.withLock { $0 } }
        func sleep(until deadline: ContinuousClock.Instant, tolerance: Duration?) async throws {
            guard deadline <= end else { throw CancellationError() }
            time.withLock { $0 = max($0, deadline) }
            await Task.yield()
        }
    }

    @Test func `tasks run at their times and a failing one does not stop the others`() async throws {
        struct Failure: Error {}
        let clock = JumpingClock(for: .seconds(200))
        let runs = Mutex<[String]>([])
        let start = clock.now
        func task(_ rule: PeriodicRule, fails: Bool = false) -> PeriodicTask {
            PeriodicTask(rule) { _ in
                let seconds = start.duration(to: clock.now).components.seconds
                runs.withLock { $0.append("\(rule.name) \(seconds)") }
                if fails { throw Failure() }
            }
        }
        let work = PeriodicWork(
            [
                task(PeriodicRule("power", every: .seconds(600), runsImmediately: true), fails: true),
                task(PeriodicRule("audit", every: .seconds(60))),
            ], clock: clock, initialDelay: .seconds(10), logger: HostSamples.logger, jitter: { 0 })
        try await work.run()
        #expect(runs.withLock { $0 } == ["power 10", "audit 60", "audit 120", "audit 180"])
    }

    @Test func `heartbeats begin after five seconds, count on, and survive silence`() async throws {
        let host = try HostFixture()
        defer { host.cleanUp() }
        let record = ServiceRecord(
            conductor: host.parts.conductor, host: "host1", health: host.parts.health, logger: HostSamples.logger)
        try await HostSamples.join(record, host)
        let clock = JumpingClock(for: .seconds(26))
        try await ServiceHeartbeat(record, interval: .seconds(10), clock: clock).run()
        #expect(host.database.read { $0.service?.reportCount } == 3)
        host.database.change { $0.failures["Service.save()"] = MessagingTimeout(method: "object_action", seconds: 60) }
        try await ServiceHeartbeat(record, interval: .seconds(10), clock: JumpingClock(for: .seconds(16))).run()
        host.database.change { $0.failures = [:] }
        try await ServiceHeartbeat(record, interval: .seconds(10), clock: JumpingClock(for: .seconds(6))).run()
        #expect(host.database.read { $0.service?.reportCount } == 4)
    }

    @Test func `a service record that was deleted is made again`() async throws {
        let host = try HostFixture()
        defer { host.cleanUp() }
        let record = ServiceRecord(
            conductor: host.parts.conductor, host: "host1", health: host.parts.health, logger: HostSamples.logger)
        try await HostSamples.join(record, host)
        host.database.change {
            $0.service = nil
            $0.failures["Service.save()"] = RemoteFailure(className: "ServiceNotFound", message: "gone")
        }
        try await ServiceHeartbeat(record, interval: .seconds(10), clock: JumpingClock(for: .seconds(6))).run()
        #expect(host.database.read { $0.service?.host } == "host1")
    }
}

@Suite struct HostTasksTests {
    private func run(_ name: String, _ host: HostFixture, _ instances: RecordingInstances) async throws {
        let tasks = HostTasks(parts: host.parts, tracker: host.tracker, instances: instances, network: NoNetwork()).all
        try #require(tasks.contains { $0.rule.name == name })
        let clock = PeriodicWorkTests.JumpingClock(for: .seconds(0))
        let chosen = tasks.filter { $0.rule.name == name }.map { task in
            PeriodicTask(PeriodicRule(name, every: .seconds(60), runsImmediately: true), task.body)
        }
        try await PeriodicWork(chosen, clock: clock, initialDelay: .zero, logger: HostSamples.logger).run()
    }

    @Test func `power states are compared for instances without a task`() async throws {
        let busy = "44444444-4444-4444-8444-444444444444"
        let host = try HostFixture(machines: [MachineSummary(instanceUUID: busy, powerState: .running)]) {
            $0.instances = [HostSamples.instance(), HostSamples.instance(busy, taskState: "rebooting")]
        }
        defer { host.cleanUp() }
        let instances = RecordingInstances()
        try await run("_sync_power_states", host, instances)
        // No machine at all counts as no state.
        #expect(instances.asked.withLock { $0 } == ["noState \(HostSamples.uuid)"])
    }

    @Test func `only machines of deleted instances are reaped`() async throws {
        let alive = "44444444-4444-4444-8444-444444444444"
        let host = try HostFixture(machines: [
            MachineSummary(instanceUUID: alive, powerState: .running),
            MachineSummary(instanceUUID: HostSamples.uuid, powerState: .running),
        ]) {
            var deleted = HostSamples.instance()
            deleted.object.load("deleted", true)
            deleted.object.load("deleted_at", "2026-01-02T03:04:05Z")
            $0.instances = [deleted, HostSamples.instance(alive)]
        }
        defer { host.cleanUp() }
        let instances = RecordingInstances()
        try await run("_cleanup_running_deleted_instances", host, instances)
        #expect(instances.asked.withLock { $0 } == ["reap \(HostSamples.uuid)"])
    }

    @Test func `an event that is no longer true is not reported`() async throws {
        let host = try HostFixture(machines: [MachineSummary(instanceUUID: HostSamples.uuid, powerState: .running)]) {
            $0.instances = [HostSamples.instance()]
        }
        defer { host.cleanUp() }
        let instances = RecordingInstances()
        let watcher = LifecycleWatcher(parts: host.parts, instances: instances)
        await watcher.report(.stopped(HostSamples.uuid))
        #expect(instances.asked.withLock { $0 } == [])
        host.driver.state.withLock { $0 = [MachineSummary(instanceUUID: HostSamples.uuid, powerState: .shutdown)] }
        await watcher.report(.stopped(HostSamples.uuid))
        #expect(instances.asked.withLock { $0 } == ["shutdown \(HostSamples.uuid)"])
    }

    @Test func `a task that is switched off does not exist`() throws {
        let host = try HostFixture(options: [
            ("DEFAULT", "heal_instance_info_cache_interval", "-1"), ("DEFAULT", "update_resources_interval", "0"),
        ])
        defer { host.cleanUp() }
        let tasks = HostTasks(
            parts: host.parts, tracker: host.tracker, instances: RecordingInstances(), network: NoNetwork()
        ).all
        let rules = Dictionary(uniqueKeysWithValues: tasks.map { ($0.rule.name, $0.rule) })
        #expect(rules["_heal_instance_info_cache"] == nil)
        #expect(rules["update_available_resource"]?.spacing == .seconds(60))
        #expect(rules["_sync_power_states"]?.runsImmediately == true)
        #expect(rules["update_available_resource"]?.runsImmediately == false)
    }
}

extension HostSamples {
    static let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    static func join(_ record: ServiceRecord, _ host: HostFixture) async throws {
        try await record.join(context: .administrator())
    }
}
