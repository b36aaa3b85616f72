// The method table against the recordings, and what the endpoint makes of messages that are not as they should be.
import Compute
import ComputeDriver
import JSON
import NovaObjects
import OsloMessaging
import Testing

@Suite struct MethodTableTests {
    @Test func `the table has the methods of the API, each once`() {
        #expect(RPCMethodTable.all.count == 74)
        #expect(RPCMethodTable.byName.count == 74)
        #expect(RPCMethodTable.all.filter(\.isCarriedOut).count == 33)
    }

    @Test func `Zed's server has no method that came later`() throws {
        #expect(try !World().endpoint.methods.contains("allow_share"))
        let newest = try #require(ReleaseProfile.named("hibiscus"))
        let endpoint = try World(profile: newest).endpoint
        #expect(endpoint.version == "6.5" && endpoint.methods.contains("allow_share"))
    }

    @Test(arguments: Recording.computeNames) func `a recorded message is read`(name: String) throws {
        let sample = try Recording.sample(name)
        let method = try #require(RPCMethodTable.byName[sample["method"]?.stringValue ?? ""])
        let arguments = try #require(sample["args"]?.objectValue)
        _ = try ArgumentReader(arguments, of: method)
        #expect((method.delivery == .cast) == (sample["kind"] == "cast"))
        let known = Set(method.arguments.map(\.name))
        #expect(known.isSuperset(of: arguments.keys))
        // Every argument that is needed is one that is checked.
        for argument in method.arguments where !argument.isOptional {
            #expect(throws: NovaException.self) {
                _ = try ArgumentReader(arguments.filter { $0.key != argument.name }, of: method)
            }
            guard argument.kind != .any else { continue }
            var wrong = arguments
            wrong[argument.name] = .double(0.5)
            #expect(throws: NovaException.self) { _ = try ArgumentReader(wrong, of: method) }
        }
    }

    @Test func `a message that cannot be used is an error of that message`() async throws {
        let world = try World()
        let stop = try world.message("stop_instance")
        let bad: [(JSONValue?, String)] = [
            (nil, "TypeError"), ("text", "TypeError"),
            (VersionedObject(name: "Flavor", version: "1.2").primitive, "TypeError"),
            (VersionedObject(name: "Instance", version: "3.0").primitive, "IncompatibleObjectVersion"),
        ]
        for (instance, expected) in bad {
            let request = stop.with { $0["instance"] = instance }
            let failure = await #expect(throws: RemoteFailure.self) { try await world.endpoint.dispatch(request) }
            #expect(failure?.className == expected)
        }
        #expect(world.journal.lines.isEmpty)
    }

    @Test func `a method that is not carried out leaves the server usable, with an event that says why`() async throws {
        let world = try World()
        let request = try world.message("set_admin_password")
        let uuid = try request.instance.uuid
        let failure = await #expect(throws: RemoteFailure.self) { try await world.endpoint.dispatch(request) }
        #expect(failure?.className == "NotImplementedError" && failure?.module == "builtins")
        let row = try #require(world.rows.row(uuid))
        #expect(row.states == ["active", "null"])
        #expect(world.rows.finishedEvents.last?.message?.contains("set_admin_password is not available") == true)
        #expect(world.rows.faults.first?["message"]?.stringValue?.contains("not available") == true)
        #expect(world.journal.lines.last == "notify exception set_admin_password NotImplementedError false")
    }

    @Test func `its task is cleared only where it is still the message's`() async throws {
        let world = try World()
        let request = try world.message("set_admin_password")
        let uuid = try request.instance.uuid
        world.rows.set("task_state", "deleting", of: uuid)
        _ = await #expect(throws: RemoteFailure.self) { try await world.endpoint.dispatch(request) }
        #expect(world.rows.row(uuid)?.fields["task_state"] == "deleting")
    }

    @Test(arguments: RPCMethodTable.all.filter { !$0.isCarriedOut }.map(\.name))
    func `every method that is not carried out says so`(name: String) async throws {
        let world = try World(profile: try #require(ReleaseProfile.named("hibiscus")))
        let sample = Recording.computeNames.first { $0.hasSuffix("-" + name) }
        guard let sample else { return }
        let request = try world.message(String(sample.dropFirst("rpc-compute-".count)))
        let failure = await #expect(throws: RemoteFailure.self) { try await world.endpoint.dispatch(request) }
        #expect(failure?.message.contains("not available on this compute host") == true)
        #expect(world.journal.lines(of: "driver").isEmpty)
        if name.hasPrefix("check_can_live_migrate") { #expect(failure?.className == "MigrationPreCheckError") }
    }

    @Test func `a password is not told in a notification`() async throws {
        let world = try World()
        let request = try world.message("set_admin_password")
        _ = await #expect(throws: RemoteFailure.self) { try await world.endpoint.dispatch(request) }
        #expect(world.journal.lines.last == "notify exception set_admin_password NotImplementedError false")
    }

    @Test func `the host's methods`() async throws {
        let world = try World()
        #expect(try await world.endpoint.dispatch(try world.message("get_host_uptime")) == "up 1 day")
        for isEnabled in [true, false] {
            let request = try world.message("set_host_enabled").with { $0["enabled"] = .bool(isEnabled) }
            #expect(try await world.endpoint.dispatch(request) == (isEnabled ? "enabled" : "disabled"))
        }
        #expect(world.journal.lines == ["books enabled true", "books enabled false"])
    }

    @Test func `baseapi answers a ping`() async throws {
        let request = RPCRequest(
            method: "ping", arguments: ["arg": "x"], namespace: "baseapi", version: "1.0", context: RequestContext(),
            isCall: true)
        #expect(try await BaseEndpoint().dispatch(request) == ["service": "compute", "arg": "x"])
    }

    @Test func `a control plane pinned to 5.x is understood`() async throws {
        let world = try World()
        let endpoints = ComputeEndpoint.all(world.manager)
        #expect(endpoints.map(\.version) == ["6.1", "1.1", "5.13"])
        var pinned = try world.message("prep_resize").with {
            $0["instance_type"] = $0["flavor"]
            $0["flavor"] = nil
        }
        pinned.version = "5.13"
        let request = pinned
        let endpoint: any RPCEndpoint = endpoints[2]
        try await world.running { _ = try await endpoint.dispatch(request) }
        #expect(world.rows.casts.map(\.method) == ["resize_instance"])
        #expect(world.rows.casts.first?.arguments["flavor"] == request.arguments["instance_type"])
    }

    @Test func `codes are those of Nova's classes`() {
        for (name, code) in [
            ("InstanceNotFound", 404), ("ImageUnacceptable", 400), ("NovaException", 500), ("OverQuota", 413),
            ("InstanceInvalidState", 400), ("BuildAbortException", 500), ("PortInUse", 400), ("Forbidden", 403),
        ] {
            #expect(NovaException(name, "").code == code)
            #expect(NovaException(name, "").failure.keywords["code"] == .integer(Int64(code)))
            #expect(NovaException(NovaException(name, "words").failure).code == code)
        }
    }
}
