// The order of calls of a resize on one host against the recording of Nova ("resize", "resize-confirm", "resize-revert"). What
// differs, and why:
// - What SequenceTests names: no block device mappings, no loading of what this service does not read.
// - InstancePCIRequests, ResourceList and PciDeviceList are not read: this host has neither devices nor assigned resources.
// - `info_cache` and `migration_context` are not saved again with each step.
// - The allocations are not read for the driver.
// - After a confirm the schedulers are told of the server in its new size; nova-compute tells them that it is gone, which is true
//   of the source host of a move.
import Compute
import ComputeDriver
import JSON
import NovaObjects
import OsloMessaging
import Testing

@Suite struct ResizeSequenceTests {
    /// The recorded message, whose move is between two hosts, as one on this host.
    private func message(_ name: String, _ world: World, taskState: String? = nil) throws -> RPCRequest {
        let request = try world.message(name)
        var migration = try Migration(primitive: request.arguments["migration"] ?? .null)
        for field in ["source_compute", "source_node", "dest_compute", "dest_node"] { migration.object.load(field, "host2") }
        world.driver.set(.running, of: try request.instance.uuid)
        return request.with { $0["migration"] = migration.primitive }
    }

    @Test func `prep_resize makes the recorded calls`() async throws {
        let world = try World()
        let request = try message("prep_resize", world)
        try await world.send(request)
        #expect(
            world.journal.lines == [
                "event_start compute_prep_resize",
                "notify exists.",
                "notify resize_prep.start",
                "Instance.save ",
                "books claim resize",
                "Migration.save pre-migrating",
                "cast compute resize_instance 6.0",
                "notify resize_prep.end",
                "event_finish compute_prep_resize",
            ])
        let row = try #require(world.rows.row(try request.instance.uuid))
        #expect(row.fields["system_metadata"]?["old_vm_state"] == "active")
        #expect(row.fields["new_flavor"] == request.arguments["flavor"])
        let cast = try #require(world.rows.casts.first)
        #expect(cast.target == RPCTarget(topic: "compute", server: "host2", version: "6.0"))
        let recorded = try Recording.sample("rpc-compute-resize_instance")["args"]?.objectValue
        #expect(Set(cast.arguments.keys) == Set(try #require(recorded).keys))
    }

    @Test func `resize_instance makes the recorded calls`() async throws {
        let world = try World()
        try await world.send(try message("resize_instance", world))
        #expect(
            world.journal.lines == [
                "event_start compute_resize_instance",
                "network refresh all",
                "Migration.save migrating",
                "Instance.save[resize_prep] task_state=resize_migrating",
                "notify resize.start",
                "driver check_resize",
                "driver power_off 60",
                "driver begin_resize",
                "network activate host2",
                "Migration.save post-migrating",
                "Instance.save[resize_migrating] host=host2 node=host2 task_state=resize_migrated",
                "cast compute finish_resize 6.0",
                "notify resize.end",
                "event_finish compute_resize_instance",
            ])
        let cast = try #require(world.rows.casts.first)
        let recorded = try Recording.sample("rpc-compute-finish_resize")["args"]?.objectValue
        #expect(Set(cast.arguments.keys) == Set(try #require(recorded).keys))
    }

    @Test func `finish_resize makes the recorded calls`() async throws {
        let world = try World()
        let request = try message("finish_resize", world)
        try await world.send(request)
        #expect(
            world.journal.lines == [
                "event_start compute_finish_resize",
                "network bind host2",
                "network refresh all",
                "Instance.save[resize_migrated] task_state=resize_finish",
                "notify resize_finish.start",
                "driver finish_resize m1.small",
                "driver power_on",
                "Migration.save finished",
                "Instance.save[resize_finish] vm_state=resized task_state=null",
                "scheduler update",
                "notify resize_finish.end",
                "event_finish compute_finish_resize",
            ])
        let row = try #require(world.rows.row(try request.instance.uuid))
        #expect(row.fields["memory_mb"] == 2048 && row.fields["root_gb"] == 20 && row.fields["instance_type_id"] == 2)
        #expect(row.fields["old_flavor"]?["nova_object.data"]?["name"] == "m1.tiny")
        #expect(row.fields["flavor"]?["nova_object.data"]?["name"] == "m1.small")
    }

    @Test func `confirm_resize makes the recorded calls`() async throws {
        let world = try World()
        let request = try message("confirm_resize", world)
        try await world.send(request)
        #expect(
            world.journal.lines == [
                "event_start compute_confirm_resize",
                "Instance.get_by_uuid [\"metadata\", \"system_metadata\", \"flavor\"]",
                "notify resize_confirm.start",
                "network clear marks",
                "network refresh all",
                "driver confirm_resize",
                "books end resize confirmed",
                "Migration.save confirmed",
                "Instance.save[null,deleting,soft-deleting] vm_state=active task_state=null",
                "notify resize_confirm.end",
                "books drop allocations",
                "scheduler update",
                "Instance.save ",
                "event_finish compute_confirm_resize",
            ])
        let row = try #require(world.rows.row(try request.instance.uuid))
        #expect(row.fields["old_flavor"]?.isNull == true && row.fields["new_flavor"]?.isNull == true)
        #expect(row.fields["system_metadata"]?["old_vm_state"] == nil)
        #expect(row.fields["system_metadata"]?["boot_roles"] == "reader,member,admin")
    }

    @Test func `revert_resize and finish_revert_resize make the recorded calls`() async throws {
        let world = try World()
        let request = try message("revert_resize", world)
        try await world.send(request)
        #expect(
            world.journal.lines == [
                "event_start compute_revert_resize",
                "notify exists.",
                "network clear marks",
                "network activate host2",
                "network refresh all",
                "driver destroy",
                "books end resize reverted",
                "Migration.save reverted",
                "cast compute finish_revert_resize 6.0",
                "event_finish compute_revert_resize",
            ])
        let second = try World()
        let finish = try message("finish_revert_resize", second)
        try await second.send(finish)
        #expect(
            second.journal.lines == [
                "event_start compute_finish_revert_resize",
                "notify resize_revert.start",
                "Instance.save[resize_reverting] host=host2 node=host2",
                "books revert allocations",
                "network bind host2",
                "network refresh all",
                "driver revert_resize",
                "driver power_on",
                "Instance.drop_migration_context []",
                "Instance.save[resize_reverting] ",
                "Instance.save vm_state=active task_state=null",
                "notify resize_revert.end",
                "Instance.save ",
                "event_finish compute_finish_revert_resize",
            ])
        let row = try #require(second.rows.row(try finish.instance.uuid))
        #expect(row.fields["memory_mb"] == 512 && row.fields["root_gb"] == 1 && row.fields["instance_type_id"] == 1)
        #expect(row.fields["old_flavor"]?.isNull == true && row.fields["system_metadata"]?["old_vm_state"] == nil)
    }

    @Test func `a migration that is confirmed already, or never was finished, is left alone`() async throws {
        for status in ["confirmed", "error"] {
            let world = try World()
            let request = try message("confirm_resize", world)
            var migration = try Migration(primitive: request.arguments["migration"] ?? .null)
            migration.object.load("status", .string(status))
            let changed = migration
            try await world.send(request.with { $0["migration"] = changed.primitive })
            #expect(world.journal.lines == ["event_start compute_confirm_resize", "event_finish compute_confirm_resize"])
        }
    }

    // MARK: What goes wrong

    @Test func `a server of another host is refused in words, before anything is touched`() async throws {
        let world = try World()
        let request = try message("prep_resize", world)
        var instance = try request.instance
        instance.object.load("host", "host9")
        let foreign = instance
        world.rows.store(foreign)
        try await world.send(request.with { $0["instance"] = foreign.primitive })
        #expect(world.rows.row(foreign.uuid)?.states == ["active", "null"])
        #expect(world.rows.faults.count == 1)
        #expect(world.rows.faults.first?["message"]?.stringValue?.contains("cannot take servers over from another one") == true)
        #expect(world.journal.lines(of: "driver", "cast", "books claim").isEmpty)
        #expect(world.journal.count("books revert allocations") == 1)
        // The wrapper's.
        #expect(world.journal.count("Migration.save error") == 1)
    }

    @Test(arguments: ["resize_instance", "finish_resize", "revert_resize", "finish_revert_resize"])
    func `a step of a move between hosts is refused in words`(name: String) async throws {
        let world = try World()
        let request = try world.message(name)
        world.driver.set(.running, of: try request.instance.uuid)
        try await world.send(request)
        #expect(world.rows.faults.first?["message"]?.stringValue?.contains("moves no servers to or from other hosts") == true)
        #expect(world.journal.lines(of: "driver", "cast", "network", "books e").isEmpty)
    }

    @Test func `the flavor that it has already is refused`() async throws {
        let world = try World()
        let request = try message("prep_resize", world)
        try await world.send(request.with { $0["flavor"] = (try? request.instance.flavor)?.primitive })
        #expect(world.rows.faults.first?["message"]?.stringValue?.hasPrefix("Unable to migrate instance") == true)
        #expect(world.rows.row(try request.instance.uuid)?.states == ["active", "null"])
    }

    /// A claim that fails, in a message with another host to try.
    private func failedClaim(_ world: World) throws -> RPCRequest {
        world.books.behaviour["claim resize"] = {
            throw NovaException("ComputeResourcesUnavailable", "Insufficient compute resources")
        }
        let selection = Selection(in: .zed)
        return try message("prep_resize", world).with { $0["host_list"] = [selection.primitive] }
    }

    @Test func `a claim that fails is handed on where the scheduler named other hosts`() async throws {
        let world = try World()
        let request = try failedClaim(world)
        try await world.send(request)
        #expect(world.journal.lines.contains("call conductor migrate_server 1.20"))
        #expect(world.journal.count("books revert allocations") == 1)
        #expect(world.rows.row(try request.instance.uuid)?.states == ["active", "resize_prep"])
        #expect(world.rows.faults.count == 1)
        #expect(world.journal.lines.contains("notify resize.error"))
        #expect(world.rows.finishedEvents.last?.message == nil)
    }

    @Test func `where the conductor has no further host the server is as it was`() async throws {
        let world = try World()
        world.rows.fail("migrate_server", with: RemoteFailure(className: "MaxRetriesExceeded", message: "no more hosts"))
        let request = try failedClaim(world)
        try await world.send(request)
        let row = try #require(world.rows.row(try request.instance.uuid))
        #expect(row.states == ["active", "null"])
        #expect(row.fields["new_flavor"]?.isNull == true && row.fields["system_metadata"]?["old_vm_state"] == nil)
        #expect(world.rows.finishedEvents.last?.message?.contains("Insufficient") == true)
    }

    @Test func `a message that comes late changes no server`() async throws {
        let world = try World()
        let request = try message("finish_resize", world)
        let uuid = try request.instance.uuid
        // The first one was carried out.
        world.rows.set("task_state", .null, of: uuid)
        world.rows.set("vm_state", "resized", of: uuid)
        try await world.send(request)
        #expect(world.rows.row(uuid)?.states == ["resized", "null"])
        #expect(world.journal.lines(of: "driver", "books").isEmpty)
    }

    @Test func `a delete during the last step takes the migration's allocations along`() async throws {
        let world = try World()
        let request = try message("finish_resize", world)
        let uuid = try request.instance.uuid
        world.rows.set("task_state", "deleting", of: uuid)
        try await world.send(request)
        #expect(world.rows.row(uuid)?.states == ["active", "deleting"])
        #expect(world.journal.lines(of: "driver", "books") == ["books drop allocations"])
    }

    @Test func `a record that cannot be written at the end leaves the new size and a server in error`() async throws {
        let world = try World()
        let request = try message("finish_resize", world)
        let uuid = try request.instance.uuid
        world.driver.behaviour["power_on"] = { [rows = world.rows] in
            rows.fail("Migration.save", with: MessagingTimeout(method: "object_action", seconds: 60))
        }
        try await world.send(request)
        #expect(world.rows.row(uuid)?.states == ["error", "null"])
        #expect(world.rows.row(uuid)?.fields["memory_mb"] == 2048)
        #expect(world.journal.lines(of: "driver") == ["driver finish_resize m1.small", "driver power_on", "driver confirm_resize"])
        #expect(world.journal.lines(of: "books d", "books e", "books r") == ["books drop allocations"])
    }

    @Test func `a revert that fails ends in error`() async throws {
        let world = try World()
        let request = try message("finish_revert_resize", world)
        world.driver.behaviour["power_on"] = { throw DriverFault.powerOff }
        try await world.send(request)
        #expect(world.rows.row(try request.instance.uuid)?.states == ["error", "null"])
        #expect(world.rows.faults.count == 1)
        #expect(world.journal.count("Migration.save error") == 1)
    }
}
