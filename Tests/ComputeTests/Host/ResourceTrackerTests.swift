import Compute
import ComputeDriver
import JSON
import NovaObjects
import OpenStackHTTP
import OsloMessaging
import Placement
import Testing

@Suite struct ResourceTrackerTests {
    private func started(
        options: [(group: String, name: String, value: String)] = [],
        _ change: (inout HostDatabase.Rows) -> Void = { _ in }
    ) async throws -> HostFixture {
        let host = try HostFixture(options: options, change)
        try await host.startup(instances: RecordingInstances()).run()
        return host
    }

    @Test func `the node's usage is the reserve and the flavors of its instances`() async throws {
        // As recorded: one server of 256 MiB, 1 vCPU, 1 GiB on a host that keeps 512 MiB for itself.
        let host = try await started {
            $0.instances = [HostSamples.instance()]; $0.nodes = [HostSamples.node()]
        }
        defer { host.cleanUp() }
        let node = try #require(host.database.read { $0.nodes.first })
        #expect(node.integer("vcpus_used") == 1)
        #expect(node.integer("memory_mb_used") == 768)
        #expect(node.integer("local_gb_used") == 1)
        #expect(node.integer("free_ram_mb") == 8192 - 768)
        #expect(node.integer("running_vms") == 1)
        #expect(node.stats["num_vm_active"] == "1")
        #expect(node.stats["num_task_None"] == "1")
        #expect(node.stats["num_proj_p1"] == "1")
        #expect(node.stats["io_workload"] == "0")
    }

    @Test func `Placement has inventories, traits and the node's name`() async throws {
        let host = try await started(options: [("DEFAULT", "reserved_host_disk_mb", "1025")])
        defer { host.cleanUp() }
        let provider = try #require(host.placement.read { $0.providers.values.first })
        #expect(provider.record.name == "host1.example")
        #expect(provider.inventories["VCPU"] == Inventory(total: 10, reserved: 0, maxUnit: 10, allocationRatio: 16))
        #expect(
            provider.inventories["MEMORY_MB"]
                == Inventory(total: 8192, reserved: 512, maxUnit: 8192, allocationRatio: 1.5))
        #expect(
            provider.inventories["DISK_GB"] == Inventory(total: 1028, reserved: 2, maxUnit: 1028, allocationRatio: 1))
        #expect(
            provider.traits == [
                "COMPUTE_NODE", "COMPUTE_IMAGE_TYPE_RAW", "COMPUTE_IMAGE_TYPE_QCOW2", "HW_CPU_X86_SSE42",
                "HW_CPU_X86_SVM",
                "HW_CPU_X86_AMD_SVM",
            ])
    }

    @Test func `a claim is counted, saved and told, and undone by its abort`() async throws {
        let host = try await started()
        defer { host.cleanUp() }
        var instance = HostSamples.instance(host: nil, vmState: "building")
        host.database.change {
            $0.instances = [instance]; $0.calls = []; $0.requests = []
        }
        try await host.tracker.claim(&instance, limits: [:], context: .administrator())
        #expect(instance.host == "host1")
        #expect(instance.node == "host1.example")
        #expect(instance.launchedOn == "host1")
        #expect(
            host.database.calls == [
                "Instance.save()", "BlockDeviceMappingList.get_by_instance_uuid", "ComputeNode.save()",
                "Service.get_by_compute_host",
            ])
        let saved = host.database.requests("Instance.save()")[0]["objinst"]?["nova_object.changes"]?.arrayValue
        #expect(Set(saved?.compactMap(\.stringValue) ?? []) == ["host", "launched_on", "node", "numa_topology"])
        // The next save of the operation brings it.
        #expect(instance.object.changes == ["resources"])
        #expect(host.database.read { $0.nodes[0].integer("memory_mb_used") } == 768)
        #expect(host.database.read { $0.nodes[0].stats["num_vm_building"] } == "1")

        await host.tracker.abortClaim(&instance, context: .administrator())
        #expect(instance.host == nil)
        #expect(host.database.read { $0.nodes[0].integer("memory_mb_used") } == 512)
        #expect(host.database.read { $0.instances[0].node } == nil)
    }

    @Test(arguments: [0, 4]) func `many claims at once are all counted`(audits: Int) async throws {
        let host = try await started()
        defer { host.cleanUp() }
        await withTaskGroup(of: Void.self) { group in
            for number in 0..<20 {
                group.addTask {
                    var instance = HostSamples.instance("00000000-0000-4000-8000-0000000001\(10 + number)", host: nil)
                    try? await host.tracker.claim(&instance, limits: [:], context: .administrator())
                }
                if number < audits {
                    group.addTask { try? await host.tracker.audit(isStartup: false, context: .administrator()) }
                }
            }
        }
        #expect(host.database.read { $0.nodes[0].integer("vcpus_used") } == 20)
        #expect(host.database.read { $0.nodes[0].integer("memory_mb_used") } == 512 + 20 * 256)
    }

    @Test func `a claim gives cells a place on the host, which is told and given back`() async throws {
        let host = try await started()
        defer { host.cleanUp() }
        var instance = HostSamples.instance(host: nil, vmState: "building")
        instance.numaTopology = CellSamples.topology([([0], 128)], pages: InstanceNUMACell.PageRequest.small)
        instance.object.resetChanges()
        host.database.change { $0.instances = [instance] }
        func used() throws -> [JSONValue?] {
            let text = try #require(host.database.read { $0.nodes[0].string("numa_topology") })
            let cells = try JSONValue.parse(text)["nova_object.data"]?["cells"]?.arrayValue?.compactMap { $0["nova_object.data"] } ?? []
            let cell = try #require(cells.first { $0["memory_usage"] != 0 } ?? cells.first)
            return [cell["cpu_usage"], cell["memory_usage"], cell["mempages"]?.arrayValue?.first?["nova_object.data"]?["used"]]
        }
        try await host.tracker.claim(&instance, limits: [:], context: .administrator())
        #expect(instance.numaTopology?.cells.map(\.pageSizeKiB) == [4])
        #expect(instance.numaTopology?.cells.first?.hostCell != nil)
        #expect(try used() == [1, 128, 32768])
        let saved = host.database.requests("Instance.save()").last?["objinst"]?["nova_object.data"]?["numa_topology"]
        #expect(saved?["nova_object.data"]?["cells"]?.arrayValue?.first?["nova_object.data"]?["pagesize"] == 4)
        // The next audit counts the same.
        try await host.tracker.audit(isStartup: false, context: .administrator())
        #expect(try used() == [1, 128, 32768])

        await host.tracker.abortClaim(&instance, context: .administrator())
        #expect(instance.numaTopology?.cells.map(\.hostCell) == [nil])
        #expect(try used() == [0, 0, 0])
    }

    @Test func `a guest that needs what is not offered is sent elsewhere`() async throws {
        let host = try await started()
        defer { host.cleanUp() }
        var instance = HostSamples.instance(host: nil)
        instance.set("numa_topology", to: ["nova_object.name": "InstanceNUMATopology"])
        let pinned = CellSamples.topology([([0], 128)], policy: "dedicated")
        for topology in [instance.object["numa_topology"], pinned.primitive] {
            instance.set("numa_topology", to: topology ?? .null)
            let error = await #expect(throws: NovaException.self) {
                try await host.tracker.claim(&instance, limits: [:], context: .administrator())
            }
            #expect(error?.className == "ComputeResourcesUnavailable")
        }
        #expect(host.database.read { $0.instances }.isEmpty)
    }

    @Test func `an instance that is deleted gives back what it used`() async throws {
        let host = try await started {
            $0.instances = [HostSamples.instance()]; $0.nodes = [HostSamples.node()]
        }
        defer { host.cleanUp() }
        await host.tracker.updateUsage(HostSamples.instance(vmState: "deleted"), context: .administrator())
        #expect(host.database.read { $0.nodes[0].integer("memory_mb_used") } == 512)
        #expect(host.database.read { $0.nodes[0].stats["num_instances"] } == "0")
    }

    @Test func `another writer of the provider costs a second reading, not the report`() async throws {
        let host = try await started()
        defer { host.cleanUp() }
        host.placement.change { state in
            state.beforeWrite = {
                $0.record.generation += 3; $0.traits.insert("CUSTOM_FAST")
            }
            state.writes = []
        }
        try await host.tracker.setEnabled(false, context: .administrator())
        let traits = try #require(host.placement.read { $0.providers.values.first?.traits })
        #expect(traits.isSuperset(of: ["COMPUTE_STATUS_DISABLED", "CUSTOM_FAST", "COMPUTE_NODE"]))
        try await host.tracker.setEnabled(true, context: .administrator())
        #expect(host.placement.read { $0.providers.values.first?.traits.contains("COMPUTE_STATUS_DISABLED") } == false)
    }

    @Test func `a service that is disabled in the database has the trait after the next pass`() async throws {
        let host = try await started()
        defer { host.cleanUp() }
        host.database.change { $0.service?.object.load("disabled", true) }
        try await host.tracker.audit(isStartup: false, context: .administrator())
        #expect(host.placement.read { $0.providers.values.first?.traits.contains("COMPUTE_STATUS_DISABLED") } == true)
    }

    @Test func `the ratio an operator set in Placement stays, a configured one wins`() async throws {
        let host = try await started()
        defer { host.cleanUp() }
        let uuid = try #require(host.database.read { $0.nodes[0].uuid })
        host.placement.change {
            $0.providers[uuid]?.inventories["VCPU"]?.allocationRatio = 3; $0.writes = []
        }
        // A second process, which reads Placement anew.
        let restarted = ResourceTracker(parts: host.parts)
        try await restarted.audit(isStartup: true, context: .administrator())
        #expect(host.placement.read { $0.providers[uuid]?.inventories["VCPU"]?.allocationRatio } == 3)
        #expect(host.placement.read { $0.writes } == [])
    }

    @Test func `a trait that Placement refuses leaves the others reported`() async throws {
        let host = try HostFixture()
        defer { host.cleanUp() }
        host.placement.change { $0.refusedTraits = ["HW_CPU_X86_SSE42"] }
        try await host.startup(instances: RecordingInstances()).run()
        #expect(
            host.placement.read { $0.providers.values.first?.traits } == [
                "COMPUTE_NODE", "COMPUTE_IMAGE_TYPE_RAW", "COMPUTE_IMAGE_TYPE_QCOW2",
            ])
    }

    @Test func `an inventory that guests hold stays, and the traits are reported all the same`() async throws {
        let host = try await started()
        defer { host.cleanUp() }
        let uuid = try #require(host.database.read { $0.nodes[0].uuid })
        host.placement.change {
            $0.providers[uuid]?.inventories["VGPU"] = Inventory(total: 1, reserved: 0, maxUnit: 1, allocationRatio: 1)
            $0.providers[uuid]?.allocations["22222222-2222-4222-8222-222222222222"] = ["VGPU": 1]
            $0.providers[uuid]?.traits = []
        }
        try await ResourceTracker(parts: host.parts).audit(isStartup: false, context: .administrator())
        #expect(host.placement.read { $0.providers[uuid]?.inventories.keys.contains("VGPU") } == true)
        #expect(host.placement.read { $0.providers[uuid]?.traits.contains("COMPUTE_NODE") } == true)
    }

    @Test func `an allocation goes only with an instance that is deleted`() async throws {
        let host = try await started()
        defer { host.cleanUp() }
        let uuid = try #require(host.database.read { $0.nodes[0].uuid })
        let (deleted, unknown) = (HostSamples.uuid, "22222222-2222-4222-8222-222222222222")
        host.database.change {
            var instance = HostSamples.instance(host: nil, vmState: "deleted")
            instance.object.load("deleted", true)
            $0.instances = [instance]
        }
        host.placement.change { $0.providers[uuid]?.allocations = [deleted: ["VCPU": 1], unknown: ["VCPU": 1]] }
        try await host.tracker.audit(isStartup: false, context: .administrator())
        #expect(host.placement.read { $0.providers[uuid]?.allocations } == [unknown: ["VCPU": 1]])
    }

    @Test func `a node of this host that the driver does not report is removed with its provider`() async throws {
        let orphan = HostSamples.node(name: "old.example", uuid: "33333333-3333-4333-8333-333333333333", id: 9)
        let host = try await started { $0.nodes = [orphan] }
        defer { host.cleanUp() }
        #expect(host.database.read { $0.nodes.map(\.hypervisorHostname) } == ["host1.example"])
    }

    @Test func `failed builds are counted until one succeeds`() async throws {
        let host = try await started()
        defer { host.cleanUp() }
        await host.tracker.buildFinished(successfully: false)
        await host.tracker.buildFinished(successfully: false)
        try await host.tracker.audit(isStartup: false, context: .administrator())
        #expect(host.database.read { $0.nodes[0].stats["failed_builds"] } == "2")
        await host.tracker.buildFinished(successfully: true)
        try await host.tracker.audit(isStartup: false, context: .administrator())
        #expect(host.database.read { $0.nodes[0].stats["failed_builds"] } == "0")
    }
}
