// Repair after a restart, the power state sync, the reaper.
import Compute
import ComputeDriver
import JSON
import NovaObjects
import OsloMessaging
import Testing

@Suite struct RepairTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var vm: String?
        var task: String?
        var power: PowerState
        var decision: RepairDecision
        var testDescription: String { "\(vm ?? "-") \(task ?? "-") \(power)" }
    }

    /// Contract §5.3, row by row.
    static let cases: [Case] = [
        Case(vm: "soft-delete", task: nil, power: .shutdown, decision: .nothing),
        Case(vm: "error", task: "spawning", power: .noState, decision: .nothing),
        Case(vm: "error", task: "deleting", power: .noState, decision: .delete),
        Case(vm: "deleted", task: nil, power: .noState, decision: .completeDeletion),
        Case(vm: "building", task: "spawning", power: .noState, decision: .markError),
        Case(vm: "building", task: "deleting", power: .noState, decision: .delete),
        Case(vm: "active", task: "rebuild_spawning", power: .running, decision: .markError),
        Case(vm: "active", task: "image_uploading", power: .running, decision: .settle(vmState: nil)),
        Case(vm: "active", task: "resize_prep", power: .running, decision: .settle(vmState: nil)),
        Case(vm: "active", task: "resize_migrating", power: .shutdown, decision: .repairResize),
        Case(vm: "error", task: "resize_migrating", power: .shutdown, decision: .repairResize),
        Case(vm: "active", task: "resize_migrated", power: .shutdown, decision: .nothing),
        Case(vm: "resized", task: "resize_reverting", power: .shutdown, decision: .nothing),
        Case(vm: "active", task: "resize_finish", power: .shutdown, decision: .repairResize),
        Case(vm: "active", task: "deleting", power: .running, decision: .delete),
        Case(vm: "active", task: "reboot_pending", power: .running, decision: .reboot(isSoft: true)),
        Case(vm: "active", task: "reboot_pending", power: .shutdown, decision: .reboot(isSoft: false)),
        Case(vm: "active", task: "reboot_started_hard", power: .shutdown, decision: .reboot(isSoft: false)),
        Case(vm: "active", task: "reboot_started", power: .running, decision: .settle(vmState: "active")),
        Case(vm: "active", task: "pausing", power: .running, decision: .settle(vmState: "active")),
        Case(vm: "paused", task: "unpausing", power: .paused, decision: .unpause),
        Case(vm: "paused", task: "unpausing", power: .running, decision: .settle(vmState: "active")),
        Case(vm: "active", task: "powering-off", power: .running, decision: .stop),
        Case(vm: "stopped", task: "powering-on", power: .shutdown, decision: .start),
        Case(vm: "active", task: nil, power: .running, decision: .nothing),
        Case(vm: "active", task: nil, power: .shutdown, decision: .resumeOnHostBoot),
        Case(vm: "stopped", task: nil, power: .shutdown, decision: .nothing),
    ]

    @Test(arguments: cases) func `a restart finds`(one: Case) {
        let decision = RepairDecision(
            vmState: one.vm, taskState: one.task, recordedPowerState: 1, powerState: one.power,
            resumesGuestsOnHostBoot: true)
        #expect(decision == one.decision)
    }

    /// A world with one instance in these states.
    private func world(
        vm: String?, task: String?, power: PowerState?, recorded: PowerState = .running
    ) throws -> (World, Instance) {
        let world = try World()
        let instance = try changed(try world.message("reboot_instance").instance, vm: vm, task: task, recorded)
        world.rows.store(instance)
        world.driver.set(power, of: instance.uuid)
        return (world, instance)
    }

    private func changed(_ instance: Instance, vm: String?, task: String?, _ power: PowerState) throws -> Instance {
        var instance = instance
        instance.object.load("vm_state", .nullable(vm))
        instance.object.load("task_state", .nullable(task))
        instance.object.load("power_state", .integer(Int64(power.rawValue)))
        return instance
    }

    @Test(arguments: [
        ("active", "powering-off", PowerState.running, ["stopped", "null"]),
        ("stopped", "powering-on", .shutdown, ["active", "null"]),
        ("active", "reboot_started_hard", .shutdown, ["active", "null"]),
        ("paused", "unpausing", .paused, ["active", "null"]),
        ("building", "spawning", .noState, ["error", "null"]),
        ("active", "pausing", .running, ["active", "null"]),
    ])
    func `what was interrupted is brought to an end`(
        vm: String, task: String, power: PowerState, expected: [String]
    ) async throws {
        let (world, instance) = try world(vm: vm, task: task, power: power)
        try await world.running { await world.manager.initInstance(instance, context: RequestContext()) }
        #expect(world.rows.row(instance.uuid)?.states == expected)
    }

    @Test func `a delete that was interrupted is carried out`() async throws {
        let (world, instance) = try world(vm: "active", task: "deleting", power: .running)
        try await world.running { await world.manager.initInstance(instance, context: RequestContext()) }
        #expect(world.rows.row(instance.uuid)?.isDeleted == true)
        #expect(world.driver.state(of: instance.uuid) == nil)
    }

    @Test func `an instance of another host is not touched`() async throws {
        let (world, instance) = try world(vm: "building", task: "spawning", power: .noState)
        var other = instance
        other.object.load("host", "elsewhere")
        let foreign = other
        try await world.running { await world.manager.initInstance(foreign, context: RequestContext()) }
        #expect(world.journal.lines.isEmpty)
    }

    @Test func `a guest that powered itself off is a stopped server`() async throws {
        let (world, instance) = try world(vm: "active", task: nil, power: .shutdown)
        try await world.running {
            await world.manager.powerStateChanged(instance, to: .shutdown, context: RequestContext())
        }
        #expect(world.rows.row(instance.uuid)?.states == ["stopped", "null"])
        #expect(world.rows.row(instance.uuid)?.fields["power_state"] == 4)
        #expect(world.journal.lines.contains("InstanceAction.action_start"))
        #expect(world.journal.lines.contains("event_finish compute_stop_instance"))
    }

    @Test func `a stopped server must not run`() async throws {
        let (world, instance) = try world(vm: "stopped", task: nil, power: .running, recorded: .shutdown)
        try await world.running {
            await world.manager.powerStateChanged(instance, to: .running, context: RequestContext())
        }
        #expect(world.driver.state(of: instance.uuid) == .shutdown)
        #expect(world.rows.row(instance.uuid)?.states == ["stopped", "null"])
    }

    @Test func `a task keeps the sync away`() async throws {
        let (world, instance) = try world(vm: "active", task: "rebooting", power: .shutdown)
        try await world.running {
            await world.manager.powerStateChanged(instance, to: .shutdown, context: RequestContext())
        }
        #expect(world.rows.row(instance.uuid)?.states == ["active", "rebooting"])
        #expect(world.journal.lines(of: "Instance.save", "driver").isEmpty)
    }

    @Test func `a guest that is gone with shutdown_terminate is deleted`() async throws {
        let (world, instance) = try world(vm: "active", task: nil, power: .shutdown)
        world.rows.set("shutdown_terminate", true, of: instance.uuid)
        try await world.running {
            await world.manager.powerStateChanged(instance, to: .shutdown, context: RequestContext())
        }
        #expect(world.rows.row(instance.uuid)?.isDeleted == true)
    }

    @Test func `news that is old when it is looked at changes nothing`() async throws {
        let (world, instance) = try world(vm: "active", task: nil, power: .running)
        try await world.running {
            await world.manager.powerStateChanged(instance, to: .shutdown, context: RequestContext())
        }
        #expect(world.journal.lines(of: "Instance.save", "driver").isEmpty)
    }

    @Test func `the machine of a deleted instance is ended`() async throws {
        let (world, instance) = try world(vm: "deleted", task: nil, power: .running)
        try await world.running { await world.manager.reap(instance, context: RequestContext()) }
        #expect(world.journal.lines == ["driver destroy"])
        #expect(world.driver.state(of: instance.uuid) == nil)
    }
}
