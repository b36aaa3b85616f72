// The wait for network-vif-plugged (contract §7.4), and external events in general.
import Compute
import ComputeDriver
import JSON
import NovaObjects
import OsloMessaging
import ServiceConfiguration
import Testing

@Suite struct PluggingTests {
    static func event(_ name: String, of uuid: String, status: String = "completed", tag: String?) -> InstanceExternalEvent {
        InstanceExternalEvent(
            unchecked: VersionedObject(
                name: "InstanceExternalEvent", version: "1.5",
                fields: [
                    "instance_uuid": .string(uuid), "name": .string(name), "status": .string(status),
                    "tag": tag.map { .string($0) } ?? .null,
                ]))
    }

    static func message(_ event: InstanceExternalEvent, _ instance: Instance) -> RPCRequest {
        RPCRequest(
            method: "external_instance_event",
            arguments: ["instances": .array([instance.primitive]), "events": .array([event.primitive])], namespace: nil,
            version: "6.0", context: RequestContext(), isCall: false)
    }

    /// A build whose port is told of by `status` while the machine is made; nil: never.
    static func build(
        status: String?, timeout: Duration, isFatal: Bool = true
    ) async throws -> (World, RPCRequest) {
        let world = try World { configuration in
            configuration.network.vifPluggingTimeout = timeout
            configuration.network.isVIFPluggingFatal = isFatal
        }
        let request = try world.message("build_and_run_instance").with(BuildFailureTests.withoutRetry)
        let instance = try request.instance
        let endpoint = world.endpoint
        if let status {
            world.driver.behaviour["spawn"] = {
                let event = event("network-vif-plugged", of: instance.uuid, status: status, tag: RecordingNetwork.portID)
                _ = try await endpoint.dispatch(message(event, instance))
            }
        }
        try await world.send(request)
        return (world, request)
    }

    @Test func `a guest is started when its port is wired, also where that came before the wait`() async throws {
        let (world, request) = try await Self.build(status: "completed", timeout: .seconds(30))
        #expect(world.driver.spawned.first?.startsPaused == true)
        #expect(world.journal.lines(of: "driver") == ["driver spawn", "driver unpause"])
        let row = try #require(world.rows.row(try request.instance.uuid))
        #expect(row.states == ["active", "null"])
        #expect(row.fields["power_state"] == 1)
    }

    @Test(arguments: [("failed" as String?, Duration.seconds(30)), (nil, .milliseconds(20))])
    func `a port that is not wired ends the build`(status: String?, timeout: Duration) async throws {
        let (world, request) = try await Self.build(status: status, timeout: timeout)
        #expect(world.rows.row(try request.instance.uuid)?.states == ["error", "null"])
        let message = try #require(world.rows.faults.first?["message"]?.stringValue)
        #expect(message.contains("Virtual Interface creation failed"))
        #expect(message.contains(RecordingNetwork.portID))
        #expect(world.journal.lines(of: "driver") == ["driver spawn", "driver destroy"])
    }

    @Test func `where it is not fatal the guest starts without its network`() async throws {
        let (world, request) = try await Self.build(status: nil, timeout: .milliseconds(20), isFatal: false)
        #expect(world.rows.row(try request.instance.uuid)?.states == ["active", "null"])
        #expect(world.journal.count("driver unpause") == 1)
    }

    @Test func `a port that is active already is not waited for`() async throws {
        guard var vif = RecordingNetwork.inactiveVIF.json.objectValue else { return }
        vif["active"] = true
        let world = try World(vif: VIF(.object(vif))) { $0.network.vifPluggingTimeout = .seconds(30) }
        try await world.send(try world.message("build_and_run_instance"))
        #expect(world.driver.spawned.first?.startsPaused == false)
        #expect(world.journal.count("driver unpause") == 0)
    }

    @Test func `network-changed refreshes the port it names`() async throws {
        let world = try World()
        let instance = try world.message("stop_instance").instance
        for tag in [nil, RecordingNetwork.portID] {
            let event = Self.event("network-changed", of: instance.uuid, tag: tag)
            _ = try await world.endpoint.dispatch(Self.message(event, instance))
        }
        #expect(
            world.journal.lines(of: "network") == ["network refresh all", "network refresh \(RecordingNetwork.portID)"])
    }

    @Test func `an event that fails does not keep the next one back`() async throws {
        let world = try World()
        let instance = try world.message("stop_instance").instance
        world.network.behaviour["refresh"] = { throw NovaException("NovaException", "no answer") }
        let events = [
            Self.event("network-changed", of: instance.uuid, tag: nil),
            Self.event("network-vif-deleted", of: instance.uuid, tag: RecordingNetwork.portID),
        ]
        let request = Self.message(events[0], instance).with { $0["events"] = .array(events.map(\.primitive)) }
        _ = try await world.endpoint.dispatch(request)
        #expect(world.journal.lines(of: "network").last == "network forget \(RecordingNetwork.portID)")
    }

    @Test func `in-progress is no news, and an event that nobody waits for is lost`() async throws {
        let events = ExternalEvents()
        let early = Self.event("network-vif-plugged", of: "u", tag: "p")
        #expect(!events.deliver(early))
        let expectation = events.expect("network-vif-plugged", tags: ["p"], of: "u")
        #expect(events.deliver(Self.event("network-vif-plugged", of: "u", status: "in-progress", tag: "p")))
        #expect(try await expectation.outcome(within: .milliseconds(10)) == .timedOut(["network-vif-plugged-p"]))
        expectation.cancel()
        #expect(!events.deliver(early))
    }

    @Test func `all ports are waited for`() async throws {
        let events = ExternalEvents()
        let expectation = events.expect("network-vif-plugged", tags: ["p", "q"], of: "u")
        #expect(events.deliver(Self.event("network-vif-plugged", of: "u", tag: "p")))
        #expect(events.deliver(Self.event("network-vif-plugged", of: "u", tag: "q")))
        #expect(try await expectation.outcome(within: .seconds(60)) == .completed)
    }

    @Test func `a delete ends the wait`() async throws {
        let events = ExternalEvents()
        let expectation = events.expect("network-vif-plugged", tags: ["p"], of: "u")
        events.drop(instanceUUID: "u")
        #expect(try await expectation.outcome(within: .seconds(60)) == .cancelled)
    }
}
