import Compute
import ComputeDriver
import Foundation
import JSON
import NovaObjects
import OsloMessaging
import ServiceMetrics
import Synchronization
import Testing

@Suite struct StartupTests {
    /// transcripts of a Zed nova-compute that starts for the first time; "ping" and the floor check come before the
    /// driver.
    static let recordedFirstStart = [
        "ping", "Service.get_minimum_version", "InstanceList.get_by_host", "ComputeNode.get_by_host_and_nodename",
        "MigrationList.get_by_filters", "Service.get_by_host_and_binary", "Service.create()",
        "ComputeNodeList.get_all_by_host",
        "ComputeNode.get_by_host_and_nodename", "ComputeNode.create()", "InstanceList.get_by_host_and_node",
        "MigrationList.get_in_progress_and_error", "ComputeNode.save()", "Service.get_by_compute_host",
    ]

    @Test func `a first start calls the conductor in the recorded order`() async throws {
        let host = try HostFixture()
        defer { host.cleanUp() }
        try await host.startup(instances: RecordingInstances()).run()
        // nova-compute also reads PCI devices; this service has none to track.
        #expect(host.database.calls == Self.recordedFirstStart)
        #expect(host.database.read { $0.service?.version } == 64)
        #expect(
            host.parts.health.readiness(isBrokerConnected: true).checks.filter { $0.failure != nil }.map(\.name) == [
                "rpc"
            ])
    }

    @Test func `a new node is created with the recorded fields and the uuid of its file`() async throws {
        let host = try HostFixture()
        defer { host.cleanUp() }
        try await host.startup(instances: RecordingInstances()).run()
        let created = try #require(host.database.requests("ComputeNode.create()").first?["objinst"])
        let changes = Set(created["nova_object.changes"]?.arrayValue?.compactMap(\.stringValue) ?? [])
        // What a Zed nova-compute with the libvirt driver sends, and the uuid, which it leaves to the conductor.
        let recorded: Set = [
            "hypervisor_version", "disk_available_least", "vcpus", "cpu_allocation_ratio", "local_gb_used",
            "numa_topology",
            "memory_mb", "vcpus_used", "supported_hv_specs", "cpu_info", "hypervisor_hostname", "memory_mb_used",
            "local_gb",
            "ram_allocation_ratio", "stats", "host_ip", "host", "disk_allocation_ratio", "hypervisor_type",
        ]
        #expect(changes == recorded.union(["uuid"]))
        let saved = try #require(host.database.requests("ComputeNode.save()").first?["objinst"])
        #expect(
            Set(saved["nova_object.changes"]?.arrayValue?.compactMap(\.stringValue) ?? []) == [
                "free_disk_gb", "metrics", "free_ram_mb", "pci_device_pools", "running_vms", "current_workload",
            ])
        let file = try String(contentsOfFile: host.statePath + "/compute_id", encoding: .utf8)
        #expect(created["nova_object.data"]?["uuid"]?.stringValue == file.trimmingCharacters(in: .newlines))
        #expect(created["nova_object.data"]?["cpu_allocation_ratio"] == 16.0)
    }

    @Test func `a second start changes nothing and keeps the identity`() async throws {
        let host = try HostFixture()
        defer { host.cleanUp() }
        try await host.startup(instances: RecordingInstances()).run()
        let uuid = host.database.read { $0.nodes.first?.uuid }
        host.database.change {
            $0.calls = []; $0.requests = []
        }
        host.placement.change { $0.writes = [] }
        try await host.startup(instances: RecordingInstances()).run()
        #expect(!host.database.calls.contains { $0.hasSuffix("()") })
        #expect(host.placement.read { $0.writes } == [])
        #expect(host.database.read { $0.nodes.map(\.uuid) } == [uuid])
    }

    @Test func `instances are repaired before the service is registered`() async throws {
        let host = try HostFixture { $0.instances = [HostSamples.instance()] }
        defer { host.cleanUp() }
        host.database.change { $0.nodes = [HostSamples.node()] }
        let instances = RecordingInstances { [database = host.database] in
            #expect(database.read { $0.service } == nil)
        }
        try await host.startup(instances: instances).run()
        #expect(instances.asked.withLock { $0 } == ["init \(HostSamples.uuid)"])
        #expect(host.database.casts == ["update_instance_info"])
    }

    @Test func `a node that was there before the file gives it its uuid`() async throws {
        let host = try HostFixture { $0.nodes = [HostSamples.node()] }
        defer { host.cleanUp() }
        try await host.startup(instances: RecordingInstances()).run()
        let file = try String(contentsOfFile: host.statePath + "/compute_id", encoding: .utf8)
        #expect(file == HostSamples.nodeUUID + "\n")
    }

    @Test func `a file of another node stops the start before anything is touched`() async throws {
        let host = try HostFixture {
            $0.nodes = [HostSamples.node()]
            $0.instances = [HostSamples.instance()]
        }
        defer { host.cleanUp() }
        try HostSamples.writeIdentity("11111111-1111-4111-8111-111111111111", in: host.statePath)
        let instances = RecordingInstances()
        await #expect(throws: IdentityError.self) { try await host.startup(instances: instances).run() }
        #expect(instances.asked.withLock { $0 } == [])
        #expect(!host.database.calls.contains { $0.hasSuffix("()") })
    }

    @Test func `a renamed host does not start`() async throws {
        let host = try HostFixture { $0.nodes = [HostSamples.node(host: "old-name")] }
        defer { host.cleanUp() }
        try HostSamples.writeIdentity(HostSamples.nodeUUID, in: host.statePath)
        let error = await #expect(throws: IdentityError.self) {
            try await host.startup(instances: RecordingInstances()).run()
        }
        #expect(error?.description.contains("old-name") == true)
    }

    @Test func `guests of a host that nobody knows stop the start`() async throws {
        let host = try HostFixture(machines: [MachineSummary(instanceUUID: HostSamples.uuid, powerState: .running)])
        defer { host.cleanUp() }
        await #expect(throws: IdentityError.self) { try await host.startup(instances: RecordingInstances()).run() }
        #expect(!FileManager.default.fileExists(atPath: host.statePath + "/compute_id"))
    }

    @Test func `a cell with a compute below the floor stops the start, unless told otherwise`() async throws {
        let host = try HostFixture { $0.minimumVersion = 60 }
        defer { host.cleanUp() }
        await #expect(throws: StartupError.self) { try await host.startup(instances: RecordingInstances()).run() }
        let tolerant = try HostFixture(
            options: [("workarounds", "disable_compute_service_check_for_ffu", "true")]) { $0.minimumVersion = 60 }
        defer { tolerant.cleanUp() }
        try await tolerant.startup(instances: RecordingInstances()).run()
    }

    @Test func `an unreachable Placement does not stop the start and shows in readiness`() async throws {
        let host = try HostFixture()
        defer { host.cleanUp() }
        host.placement.change { $0.unreachable = true }
        try await host.startup(instances: RecordingInstances()).run()
        let failed = host.parts.health.readiness(isBrokerConnected: true).checks.filter { $0.failure != nil }.map(
            \.name)
        #expect(failed == ["placement", "rpc"])
    }

    @Test func `an evacuated guest is removed, its allocation given up and its migration completed`() async throws {
        let host = try HostFixture(machines: [MachineSummary(instanceUUID: HostSamples.uuid, powerState: .running)]) {
            $0.nodes = [HostSamples.node()]
            $0.instances = [HostSamples.instance(host: "host2")]
            var migration = Migration(in: .zed)
            migration.set("id", to: 3)
            migration.set("instance_uuid", to: HostSamples.uuid)
            migration.set("source_compute", to: "host1")
            migration.set("source_node", to: "host1.example")
            migration.set("status", to: "done")
            migration.object.resetChanges()
            $0.evacuations = [migration]
        }
        defer { host.cleanUp() }
        _ = try await host.placement.createProvider(uuid: HostSamples.nodeUUID, name: "host1.example")
        host.placement.change { $0.providers[HostSamples.nodeUUID]?.allocations[HostSamples.uuid] = ["VCPU": 1] }
        try await host.startup(instances: RecordingInstances()).run()
        #expect(host.driver.destroyed.withLock { $0 } == [HostSamples.uuid])
        #expect(host.placement.read { $0.providers[HostSamples.nodeUUID]?.allocations } == [:])
        #expect(host.database.read { $0.evacuations.first?.status } == "completed")
    }

    @Test func `a guest that came back after its evacuation is left alone`() async throws {
        let host = try HostFixture(machines: [MachineSummary(instanceUUID: HostSamples.uuid, powerState: .running)]) {
            $0.nodes = [HostSamples.node()]
            $0.instances = [HostSamples.instance()]
            var migration = Migration(in: .zed)
            migration.set("instance_uuid", to: HostSamples.uuid)
            migration.set("source_node", to: "host1.example")
            $0.evacuations = [migration]
        }
        defer { host.cleanUp() }
        let instances = RecordingInstances()
        try await host.startup(instances: instances).run()
        #expect(host.driver.destroyed.withLock { $0 } == [])
        #expect(instances.asked.withLock { $0 } == ["init \(HostSamples.uuid)"])
    }

    @Test func `a build that was interrupted before its claim becomes an error`() async throws {
        let host = try HostFixture {
            $0.nodes = [HostSamples.node()]
            $0.instances = [HostSamples.instance(host: nil, vmState: "building", taskState: "scheduling")]
        }
        defer { host.cleanUp() }
        _ = try await host.placement.createProvider(uuid: HostSamples.nodeUUID, name: "host1.example")
        host.placement.change { $0.providers[HostSamples.nodeUUID]?.allocations[HostSamples.uuid] = ["VCPU": 1] }
        try await host.startup(instances: RecordingInstances()).run()
        #expect(host.database.read { $0.instances.first?.vmState } == "error")
        #expect(host.database.read { $0.instances.first?.taskState } == nil)
    }

    @Test func `a service record that another start made meanwhile is used`() async throws {
        let host = try HostFixture()
        defer { host.cleanUp() }
        host.database.change { rows in
            rows.failures["Service.create()"] = RemoteFailure(className: "ServiceTopicExists", message: "exists")
            rows.afterCall["Service.create()"] = { rows in
                var other = Service(host: "host1", binary: "nova-compute", topic: "compute", profile: .zed)
                other.reportCount = 41
                other.object.resetChanges()
                rows.service = other
            }
        }
        try await host.startup(instances: RecordingInstances()).run()
        #expect(host.database.read { $0.service?.reportCount } == 41)
    }

    @Test func `a service record of an older version gets this one's`() async throws {
        let host = try HostFixture {
            var old = Service(host: "host1", binary: "nova-compute", topic: "compute", profile: .zed)
            old.version = 61
            old.object.resetChanges()
            $0.service = old
        }
        defer { host.cleanUp() }
        try await host.startup(instances: RecordingInstances()).run()
        #expect(host.database.read { $0.service?.version } == 64)
        let saved = try #require(host.database.requests("Service.save()").first?["objinst"]?["nova_object.changes"])
        #expect(saved == ["version"])
    }
}

extension HostSamples {
    static let nodeUUID = "52e0395f-bf2e-4f9b-bd87-dca7e2244c65"

    static func node(host: String = "host1", name: String = "host1.example", uuid: String = nodeUUID, id: Int = 4)
        -> ComputeNode
    {
        var node = ComputeNode(in: .zed)
        node.set("id", to: id)
        node.set("uuid", to: uuid)
        node.set("host", to: host)
        node.set("hypervisor_hostname", to: name)
        node.object.resetChanges()
        return node
    }

    static func writeIdentity(_ text: String, in folder: String) throws {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try Data((text + "\n").utf8).write(to: URL(filePath: folder + "/compute_id"))
    }
}
