// A resize from its first message to its end: the record, the machine, what the host counts and what Placement holds.
import Compute
import ComputeDriver
import JSON
import NovaObjects
import OsloMessaging
import Testing

@Suite struct ResizeTests {
    private typealias Size = NullDriver.Size
    private let tinySize = Size(memoryMiB: 256, vcpus: 1), smallSize = Size(memoryMiB: 512, vcpus: 2)

    /// As before the resize, in every book.
    private func expectTiny(
        _ world: ResizeWorld, vmState: String = "active", power: PowerState = .running, _ location: SourceLocation = #_sourceLocation
    ) async throws {
        let instance = try world.instance
        #expect(instance.vmState == vmState && instance.taskState == nil, sourceLocation: location)
        #expect(instance.flavor?.name == "m1.tiny" && instance.memoryMiB == 256 && instance.rootGiB == 1, sourceLocation: location)
        #expect(instance.instanceTypeID == 1, sourceLocation: location)
        expectNothingStashed(instance, location)
        let sizes = try #require(world.driver.sizes(of: world.uuid), sourceLocation: location)
        #expect(sizes.now == tinySize && sizes.kept == nil, sourceLocation: location)
        #expect(try await world.driver.powerState(of: world.uuid) == power, sourceLocation: location)
        #expect(world.allocations == [world.uuid: ResizeWorld.amounts(world.tiny)], sourceLocation: location)
        try await expectUsage(world, memoryMiB: 256, vcpus: 1, location)
    }

    private func expectNothingStashed(_ instance: Instance, _ location: SourceLocation) {
        #expect(instance.oldFlavor == nil && instance.newFlavor == nil, sourceLocation: location)
        #expect(instance.migrationContext == nil, sourceLocation: location)
        #expect(instance.systemMetadata == ["image_base_image_ref": "6c31e66c"], sourceLocation: location)
    }

    /// What is counted now, and what an audit counts from nothing.
    private func expectUsage(
        _ world: ResizeWorld, memoryMiB: Int, vcpus: Int, _ location: SourceLocation = #_sourceLocation
    ) async throws {
        #expect(world.usedMemoryMiB == memoryMiB && world.usedVCPUs == vcpus, "counted", sourceLocation: location)
        try await world.tracker.audit(isStartup: false, context: .administrator())
        #expect(world.usedMemoryMiB == memoryMiB && world.usedVCPUs == vcpus, "audited", sourceLocation: location)
    }

    @Test func `a resize waits for its user with both sizes counted, and ends with his word`() async throws {
        let world = try await ResizeWorld()
        defer { world.cleanUp() }
        try await world.running {
            try await world.resize(to: world.small)
            var instance = try world.instance
            #expect(instance.vmState == "resized" && instance.taskState == nil)
            #expect(instance.flavor?.name == "m1.small" && instance.oldFlavor?.name == "m1.tiny" && instance.memoryMiB == 512)
            #expect(instance.migrationContext?.migrationID == 7)
            #expect(instance.launchedAt != nil && instance.host == "host1")
            #expect(try world.migration.status == "finished")
            #expect(world.driver.sizes(of: world.uuid)?.now == smallSize && world.driver.sizes(of: world.uuid)?.kept == tinySize)
            #expect(try await world.driver.powerState(of: world.uuid) == .running)
            #expect(
                world.allocations == [
                    world.uuid: ResizeWorld.amounts(world.small), ResizeWorld.migrationUUID: ResizeWorld.amounts(world.tiny),
                ])
            try await expectUsage(world, memoryMiB: 256 + 512, vcpus: 3)

            try await world.confirm()
            instance = try world.instance
            #expect(instance.vmState == "active" && instance.taskState == nil && instance.flavor?.name == "m1.small")
            expectNothingStashed(instance, #_sourceLocation)
            #expect(try world.migration.status == "confirmed")
            #expect(world.driver.sizes(of: world.uuid)?.now == smallSize && world.driver.sizes(of: world.uuid)?.kept == nil)
            #expect(world.allocations == [world.uuid: ResizeWorld.amounts(world.small)])
            try await expectUsage(world, memoryMiB: 512, vcpus: 2)
            #expect(world.database.read { $0.faults }.isEmpty)
        }
    }

    @Test func `a revert brings everything back`() async throws {
        let world = try await ResizeWorld()
        defer { world.cleanUp() }
        try await world.running {
            try await world.resize(to: world.small)
            try await world.revert()
            #expect(try world.migration.status == "reverted")
            try await expectTiny(world)
            #expect(world.database.read { $0.faults }.isEmpty)
        }
    }

    @Test func `a claim is counted from its first moment`() async throws {
        let world = try await ResizeWorld()
        defer { world.cleanUp() }
        try await world.running {
            try await world.resize(to: world.small)
            // Without an audit in between, from the claim to the confirmation.
            #expect(world.usedMemoryMiB == 768)
            try await world.confirm()
            #expect(world.usedMemoryMiB == 512)
        }
    }

    @Test func `a stopped server stays off, through resize, confirm and revert`() async throws {
        for confirms in [true, false] {
            let world = try await ResizeWorld(vmState: "stopped")
            defer { world.cleanUp() }
            try await world.running {
                try await world.resize(to: world.small)
                #expect(try world.instance.vmState == "resized")
                #expect(try await world.driver.powerState(of: world.uuid) == .shutdown)
                guard confirms else {
                    try await world.revert()
                    return try await expectTiny(world, vmState: "stopped", power: .shutdown)
                }
                try await world.confirm()
                #expect(try world.instance.vmState == "stopped")
                #expect(world.driver.sizes(of: world.uuid)?.now == smallSize)
            }
        }
    }

    @Test func `a smaller disk is refused in words while the guest runs on`() async throws {
        let world = try await ResizeWorld()
        defer { world.cleanUp() }
        var flavor = world.tiny
        flavor.object.load("id", 3)
        flavor.object.load("root_gb", 0)
        let smaller = flavor
        try await world.running {
            try await world.resize(to: smaller)
            try await expectTiny(world)
        }
        #expect(world.database.read { $0.faults }.first?.contains("a disk cannot become smaller") == true)
        #expect(try world.migration.status == "error")
        #expect(!world.driver.calls.contains { $0.operation == .powerOff })
    }

    @Test(arguments: [NullDriver.Operation.powerOff, .beginResize, .finishResize, .powerOn, .checkResize])
    func `what fails on the host brings the old machine back`(operation: NullDriver.Operation) async throws {
        let world = try await ResizeWorld()
        defer { world.cleanUp() }
        world.driver.fail(
            operation,
            with: DriverError(
                novaClass: "ComputeResourcesUnavailable", tenantMessage: "no space", operatorMessage: "ENOSPC at /var", fault: .host))
        try await world.running {
            try await world.resize(to: world.small)
            try await expectTiny(world)
        }
        #expect(world.database.read { $0.faults } == ["no space"])
        #expect(try world.migration.status == "error")
    }

    @Test(arguments: ["refresh", "activate", "bind"]) func `so does what fails in the network`(name: String) async throws {
        let world = try await ResizeWorld()
        defer { world.cleanUp() }
        // A refresh that fails is made up for by the cache.
        world.network.behaviour[name] = { throw NovaException("PortBindingFailed", "Binding failed for port 1") }
        try await world.running {
            try await world.resize(to: world.small)
            guard name != "refresh" else { return #expect(try world.instance.vmState == "resized") }
            try await expectTiny(world)
        }
    }

    @Test func `a machine that cannot be brought back leaves a server in error, with everything else as it was`() async throws {
        let world = try await ResizeWorld()
        defer { world.cleanUp() }
        let fault = DriverError(tenantMessage: "broken", fault: .host)
        world.driver.fail(.powerOn, with: fault)
        world.driver.fail(.powerOn, with: fault)
        try await world.running {
            try await world.resize(to: world.small)
            try await expectTiny(world, vmState: "error", power: .shutdown)
        }
    }

    @Test func `a flavor that needs what is not offered is refused`() async throws {
        let world = try await ResizeWorld()
        defer { world.cleanUp() }
        var flavor = world.small
        flavor.set("extra_specs", to: ["hw:cpu_policy": "dedicated"])
        let pinned = flavor
        try await world.running {
            try await world.resize(to: pinned)
            try await expectTiny(world)
        }
        #expect(world.database.read { $0.faults }.first?.contains("pin CPUs") == true)
    }

    @Test func `Placement that cannot be reached keeps no guest off`() async throws {
        let world = try await ResizeWorld()
        defer { world.cleanUp() }
        world.driver.fail(.finishResize, with: DriverError(tenantMessage: "broken", fault: .host))
        try await world.running {
            world.placement.change { $0.unreachable = true }
            try await world.resize(to: world.small)
            #expect(try world.instance.vmState == "active")
            #expect(try await world.driver.powerState(of: world.uuid) == .running)
        }
    }

    // MARK: A restart in the middle

    @Test func `a service that ended while the old machine was kept brings it back`() async throws {
        let world = try await ResizeWorld()
        defer { world.cleanUp() }
        let (reached, never) = (Gate(), Gate())
        // The service dies here: the machine is off and kept, the record says "resize_migrating".
        world.network.behaviour["activate"] = {
            reached.open()
            try await never.wait()
        }
        let life = Task { try await world.running { try await world.resize(to: world.small) } }
        defer { life.cancel() }
        try await reached.wait()
        let instance = try world.instance
        #expect(try instance.taskState == "resize_migrating" && world.migration.status == "migrating")
        #expect(try await world.driver.powerState(of: world.uuid) == .shutdown)
        #expect(world.driver.sizes(of: world.uuid)?.kept == tinySize)

        let next = try await ResizeWorld(restarting: world)
        try await next.running {
            await next.manager.initInstance(instance, context: .administrator())
            try await next.settle()
            try await expectTiny(next)
        }
        #expect(try next.migration.status == "error")
        #expect(next.database.read { $0.faults }.count == 1)
    }

    @Test func `a service that ended before the new size was on goes on with it`() async throws {
        let world = try await ResizeWorld()
        defer { world.cleanUp() }
        try await world.running { try await world.resize(to: world.small) }
        // As a crash between the last two saves leaves it, on a host that was off since.
        try await world.driver.powerOff(instance: world.instance, timeout: .zero, retryInterval: .zero)
        world.database.change {
            $0.instances[0].object.load("vm_state", "active")
            $0.instances[0].object.load("task_state", "resize_finish")
            $0.migrations[0].object.load("status", "post-migrating")
        }
        let next = try await ResizeWorld(restarting: world)
        try await next.running {
            await next.manager.initInstance(try next.instance, context: .administrator())
            try await next.settle()
            #expect(try next.instance.vmState == "resized" && next.instance.taskState == nil)
            #expect(try next.migration.status == "finished")
            #expect(next.driver.sizes(of: next.uuid)?.now == smallSize)
            #expect(try await next.driver.powerState(of: next.uuid) == .running)
            try await next.revert()
            try await expectTiny(next)
        }
    }

    // MARK: Nobody confirms

    @Test func `a resize that nobody confirms is confirmed when its time is over`() async throws {
        let world = try await ResizeWorld(options: [("DEFAULT", "resize_confirm_window", "1")])
        defer { world.cleanUp() }
        let tasks = HostTasks(parts: world.parts, tracker: world.tracker, instances: world.manager, network: NoNetwork())
        let task = try #require(tasks.all.first { $0.rule.name == "_poll_unconfirmed_resizes" })
        #expect(task.rule.spacing == .seconds(60))
        try await world.running {
            try await world.resize(to: world.small)
            try await task.body(.administrator())
            #expect(try world.migration.status == "confirming")
            let call = try #require(world.database.requests("MigrationList.get_unconfirmed_by_dest_compute").first)
            #expect(call["args"] == [1, "host1"] && call["kwargs"] == ["use_slave": true])
            try await world.deliver()
            #expect(try world.instance.vmState == "active" && world.migration.status == "confirmed")
            try await expectUsage(world, memoryMiB: 512, vcpus: 2)
        }
    }

    @Test(arguments: [
        ("error", nil, "error"), ("resized", "deleting", "finished"), ("active", "resize_finish", "finished"), ("active", nil, "error"),
        ("resized", "resize_reverting", "error"),
    ] as [(String, String?, String)])
    func `one that cannot be confirmed is marked or waits`(vmState: String, taskState: String?, status: String) async throws {
        let world = try await ResizeWorld(options: [("DEFAULT", "resize_confirm_window", "60")])
        defer { world.cleanUp() }
        try await world.running { try await world.resize(to: world.small) }
        world.database.change {
            $0.instances[0].object.load("vm_state", .string(vmState))
            $0.instances[0].object.load("task_state", .nullable(taskState))
        }
        let tasks = HostTasks(parts: world.parts, tracker: world.tracker, instances: world.manager, network: NoNetwork())
        try await #require(tasks.all.first { $0.rule.name == "_poll_unconfirmed_resizes" }).body(.administrator())
        #expect(try world.migration.status == status)
        #expect(world.takeMessage()?.method == nil)
    }

    @Test func `without a window nobody is asked`() async throws {
        let world = try await ResizeWorld()
        defer { world.cleanUp() }
        let tasks = HostTasks(parts: world.parts, tracker: world.tracker, instances: world.manager, network: NoNetwork())
        #expect(!tasks.all.contains { $0.rule.name == "_poll_unconfirmed_resizes" })
    }
}
