// rescue, rebuild, snapshot, backup, shelve, soft delete: the order of calls against the recordings, and what failures leave.
// Differences to the recordings as in SequenceTests, and: the image's schema is not read, which Glance's Python client does for itself.
import Compute
import ComputeDriver
import JSON
import NovaObjects
import OpenStackHTTP
import OsloMessaging
import ServiceConfiguration
import Testing

@Suite struct ImageOperationTests {
    private func world(_ state: PowerState, _ name: String, method: String? = nil) throws -> (World, RPCRequest, String) {
        let world = try World()
        let request = try world.message(name, method: method)
        let uuid = try request.instance.uuid
        world.driver.set(state, of: uuid)
        return (world, request, uuid)
    }

    /// Without what is loaded on the way, which depends on what the message carries.
    private func steps(_ world: World) -> [String] { world.journal.lines.filter { !$0.hasPrefix("Instance.get_by_uuid") } }

    @Test func `a rescue powers off, boots the other image and says so`() async throws {
        let (world, request, uuid) = try world(.running, "rescue_instance")
        try await world.send(request)
        #expect(
            steps(world) == [
                "event_start compute_rescue_instance", "network refresh all", "glance image", "notify rescue.start",
                "driver power_off 60", "driver rescue",
                "Instance.save[rescuing] vm_state=rescued task_state=null power_state=1", "notify rescue.end",
                "event_finish compute_rescue_instance",
            ])
        #expect(world.rows.row(uuid)?.states == ["rescued", "null"])
        let order = try #require(world.driver.spawned.first)
        #expect(order.image["id"]?.stringValue == order.instance.imageRef, "the record names what is booted")
    }

    @Test func `a rescue that fails leaves an error in Nova's words`() async throws {
        let (world, request, uuid) = try world(.running, "rescue_instance")
        world.driver.behaviour["rescue"] = { throw DriverError(tenantMessage: "the image is cut", fault: .peer) }
        try await world.send(request)
        #expect(world.rows.row(uuid)?.states == ["error", "null"])
        #expect(world.rows.faults.last?["message"]?.stringValue?.contains("cannot be rescued: Driver Error: the image is cut") == true)
    }

    @Test func `an unrescue starts the server as it was`() async throws {
        let (world, request, uuid) = try world(.running, "unrescue_instance")
        try await world.send(request)
        #expect(steps(world).contains("driver unrescue"))
        #expect(steps(world).contains("Instance.save[unrescuing] vm_state=active task_state=null power_state=1"))
        #expect(world.rows.row(uuid)?.states == ["active", "null"])
    }

    @Test func `a rebuild replaces the machine and keeps its ports`() async throws {
        let (world, request, uuid) = try world(.running, "rebuild_instance")
        try await world.send(request)
        #expect(
            steps(world) == [
                "event_start compute_rebuild_instance", "glance image", "notify rebuild.start",
                "Instance.save[rebuilding] task_state=rebuilding power_state=1", "driver power_off 60", "driver destroy",
                "Instance.save[rebuilding] task_state=rebuild_block_device_mapping",
                "Instance.save[rebuild_block_device_mapping] task_state=rebuild_spawning", "driver spawn",
                "Instance.save[rebuild_spawning] vm_state=active task_state=null power_state=1", "scheduler update",
                "notify rebuild.end", "Instance.save host=host2 node=node", "event_finish compute_rebuild_instance",
            ])
        #expect(world.rows.row(uuid)?.states == ["active", "null"])
        #expect(world.journal.count("network deallocate") == 0)
    }

    @Test func `a server that was stopped is stopped after its rebuild`() async throws {
        let (world, request, uuid) = try world(.shutdown, "rebuild_instance")
        var stopped = try request.instance
        stopped.vmState = "stopped"
        world.rows.set("vm_state", "stopped", of: uuid)
        try await world.send(request.with { $0["instance"] = stopped.primitive })
        #expect(world.rows.row(uuid)?.states == ["stopped", "null"])
        #expect(world.driver.state(of: uuid) == .shutdown)
    }

    @Test func `a rebuild that fails removes what it made and leaves an error`() async throws {
        let (world, request, uuid) = try world(.running, "rebuild_instance")
        world.driver.behaviour["spawn"] = { throw DriverError(tenantMessage: "no room", fault: .host) }
        try await world.send(request)
        #expect(world.rows.row(uuid)?.states == ["error", "null"])
        #expect(steps(world).filter { $0 == "driver destroy" }.count == 2)
        #expect(world.driver.state(of: uuid) == nil)
        #expect(steps(world).contains { $0.hasPrefix("notify rebuild.error") })
    }

    @Test func `an evacuation is refused and the server untouched`() async throws {
        let (world, request, uuid) = try world(.running, "rebuild_instance")
        try await world.send(request.with { $0["recreate"] = true })
        #expect(world.driver.state(of: uuid) == .running)
        #expect(world.rows.faults.last?["message"]?.stringValue == "Instance evacuate is not supported.")
    }

    @Test func `a snapshot makes the recorded calls`() async throws {
        let (world, request, uuid) = try world(.running, "snapshot_instance")
        try await world.send(request)
        #expect(
            steps(world) == [
                "event_start compute_snapshot_instance", "Instance.save[image_snapshot_pending] task_state=image_snapshot",
                "Instance.save power_state=1", "notify snapshot.start",
                "Instance.save[image_snapshot] task_state=image_pending_upload", "driver snapshot qcow2",
                "Instance.save[image_pending_upload] task_state=image_uploading",
                "glance update container_format,disk_format,image_location,image_state,owner_id", "glance upload 512",
                "driver snapshot removed", "Instance.save[image_uploading] task_state=null", "notify snapshot.end",
                "event_finish compute_snapshot_instance",
            ])
        #expect(world.rows.row(uuid)?.states == ["active", "null"])
    }

    @Test func `a snapshot that cannot be uploaded leaves no image and a usable server`() async throws {
        let (world, request, uuid) = try world(.running, "snapshot_instance")
        world.glance.behaviour["upload"] = {
            throw ServiceFault(kind: .status(507), request: "PUT", service: "image", body: "no space")
        }
        world.glance.behaviour["image is queued"] = {}
        try await world.send(request)
        #expect(world.rows.row(uuid)?.states == ["active", "null"])
        #expect(world.driver.state(of: uuid) == .running)
        #expect(world.journal.count("glance delete") == 1)
        #expect(world.rows.faults.count == 1)
    }

    @Test func `a backup deletes the oldest beyond its rotation`() async throws {
        let (world, snapshot, uuid) = try world(.running, "snapshot_instance", method: "backup_instance")
        world.rows.set("task_state", "image_backup", of: uuid)
        var instance = try snapshot.instance
        instance.object.load("task_state", "image_backup")
        let request = snapshot.with {
            $0["backup_type"] = "daily"
            $0["rotation"] = 2
            $0["instance"] = instance.primitive
        }
        try await world.send(request)
        #expect(world.rows.row(uuid)?.states == ["active", "null"])
        #expect(steps(world).contains("glance images image_type=backup,backup_type=daily,instance_uuid=\(uuid)"))
        #expect(world.journal.lines(of: "glance delete") == ["glance delete backup-3"])
    }

    @Test func `a shelve with no time to stay offloads at once`() async throws {
        let (world, request, uuid) = try world(.running, "shelve_instance")
        try await world.send(request)
        let row = try #require(world.rows.row(uuid))
        #expect(row.states == ["shelved_offloaded", "null"])
        #expect(row.fields["host"]?.isNull == true && row.fields["node"]?.isNull == true)
        #expect(row.fields["system_metadata"]?["shelved_image_id"]?.stringValue == request.arguments["image_id"]?.stringValue)
        let steps = steps(world)
        let order = ["driver power_off 60", "driver snapshot qcow2", "glance upload 512", "notify shelve.end", "driver destroy",
            "books delete allocations", "notify shelve_offload.end"]
        #expect(steps.filter(order.contains) == order)
        #expect(world.journal.count("network deallocate") == 0, "a shelved server keeps its ports")
    }

    @Test func `a shelve with time to stay keeps the host`() async throws {
        let world = try World { $0.compute.shelvedOffloadTime = .seconds(3600) }
        let request = try world.message("shelve_instance")
        let uuid = try request.instance.uuid
        world.driver.set(.running, of: uuid)
        try await world.send(request)
        #expect(world.rows.row(uuid)?.states == ["shelved", "null"])
        #expect(world.driver.state(of: uuid) == .shutdown)
    }

    @Test func `an unshelve makes the machine from the shelved image and removes it`() async throws {
        let (world, request, uuid) = try world(.running, "unshelve_instance")
        world.driver.set(nil, of: uuid)
        try await world.send(request)
        let row = try #require(world.rows.row(uuid))
        #expect(row.states == ["active", "null"])
        #expect(row.fields["system_metadata"]?["shelved_image_id"] == nil)
        let order = ["books claim", "network bind", "network refresh all", "driver spawn", "notify unshelve.end"]
        #expect(steps(world).filter(order.contains) == order)
        #expect(world.journal.count("glance delete") == 1)
        #expect(world.driver.spawned.first?.image["id"]?.stringValue == request.arguments["image"]?["id"]?.stringValue)
    }

    @Test func `an unshelve that fails gives the host back`() async throws {
        let (world, request, uuid) = try world(.running, "unshelve_instance")
        world.driver.set(nil, of: uuid)
        world.driver.behaviour["spawn"] = { throw DriverError(tenantMessage: "no room", fault: .host) }
        try await world.send(request)
        #expect(world.journal.lines.contains("books abort claim"))
        #expect(world.journal.lines.contains("books delete allocations"))
        #expect(world.journal.count("glance delete") == 0, "the image is all that is left of the server")
        #expect(world.rows.faults.last?["message"]?.stringValue == "no room")
    }

    @Test func `a suspend makes the recorded calls`() async throws {
        let (world, request, uuid) = try world(.running, "suspend_instance")
        try await world.send(request)
        #expect(
            steps(world) == [
                "event_start compute_suspend_instance", "notify suspend.start", "driver suspend",
                "Instance.save[suspending] vm_state=suspended task_state=null power_state=7", "notify suspend.end",
                "event_finish compute_suspend_instance",
            ])
        #expect(world.rows.row(uuid)?.fields["system_metadata"]?["old_vm_state"] == "active")
    }

    @Test(arguments: ["active", "paused"]) func `a resume goes back to the state of before`(before: String) async throws {
        let (world, request, uuid) = try world(.suspended, "resume_instance")
        var instance = try request.instance
        var metadata = instance.systemMetadata
        metadata["old_vm_state"] = before
        instance.object.load("system_metadata", .object(metadata.mapValues { .string($0) }))
        world.rows.set("system_metadata", .object(metadata.mapValues { .string($0) }), of: uuid)
        try await world.send(request.with { $0["instance"] = instance.primitive })
        let row = try #require(world.rows.row(uuid))
        #expect(row.states == [before, "null"])
        #expect(row.fields["system_metadata"]?["old_vm_state"] == nil)
        #expect(world.driver.state(of: uuid) == (before == "paused" ? .paused : .running))
    }

    @Test func `a suspend that fails leaves the server running`() async throws {
        let (world, request, uuid) = try world(.running, "suspend_instance")
        world.driver.behaviour["suspend"] = { throw DriverError(tenantMessage: "no space left", fault: .host) }
        try await world.send(request)
        #expect(world.rows.row(uuid)?.states == ["active", "null"])
        #expect(world.rows.faults.last?["message"]?.stringValue == "no space left")
    }

    @Test func `a soft-deleted server is off and can be restored`() async throws {
        let (world, stop, uuid) = try world(.running, "stop_instance", method: "soft_delete_instance")
        world.rows.set("task_state", "soft-deleting", of: uuid)
        try await world.send(stop)
        #expect(world.rows.row(uuid)?.states == ["soft-delete", "null"])
        #expect(world.driver.state(of: uuid) == .shutdown)

        let second = try World()
        var restore = try second.message("start_instance", method: "restore_instance")
        let other = try restore.instance.uuid
        second.driver.set(.shutdown, of: other)
        second.rows.set("task_state", "restoring", of: other)
        restore.arguments["instance"] = try restore.instance.primitive
        try await second.send(restore)
        #expect(second.rows.row(other)?.states == ["active", "null"])
        #expect(second.driver.state(of: other) == .running)
    }
}
