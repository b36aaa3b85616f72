// Every row of the table that says what becomes of a build that fails, and the ends of a build that nobody waits for any more.
import Compute
import ComputeDriver
import Glance
import JSON
import NovaObjects
import OpenStackHTTP
import OsloMessaging
import Testing

@Suite struct BuildFailureTests {
    static let withoutRetry: @Sendable (inout [String: JSONValue]) -> Void = { $0["filter_properties"] = [:] }

    @Test(arguments: BuildFailure.aborting.sorted())
    func `this class aborts the build`(name: String) async throws {
        let world = try World()
        let request = try world.message("build_and_run_instance")
        world.driver.behaviour["spawn"] = { throw NovaException(name, "the reason") }
        try await world.send(request)
        let uuid = try request.instance.uuid
        #expect(world.rows.row(uuid)?.states == ["error", "null"])
        #expect(world.rows.row(uuid)?.fields["host"] == .null)
        #expect(world.rows.casts.isEmpty)
        let fault = try #require(world.rows.faults.first)
        #expect(world.rows.faults.count == 1)
        #expect(fault["message"]?.stringValue?.contains("the reason") == true)
        #expect(world.rows.finishedEvents.last?.message?.contains("the reason") == true)
        #expect(
            world.journal.lines(of: "driver", "books", "network deallocate", "notify create", "InstanceFault").suffix(8) == [
                "driver spawn", "driver destroy", "books abort claim", "notify create.error", "network deallocate",
                "InstanceFault.create 500", "books delete allocations", "books build false",
            ])
    }

    @Test(arguments: ["NovaException", "ComputeResourcesUnavailable", "ImageNotFound", "InstanceExists"])
    func `any other class hands the build on`(name: String) async throws {
        let world = try World()
        let request = try world.message("build_and_run_instance")
        world.driver.behaviour["spawn"] = { throw NovaException(name, "the reason") }
        try await world.send(request)
        let cast = try #require(world.rows.casts.first)
        #expect(cast.method == "build_instances")
        #expect(cast.target == RPCTarget(topic: "conductor", namespace: "compute_task", version: "1.19"))
        #expect(
            Set(cast.arguments.keys) == [
                "instances", "image", "filter_properties", "admin_password", "injected_files", "requested_networks",
                "security_groups", "request_spec", "host_lists",
            ])
        #expect(cast.arguments["host_lists"] == .array([request.arguments["host_list"] ?? .null]))
        #expect(cast.arguments["filter_properties"]?["retry"]?["exc_reason"] == "the reason")
        let uuid = try request.instance.uuid
        #expect(world.rows.row(uuid)?.fields["task_state"] == "scheduling")
        #expect(world.rows.row(uuid)?.fields["availability_zone"] == .null)
        #expect(world.rows.row(uuid)?.fields["system_metadata"]?["network_allocated"] == "False")
        #expect(world.rows.faults.isEmpty)
        // The action goes on elsewhere: it has not failed.
        #expect(world.rows.finishedEvents.last?.message == nil)
        #expect(world.journal.index(of: "books delete allocations") ?? 0 < world.journal.index(of: "cast") ?? 0)
        #expect(world.journal.count("books build false") == 1)
    }

    @Test func `without retry a build that could go elsewhere ends here`() async throws {
        let world = try World()
        let request = try world.message("build_and_run_instance").with(Self.withoutRetry)
        world.driver.behaviour["spawn"] = { throw NovaException("NovaException", "the reason") }
        try await world.send(request)
        #expect(world.rows.row(try request.instance.uuid)?.states == ["error", "null"])
        #expect(world.rows.faults.count == 1)
        #expect(world.journal.count("books delete allocations") == 1)
    }

    @Test func `a refusal by group policy counts against nobody`() async throws {
        let world = try World()
        let request = try world.message("build_and_run_instance").with(Self.withoutRetry)
        world.books.behaviour["claim"] = { throw NovaException("GroupAffinityViolation", "anti-affinity") }
        try await world.send(request)
        #expect(world.rows.row(try request.instance.uuid)?.states == ["error", "null"])
        #expect(world.journal.count("books build") == 0)
        #expect(world.journal.count("books delete allocations") == 0)
    }

    @Test func `no resources: nothing was claimed, nothing is given back`() async throws {
        let world = try World()
        let request = try world.message("build_and_run_instance")
        world.books.behaviour["claim"] = { throw NovaException("ComputeResourcesUnavailable", "no memory") }
        try await world.send(request)
        #expect(world.journal.count("books abort claim") == 0)
        #expect(world.journal.count("network allocate") == 0)
        #expect(world.rows.casts.count == 1)
    }

    @Test func `a port that cannot be bound aborts, with the port in the fault`() async throws {
        let world = try World()
        let request = try world.message("build_and_run_instance")
        world.network.behaviour["allocate"] = {
            throw NovaException("PortBindingFailed", "Binding failed for port \(RecordingNetwork.portID)")
        }
        try await world.send(request)
        let fault = try #require(world.rows.faults.first?["message"]?.stringValue)
        #expect(fault.contains("Failed to allocate the network(s), not rescheduling"))
        #expect(fault.contains(RecordingNetwork.portID))
        #expect(world.journal.count("driver spawn") == 0)
        #expect(world.journal.count("books abort claim") == 1)
    }

    @Test(arguments: ["InstanceNotFound", "UnexpectedDeletingTaskStateError"])
    func `an instance that disappeared leaves no fault`(name: String) async throws {
        let world = try World()
        let request = try world.message("build_and_run_instance")
        world.driver.behaviour["spawn"] = { throw NovaException(name, "gone") }
        try await world.send(request)
        #expect(world.rows.faults.isEmpty)
        #expect(world.rows.casts.isEmpty)
        #expect(world.journal.count("network deallocate") == 1)
        #expect(world.journal.count("books delete allocations") == 1)
        #expect(world.journal.count("driver destroy") == 1)
    }

    @Test func `a build that somebody else has taken is left alone`() async throws {
        let world = try World()
        let request = try world.message("build_and_run_instance")
        world.rows.set("task_state", "rebuilding", of: try request.instance.uuid)
        try await world.send(request)
        #expect(world.rows.faults.isEmpty)
        #expect(world.journal.count("books claim") == 0)
        #expect(world.journal.count("books delete allocations") == 1)
    }

    @Test func `boot from volume is refused in words`() async throws {
        let world = try World()
        let request = try world.message("build_and_run_instance-boot-from-volume")
        try await world.send(request)
        #expect(world.rows.faults.first?["message"]?.stringValue?.contains("boot the server from an image") == true)
        #expect(world.journal.count("books claim") == 0)
        #expect(world.journal.count("network allocate") == 0)
    }

    @Test func `files that are no base64 abort`() async throws {
        let world = try World()
        let request = try world.message("build_and_run_instance").with {
            $0["injected_files"] = [["/etc/motd", "?"]]
        }
        try await world.send(request)
        #expect(world.rows.faults.first?["message"]?.stringValue?.contains("/etc/motd") == true)
    }

    @Test func `a failure after the guest runs removes it`() async throws {
        let world = try World()
        let request = try world.message("build_and_run_instance")
        let uuid = try request.instance.uuid
        let rows = world.rows
        world.driver.behaviour["spawn"] = { rows.set("task_state", "deleting", of: uuid) }
        try await world.send(request)
        #expect(world.journal.count("driver destroy") == 1)
        #expect(world.rows.faults.isEmpty)
    }

    @Test func `an image whose checksum is wrong aborts and says so`() async throws {
        let world = try World()
        let request = try world.message("build_and_run_instance")
        world.glance.behaviour["download"] = { throw ImageCorrupt(imageID: "i", reason: "sha512 is other") }
        world.driver.behaviour["spawn"] = { [driver = world.driver] in
            guard let spawn = driver.spawned.last else { return }
            _ = try await spawn.fetchImage(spawn.image["id"]?.stringValue ?? "", -1)
        }
        try await world.send(request)
        let message = try #require(world.rows.faults.first?["message"]?.stringValue)
        #expect(message.contains("unacceptable") && message.contains("sha512 is other"))
    }

    @Test func `an expired token is replaced by the service's own`() async throws {
        let world = try World()
        let request = try world.message("build_and_run_instance")
        world.glance.behaviour["download"] = {
            throw ServiceFault(kind: .status(401), request: "GET", service: "image")
        }
        world.driver.behaviour["spawn"] = { [driver = world.driver] in
            guard let spawn = driver.spawned.last else { return }
            _ = try await spawn.fetchImage(spawn.image["id"]?.stringValue ?? "", -1)
        }
        try await world.send(request)
        #expect(world.rows.row(try request.instance.uuid)?.states == ["active", "null"])
        #expect(world.journal.lines(of: "glance download") == ["glance download user", "glance download service"])
    }

    @Test func `a tenant reads no path of the host`() async throws {
        let world = try World()
        let request = try world.message("build_and_run_instance").with(Self.withoutRetry)
        world.driver.behaviour["spawn"] = {
            throw DriverError(
                tenantMessage: "The compute host has no space left", operatorMessage: "write /var/lib/nova/x: ENOSPC",
                fault: .host)
        }
        try await world.send(request)
        let fault = try #require(world.rows.faults.first)
        #expect(fault["message"]?.stringValue?.contains("no space left") == true)
        #expect(fault["message"]?.stringValue?.contains("/var") == false)
        #expect(fault["details"]?.stringValue?.contains("ENOSPC") == true)
    }
}
