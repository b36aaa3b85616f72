import ComputeDriver
import Foundation
import JSON
import NovaObjects
import ServiceMetrics
import Synchronization
import Testing

@testable import Compute

/// A directory that is gone after the test.
private func withFolder(_ body: (String) throws -> Void) throws {
    let path = FileManager.default.temporaryDirectory.appending(path: "apus-facts-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: path) }
    try body(path)
}

private func write(_ text: String, _ path: String) throws {
    try FileManager.default.createDirectory(
        atPath: URL(filePath: path).deletingLastPathComponent().path, withIntermediateDirectories: true)
    try Data(text.utf8).write(to: URL(filePath: path))
}

@Suite struct HostTopologyTests {
    /// Two sockets of one core with two threads each; the last thread is off line.
    private func layOut(_ root: String) throws {
        try write("0-2\n", root + "/cpu/online")
        for (node, cpus) in [(0, "0,2"), (1, "1,3")] {
            try write(cpus + "\n", "\(root)/node/node\(node)/cpulist")
            try write(
                "Node \(node) MemTotal:       4194304 kB\nNode \(node) MemFree: 1 kB\n",
                "\(root)/node/node\(node)/meminfo")
            try write("2\n", "\(root)/node/node\(node)/hugepages/hugepages-2048kB/nr_hugepages")
            for cpu in cpus.split(separator: ",") {
                try write(cpus + "\n", "\(root)/cpu/cpu\(cpu)/topology/thread_siblings_list")
                try write("\(node)\n", "\(root)/cpu/cpu\(cpu)/topology/physical_package_id")
            }
        }
    }

    @Test func `cells, siblings and pages come from sysfs`() throws {
        try withFolder { root in
            try layOut(root)
            let topology = HostTopology(root: root, vcpus: 3, memoryMiB: 8192)
            #expect(topology.cells.map(\.cpus) == [[0, 2], [1]])
            #expect(topology.cells.map(\.siblings) == [[[0, 2]], [[1]]])
            #expect(topology.cells.map(\.socket) == [0, 1])
            #expect(topology.cells.map(\.memoryMiB) == [4096, 4096])
            // 4 GiB less two pages of 2 MiB.
            #expect(topology.cells[0].pages == [2048: 2, 4: (4_194_304 - 4096) / 4])
        }
    }

    @Test func `a host without sysfs has one cell with all it has`() throws {
        try withFolder { root in
            let topology = HostTopology(root: root, vcpus: 2, memoryMiB: 1024)
            #expect(topology.cells.count == 1)
            #expect(topology.cells[0].cpus == [0, 1])
            #expect(topology.cells[0].pages == [4: 262_144])
        }
    }

    @Test func `the primitive has what the scheduler reads, and only the shared CPUs`() throws {
        let topology = HostTopology(root: "/nonexistent", vcpus: 4, memoryMiB: 15705)
        let json = try JSONValue.parse(topology.primitiveText(shared: [1, 3], profile: .zed))
        #expect(json["nova_object.name"] == "NUMATopology")
        #expect(json["nova_object.version"] == "1.2")
        let cell = try #require(json["nova_object.data"]?["cells"]?.arrayValue?.first?["nova_object.data"])
        // The field names of a recorded Zed topology.
        #expect(
            Set(cell.objectValue?.keys.map { $0 } ?? []) == [
                "id", "cpuset", "pcpuset", "memory", "cpu_usage", "memory_usage", "pinned_cpus", "siblings", "mempages",
                "network_metadata", "socket",
            ])
        #expect(cell["cpuset"] == [1, 3])
        #expect(cell["memory"] == 15705)
    }
}

@Suite struct NodeIdentityTests {
    private static let one = "11111111-1111-4111-8111-111111111111"

    @Test func `a file beside a configuration file comes first`() throws {
        try withFolder { root in
            try write(Self.one + "\n", root + "/etc/compute_id")
            let identity = try NodeIdentity.read(
                configurationFiles: [root + "/etc/nova.conf"], statePath: root + "/state")
            #expect(identity?.uuid == Self.one)
            #expect(identity?.path == root + "/etc/compute_id")
        }
    }

    @Test func `files that disagree are refused, with both named`() throws {
        try withFolder { root in
            try write(Self.one, root + "/etc/compute_id")
            try write(HostSamples.nodeUUID, root + "/state/compute_id")
            let error = #expect(throws: IdentityError.self) {
                try NodeIdentity.read(configurationFiles: [root + "/etc/nova.conf"], statePath: root + "/state")
            }
            #expect(error?.description.contains(root + "/etc/compute_id") == true)
            #expect(error?.description.contains(HostSamples.nodeUUID) == true)
        }
    }

    @Test(arguments: ["", "node-1\n", "11111111-1111-4111-8111-111111111111 x", "11111111-1111-4111-8111-11111111111"])
    func `a file that is no UUID is refused`(text: String) throws {
        try withFolder { root in
            try write(text, root + "/compute_id")
            #expect(throws: IdentityError.self) { try NodeIdentity.read(configurationFiles: [], statePath: root) }
        }
    }

    @Test func `an identity is written once`() throws {
        try withFolder { root in
            _ = try NodeIdentity.create(uuid: Self.one.uppercased(), statePath: root + "/new/state")
            #expect(try NodeIdentity.read(configurationFiles: [], statePath: root + "/new/state")?.uuid == Self.one)
            #expect(throws: IdentityError.self) {
                try NodeIdentity.create(uuid: HostSamples.nodeUUID, statePath: root + "/new/state")
            }
        }
    }
}

@Suite struct GuestSamplerTests {
    @Test func `guests are counted by their machine's state and keep their name`() async throws {
        let off = "44444444-4444-4444-8444-444444444444"
        let host = try HostFixture(machines: [
            MachineSummary(instanceUUID: HostSamples.uuid, powerState: .running),
            MachineSummary(instanceUUID: off, powerState: .shutdown),
        ]) {
            $0.nodes = [HostSamples.node()]; $0.instances = [HostSamples.instance()]
        }
        defer { host.cleanUp() }
        try await host.startup(instances: RecordingInstances()).run()
        let sampler = GuestSampler(driver: host.driver, names: host.parts.names, logger: HostSamples.logger)
        #expect(sampler.metrics.metricFamilies().first { $0.name == "apus_guests" }?.samples.first?.value == .number(0))
        try await sampler.sampleAll()
        let families = sampler.metrics.metricFamilies()
        let running = try #require(families.first { $0.name == "apus_guest_running" })
        #expect(
            running.samples == [
                MetricSample([("domain", off), ("uuid", off)], 0),
                MetricSample([("domain", "instance-5"), ("uuid", HostSamples.uuid)], 1),
            ])
        host.driver.state.withLock { $0 = [] }
        try await sampler.sampleAll()
        #expect(sampler.metrics.metricFamilies().first { $0.name == "apus_guests" }?.samples.first?.value == .number(0))
    }

    @Test func `a wait ends at its deadline`() async {
        await #expect(throws: DeadlineExceeded.self) {
            try await withDeadline(.milliseconds(20)) { try await Task.sleep(for: .seconds(3600)) }
        }
        #expect(await (try? withDeadline(.seconds(60)) { 7 }) == 7)
    }
}
