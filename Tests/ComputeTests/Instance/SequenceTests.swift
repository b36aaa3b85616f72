// The order of calls of each operation against the recordings of Nova ("Recorded nova-compute call sequences"). Differences that
// hold for every test here, and why:
// - Block device mappings are not read: no volume can be attached, so there is nothing to hand to the driver.
// - The flavor is not loaded: Nova needs it for the payload of its notifications, and they are a part of their own here; neither
//   are `new_flavor`, `old_flavor`, `resources`, `numa_topology` marked as changed, which that loading brings about.
// - `info_cache` is not saved with the instance: the network part has stored it already.
import Compute
import ComputeDriver
import JSON
import NovaObjects
import OsloMessaging
import ServiceMetrics
import Testing

@Suite struct SequenceTests {
    @Test func `a build makes the recorded calls`() async throws {
        let world = try World()
        let request = try world.message("build_and_run_instance")
        try await world.send(request)
        // Besides: the allocations are not read, as this driver has no use for them; ports are made while devices are named.
        let lines = world.journal.lines.filter { !$0.hasPrefix("network allocate") }
        #expect(
            lines == [
                "event_start compute__do_build_and_run_instance",
                "Instance.save[scheduling,null] vm_state=building task_state=null",
                "notify create.start",
                "books claim",
                "Instance.save host=host2 node=host2 launched_on=host2",
                "Instance.save[null] vm_state=building task_state=networking",
                "BlockDeviceMapping.save /dev/vda",
                "Instance.save vm_state=building task_state=block_device_mapping root_device_name=/dev/vda",
                "Instance.save[block_device_mapping] vm_state=building task_state=spawning",
                "driver spawn",
                "Instance.save[spawning] vm_state=active task_state=null power_state=1",
                "scheduler update",
                "notify create.end",
                "event_finish compute__do_build_and_run_instance",
                "books build true",
            ].reordered(like: lines))
        #expect(world.journal.count("network allocate") == 1)
        let row = try #require(world.rows.row(try request.instance.uuid))
        #expect(row.states == ["active", "null"])
        #expect(row.fields["launched_at"]?.stringValue != nil)
        #expect(row.fields["system_metadata"]?["boot_roles"] == "member")
        #expect(world.metrics.operations.value("build_and_run_instance", "success") == 1)
        #expect(world.metrics.operationsInFlight.value("build_and_run_instance") == 0)
    }

    @Test func `a delete makes the recorded calls`() async throws {
        let world = try World()
        let request = try world.message("terminate_instance")
        world.driver.set(.running, of: try request.instance.uuid)
        try await world.send(request)
        // Besides: no console tokens are cleaned, as this service gives none out.
        #expect(
            world.journal.lines == [
                "event_start compute_terminate_instance",
                "notify delete.start",
                "notify shutdown.start",
                "driver destroy",
                "network deallocate",
                "notify shutdown.end",
                "Instance.save vm_state=deleted task_state=null power_state=0",
                "books usage",
                "books delete allocations",
                "scheduler delete",
                "Instance.destroy",
                "notify delete.end",
                "event_finish compute_terminate_instance",
            ])
    }

    @Test func `a stop makes the recorded calls`() async throws {
        let world = try World()
        let request = try world.message("stop_instance")
        world.driver.set(.running, of: try request.instance.uuid)
        try await world.send(request)
        #expect(
            world.journal.lines == [
                "event_start compute_stop_instance",
                "notify power_off.start",
                "driver power_off 60",
                "Instance.save[powering-off] vm_state=stopped task_state=null power_state=4",
                "notify power_off.end",
                "event_finish compute_stop_instance",
            ])
    }

    @Test func `a stop of what is already down also takes a row without a task`() async throws {
        let world = try World()
        let request = try world.message("stop_instance")
        world.driver.set(.shutdown, of: try request.instance.uuid)
        world.rows.set("task_state", .null, of: try request.instance.uuid)
        try await world.send(request.with { $0["clean_shutdown"] = false })
        #expect(world.journal.lines.contains("driver power_off 0"))
        #expect(
            world.journal.lines.contains(
                "Instance.save[powering-off,null] vm_state=stopped task_state=null power_state=4"))
    }

    @Test func `a start makes the recorded calls`() async throws {
        let world = try World()
        let request = try world.message("start_instance")
        world.driver.set(.shutdown, of: try request.instance.uuid)
        try await world.send(request)
        #expect(
            world.journal.lines == [
                "event_start compute_start_instance",
                "notify power_on.start",
                "Instance.get_by_uuid [\"info_cache\"]",
                "network refresh all",
                "driver power_on",
                "Instance.save[powering-on] vm_state=active task_state=null power_state=1",
                "notify power_on.end",
                "event_finish compute_start_instance",
            ])
    }

    @Test func `a start does without Neutron, from the cache`() async throws {
        let world = try World()
        let request = try world.message("start_instance")
        world.driver.set(.shutdown, of: try request.instance.uuid)
        world.network.behaviour["refresh"] = { throw NovaException("NeutronConnectionFailed", "no answer") }
        try await world.send(request)
        #expect(world.rows.row(try request.instance.uuid)?.states == ["active", "null"])
    }

    @Test(arguments: [("SOFT", ""), ("HARD", "_hard")])
    func `a reboot makes the recorded calls`(type: String, suffix: String) async throws {
        let world = try World()
        let request = try world.message("reboot_instance").with { $0["reboot_type"] = .string(type) }
        let uuid = try request.instance.uuid
        world.driver.set(.running, of: uuid)
        world.rows.set("task_state", .string("rebooting" + suffix), of: uuid)
        try await world.send(request)
        let driver = type == "SOFT" ? ["driver soft_reboot"] : ["driver power_off 0", "driver power_on"]
        #expect(
            world.journal.lines == [
                "event_start compute_reboot_instance",
                "network refresh all",
                "notify reboot.start",
                "Instance.save[rebooting\(suffix),reboot_pending\(suffix),reboot_started\(suffix)] "
                    + "task_state=reboot_pending\(suffix) power_state=1",
                "Instance.save[reboot_pending\(suffix)] task_state=reboot_started\(suffix)",
            ] + driver + [
                "Instance.save vm_state=active task_state=null power_state=1",
                "notify reboot.end",
                "event_finish compute_reboot_instance",
            ])
    }

    @Test func `a guest that ignores a soft reboot is rebooted hard`() async throws {
        let world = try World()
        let request = try world.message("reboot_instance")
        world.driver.set(.running, of: try request.instance.uuid)
        world.driver.behaviour["guest ignores the button"] = {}
        try await world.send(request)
        #expect(world.journal.lines(of: "driver") == ["driver soft_reboot", "driver power_off 0", "driver power_on"])
    }

    @Test func `a reboot that fails while the guest runs leaves a fault and an active server`() async throws {
        let world = try World()
        let request = try world.message("reboot_instance").with { $0["reboot_type"] = "HARD" }
        let uuid = try request.instance.uuid
        world.driver.set(.running, of: uuid)
        world.rows.set("task_state", "rebooting_hard", of: uuid)
        world.driver.behaviour["power_off 0"] = { throw DriverFault.powerOff }
        try await world.send(request)
        #expect(world.rows.row(uuid)?.states == ["active", "null"])
        #expect(world.rows.faults.count == 1)
        #expect(world.journal.lines.contains("notify reboot.error"))
    }

    @Test func `a reboot that leaves no guest ends in error`() async throws {
        let world = try World()
        let request = try world.message("reboot_instance").with { $0["reboot_type"] = "HARD" }
        let uuid = try request.instance.uuid
        world.driver.set(.running, of: uuid)
        world.rows.set("task_state", "rebooting_hard", of: uuid)
        world.driver.behaviour["power_on"] = { throw DriverFault.powerOff }
        try await world.send(request)
        #expect(world.rows.row(uuid)?.states == ["error", "null"])
        #expect(world.rows.finishedEvents.last?.message?.isEmpty == false)
    }

    @Test(arguments: [("pause", "pausing", "paused", 3), ("unpause", "unpausing", "active", 1)])
    func `pause and unpause make the recorded calls`(name: String, task: String, state: String, power: Int) async throws {
        let world = try World()
        let request = try world.message("\(name)_instance")
        world.driver.set(name == "pause" ? .running : .paused, of: try request.instance.uuid)
        try await world.send(request)
        #expect(
            world.journal.lines == [
                "event_start compute_\(name)_instance",
                "notify \(name).start",
                "driver \(name)",
                "Instance.save[\(task)] vm_state=\(state) task_state=null power_state=\(power)",
                "notify \(name).end",
                "event_finish compute_\(name)_instance",
            ])
    }

    @Test func `console output has the last lines, in ASCII`() async throws {
        let world = try World()
        let request = try world.message("get_console_output")
        let answer = try await world.send(request.with { $0["tail_length"] = 2 })
        #expect(answer == "ANOTHER\nLAST LINE\u{FFFD}")
        #expect(world.journal.lines == ["driver get_console_output"])
        let all = try await world.send(request.with { $0["tail_length"] = .null })
        #expect(all == "FAKE CONSOLE OUTPUT\r\nANOTHER\nLAST LINE\u{FFFD}")
        #expect(try await world.send(request.with { $0["tail_length"] = "0" }) == "")
    }

    @Test func `diagnostics are an object, and refused for a guest that does not run`() async throws {
        let world = try World()
        let request = try world.message("get_instance_diagnostics")
        world.driver.set(.running, of: try request.instance.uuid)
        let answer = try Diagnostics(primitive: try await world.send(request))
        #expect(answer.object["num_cpus"] == 1)
        world.driver.set(.shutdown, of: try request.instance.uuid)
        let failure = await #expect(throws: RemoteFailure.self) { try await world.endpoint.dispatch(request) }
        #expect(failure?.className == "InstanceInvalidState")
        #expect(failure?.keywords["code"] == 400)
    }
}

/// A driver's failures with the words a tenant reads apart from those of the operator.
enum DriverFault {
    static let powerOff = NovaException(
        "NovaException", "The machine could not be started", details: "start /var/lib/x: ENOENT")
}

extension [String] {
    /// "books build true" and the event's end are written by different wrappers; their order is of no consequence.
    func reordered(like lines: [String]) -> [String] {
        guard suffix(2).sorted() == lines.suffix(2).sorted() else { return self }
        return dropLast(2) + lines.suffix(2)
    }
}
