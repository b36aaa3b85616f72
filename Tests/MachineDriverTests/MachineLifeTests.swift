import ComputeDriver
import Foundation
import Glibc
import JSON
import MonitorProtocol
import Testing

@testable import MachineDriver

/// The driver with a process that speaks the monitor's protocol: what is started, what is told, what is left.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct MachineLifeTests {
    @Test func everyPowerOperation() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        let uuid = fixture.uuid
        try await driver.spawn(fixture.request(startsPaused: true))
        #expect(try await driver.powerState(of: uuid) == .paused)
        try await driver.unpause(instanceUUID: uuid)
        #expect(try await driver.powerState(of: uuid) == .running)
        try await driver.pause(instanceUUID: uuid)
        #expect(try await driver.powerState(of: uuid) == .paused)
        try await driver.unpause(instanceUUID: uuid)
        let first = try fixture.pid()
        #expect(try await driver.softReboot(instance: fixture.instance(), timeout: .seconds(20)))
        let second = try fixture.pid()
        #expect(first != second && kill(first, 0) != 0)
        #expect(try await driver.powerState(of: uuid) == .running)
        try await driver.powerOff(instance: fixture.instance(), timeout: .seconds(20), retryInterval: .seconds(5))
        #expect(try await driver.powerState(of: uuid) == .shutdown && kill(second, 0) != 0)
        #expect(try fixture.directory.process() == nil)
        try await driver.powerOn(instance: fixture.instance(), interfaces: [])
        #expect(try await driver.powerState(of: uuid) == .running)
        #expect(try await driver.machines().map(\.instanceUUID) == [uuid])
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        fixture.expectNothingLeft()
        await #expect(throws: DriverError.self) { try await driver.powerState(of: uuid) }
    }

    @Test func monitorGetsWhatItsDescriptionNamesAndNothingElse() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        let extra = open("/dev/null", O_RDONLY)  // not close-on-exec
        defer { close(extra) }
        try await driver.spawn(fixture.request(configDrive: ["openstack/latest/meta_data.json": Array("{}".utf8)]))
        let report = try await fixture.report(driver)
        #expect(report["unnamed"] == [] && report["missing"] == [], "\(report)")
        #expect(report["session"] == true && report["cwd"] == "/" && report["kernel"] == "the kernel")
        let configuration = try #require(report["configuration"])
        #expect(configuration["name"] == "instance-0000000a" && configuration["uuid"] == .string(fixture.uuid))
        #expect(configuration["cpu"] == ["count": 2, "sockets": 2, "cores": 1, "threads": 1])
        #expect(
            configuration["system"]?["product"] == "OpenStack Nova"
                && configuration["system"]?["serial"] == .string(fixture.uuid))
        #expect(configuration["disks"]?.arrayValue?.map { $0["readOnly"] } == [false, true])
        let statistics = try await driver.statistics(of: fixture.uuid)
        #expect(statistics.memoryMiB == 64 && statistics.disks.map(\.name) == ["virtio-disk0", "virtio-disk1"])
        #expect(statistics.balloon == ["free-memory": 9])
        let path = fixture.options.runDirectory + "/\(fixture.uuid).control"
        let attributes = try FileManager.default.attributesOfItem(atPath: path)
        #expect(attributes[.posixPermissions] as? Int == 0o600)
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
    }

    @Test func deafGuestIsUnpluggedAfterItsTime() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        try await driver.spawn(fixture.request(words: "test.deaf"))
        #expect(try await !driver.softReboot(instance: fixture.instance(), timeout: .milliseconds(300)))
        #expect(try await driver.powerState(of: fixture.uuid) == .running)
        try await driver.powerOff(
            instance: fixture.instance(), timeout: .milliseconds(300), retryInterval: .milliseconds(100))
        #expect(try await driver.powerState(of: fixture.uuid) == .shutdown)
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        fixture.expectNothingLeft()
    }

    @Test func stuckMonitorIsKilled() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        try await driver.spawn(fixture.request(words: "test.stuck"))
        let pid = try fixture.pid()
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        #expect(kill(pid, 0) != 0)
        fixture.expectNothingLeft()
    }

    @Test func deathOfAMonitorIsSeenWithinASecond() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        try await driver.spawn(fixture.request())
        var events = driver.events.makeAsyncIterator()
        let begin = ContinuousClock.now
        kill(try fixture.pid(), SIGKILL)
        #expect(await events.next() == .crashed(fixture.uuid))
        #expect(ContinuousClock.now - begin < .seconds(1))
        #expect(try await driver.powerState(of: fixture.uuid) == .crashed)
        try await driver.powerOn(instance: fixture.instance(), interfaces: [])
        #expect(try await driver.powerState(of: fixture.uuid) == .running)
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
    }

    @Test(arguments: [(SIGUSR1, PowerState.shutdown), (SIGUSR2, PowerState.crashed)])
    func guestThatEndsItselfIsToldAndItsMonitorGoes(signal: CInt, state: PowerState) async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        try await driver.spawn(fixture.request())
        let pid = try fixture.pid()
        var events = driver.events.makeAsyncIterator()
        kill(pid, signal)
        #expect(await events.next() == (state == .shutdown ? .stopped(fixture.uuid) : .crashed(fixture.uuid)))
        #expect(try await driver.powerState(of: fixture.uuid) == state)
        #expect(kill(pid, 0) != 0)
        await #expect(throws: DriverError.self) { try await driver.pause(instanceUUID: fixture.uuid) }
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        fixture.expectNothingLeft()
    }

    @Test func nextServiceFindsWhatRunsAndWhatEndedMeanwhile() async throws {
        let running = try DriverFixture()
        var paused = try DriverFixture(), off = try DriverFixture(), dead = try DriverFixture()
        (paused.options, off.options, dead.options) = (running.options, running.options, running.options)
        let machines = [running, paused, off, dead]
        let pids: [pid_t]
        do {
            let driver = try await running.driver()
            for machine in machines {
                try await driver.spawn(machine.request(startsPaused: machine.uuid == paused.uuid))
            }
            pids = try machines.map { try $0.pid() }
            // This service sees nothing any more: its sessions are gone, the processes are not.
            driver.abandonSessions()
        }
        kill(pids[2], SIGUSR1)
        kill(pids[3], SIGKILL)
        _ = try await eventually("the other is off") {
            let socket = off.options.runDirectory + "/\(off.uuid).control"
            return try await MonitorSession.askStatus(at: socket, timeout: .seconds(5)).state == .shutdown ? true : nil
        }
        _ = try await eventually("the dead one is gone") { try ProcessIdentity(pid: pids[3]) == nil ? true : nil }
        // Without its pid file one is found by its socket.
        try FileManager.default.removeItem(atPath: running.directory.file("monitor.pid"))

        let driver = try await running.driver()
        #expect(try await driver.powerState(of: running.uuid) == .running)
        #expect(try await driver.powerState(of: paused.uuid) == .paused)
        #expect(try await driver.powerState(of: off.uuid) == .shutdown)
        #expect(try await driver.powerState(of: dead.uuid) == .crashed)
        #expect(try running.pid() == pids[0] && paused.pid() == pids[1])
        try await driver.unpause(instanceUUID: paused.uuid)
        #expect(try await driver.powerState(of: paused.uuid) == .running)
        #expect(Set(try await driver.machines().map(\.instanceUUID)) == Set(machines.map(\.uuid)))
        for machine in machines {
            try await driver.destroy(instance: machine.instance(), interfaces: [], destroysDisks: true)
        }
        running.expectNothingLeft()
        for pid in pids { #expect(try ProcessIdentity(pid: pid) == nil) }
    }

    @Test func monitorWithoutDirectoryIsEndedByTheNextService() async throws {
        let fixture = try DriverFixture()
        let first = try await fixture.driver()
        try await first.spawn(fixture.request())
        let pid = try fixture.pid()
        first.abandonSessions()
        try fixture.directory.remove()
        _ = try await fixture.driver()
        _ = try await eventually("the orphan is gone") { try ProcessIdentity(pid: pid) == nil ? true : nil }
        fixture.expectNothingLeft()
    }

    @Test(arguments: ["test.exit", "test.mute"])
    func monitorThatDoesNotComeUpLeavesNothing(word: String) async throws {
        var fixture = try DriverFixture()
        fixture.options.startTimeout = .seconds(2)
        let driver = try await fixture.driver()
        let error = try await #require(throws: DriverError.self) {
            try await driver.spawn(fixture.request(words: word))
        }
        var events = driver.events.makeAsyncIterator()
        #expect(error.fault == .host && !error.tenantMessage.contains("/"), "\(error.tenantMessage)")
        if word == "test.exit" {
            #expect(
                error.operatorMessage.contains("fake: the machine is refused")
                    && error.operatorMessage.contains("status 512"), "\(error)")
        }
        fixture.expectNothingLeft()
        try await driver.spawn(fixture.request())
        // The failed start was no crash of a machine: the first news is of the second one.
        kill(try fixture.pid(), SIGUSR1)
        #expect(await events.next() == .stopped(fixture.uuid))
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
    }

    @Test func cancelledStartLeavesNothing() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        let spawn = Task { try await driver.spawn(fixture.request(words: "test.mute")) }
        let pid = try await eventually("the monitor runs") { try fixture.directory.process()?.pid }
        spawn.cancel()
        await #expect(throws: CancellationError.self) { try await spawn.value }
        #expect(kill(pid, 0) != 0)
        fixture.expectNothingLeft()
    }

    @Test func secondSpawnOfARunningInstanceIsRefused() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        try await driver.spawn(fixture.request())
        let pid = try fixture.pid()
        let error = try await #require(throws: DriverError.self) { try await driver.spawn(fixture.request()) }
        #expect(error.novaClass == "InstanceExists")
        #expect(try fixture.pid() == pid && kill(pid, 0) == 0)
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
    }

    @Test func missingMachinesAreNotFound() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        for uuid in [fixture.uuid, "../../etc", ""] {
            let error = try await #require(throws: DriverError.self) { try await driver.powerState(of: uuid) }
            #expect(error.novaClass == "InstanceNotFound")
        }
        await #expect(throws: DriverError.self) {
            try await driver.powerOff(instance: fixture.instance(), timeout: .zero, retryInterval: .zero)
        }
        await #expect(throws: DriverError.self) {
            try await driver.consoleOutput(instanceUUID: fixture.uuid, byteCount: 5)
        }
    }

    @Test func missingMonitorIsToldAtTheStart() async throws {
        var fixture = try DriverFixture()
        fixture.options.monitorPath = "/nonexistent/apus-vmm"
        let error = try await #require(throws: DriverError.self) { try await fixture.driver() }
        #expect(error.operatorMessage.contains("/nonexistent/apus-vmm") && error.operatorMessage.contains("nova.conf"))
    }
}
