import Compute
import JSON
import NovaObjects
import Placement
import Testing

@Suite struct NodeArithmeticTests {
    @Test(
        arguments: [
            ("0-3,^2", [0, 1, 3]), ("5", [5]), (" 1 , 4-5 ", [1, 4, 5]), ("", []), ("^1,0-1", [0]),
        ] as [(String, [Int])])
    func `a CPU list is read`(text: String, numbers: [Int]) {
        #expect(CPUSet(text)?.sorted == numbers)
    }

    @Test(arguments: ["3-1", "a", "0-", "-1", "0-99999999", "1--2", "^"])
    func `a CPU list that is none is refused`(text: String) {
        #expect(CPUSet(text) == nil)
    }

    @Test func `workloads are counted by state and task`() {
        var statistics = NodeStatistics()
        statistics.update(HostSamples.instance("a", vmState: "building"), isRemoved: false)
        statistics.update(HostSamples.instance("b", taskState: "image_snapshot"), isRemoved: false)
        statistics.update(HostSamples.instance("c", vmState: "shelved_offloaded"), isRemoved: false)
        #expect(statistics.instanceCount == 2)
        #expect(statistics.ioWorkload == 2)
        #expect(statistics.currentWorkload == 1)
        statistics.update(HostSamples.instance("b"), isRemoved: false)
        #expect(statistics.ioWorkload == 1)
        #expect(statistics.fieldValue["num_task_image_snapshot"] == "0")
        statistics.update(HostSamples.instance("a"), isRemoved: true)
        #expect(statistics.fieldValue["num_instances"] == "1")
    }

    @Test func `an empty host says nothing but its failed builds`() {
        #expect(NodeStatistics().fieldValue == ["failed_builds": "0"])
    }

    @Test func `usage is the same whether an instance is counted once or three times`() {
        var usage = NodeUsage(
            reservedVCPUs: 2, reservedMemoryMiB: 512, reservedDiskMiB: 3000, statistics: NodeStatistics())
        let instance = HostSamples.instance(memoryMiB: 1024, vcpus: 4, rootGiB: 10)
        for _ in 0..<3 { usage.update(instance, usage: ResourceUsage(instance: instance, isVolumeBacked: false)) }
        #expect([usage.vcpus, usage.memoryMiB, usage.localGiB] == [6, 1536, 12])
        usage.update(instance, usage: ResourceUsage(instance: instance, isVolumeBacked: false), isRemoved: true)
        #expect([usage.vcpus, usage.memoryMiB, usage.localGiB] == [2, 512, 2])
    }

    @Test func `a root disk on a volume takes nothing of the host`() {
        let instance = HostSamples.instance(rootGiB: 10)
        #expect(ResourceUsage(instance: instance, isVolumeBacked: true).rootGiB == 0)
        #expect(ResourceUsage(instance: instance, isVolumeBacked: false).rootGiB == 10)
    }

    @Test func `an incoming resize holds the new size before the instance is here`() {
        var usage = NodeUsage(reservedVCPUs: 0, reservedMemoryMiB: 0, reservedDiskMiB: 0, statistics: NodeStatistics())
        var instance = HostSamples.instance(host: "host2", taskState: "resize_prep", memoryMiB: 256)
        var larger = Flavor(in: .zed)
        larger.set("memory_mb", to: 2048)
        instance.set("new_flavor", to: larger.primitive)
        var migration = Migration(in: .zed)
        migration.set("dest_compute", to: "host1")
        migration.set("dest_node", to: "node1")
        migration.set("migration_type", to: "resize")
        usage.update(migration, of: instance, host: "host1", node: "node1", isVolumeBacked: false)
        #expect(usage.memoryMiB == 2048)
        // An idle instance's old migration holds nothing.
        instance.taskState = nil
        var other = NodeUsage(reservedVCPUs: 0, reservedMemoryMiB: 0, reservedDiskMiB: 0, statistics: NodeStatistics())
        other.update(migration, of: instance, host: "host1", node: "node1", isVolumeBacked: false)
        #expect(other.memoryMiB == 0)
    }

    @Test func `a move on one host counts both sizes until it is over, however often the host is audited`() {
        func flavor(_ memoryMiB: Int) -> JSONValue {
            var flavor = Flavor(in: .zed)
            flavor.set("memory_mb", to: memoryMiB)
            return flavor.primitive
        }
        var instance = HostSamples.instance(vmState: "resized", memoryMiB: 2048)
        instance.set("instance_type_id", to: 2)
        instance.set("old_flavor", to: flavor(256))
        var migration = Migration(in: .zed)
        for field in ["source_compute", "dest_compute"] { migration.set(field, to: "host1") }
        for field in ["source_node", "dest_node"] { migration.set(field, to: "node1") }
        migration.set("migration_type", to: "resize")
        migration.set("old_instance_type_id", to: 1)
        var usage = NodeUsage(reservedVCPUs: 0, reservedMemoryMiB: 0, reservedDiskMiB: 0, statistics: NodeStatistics())
        usage.update(instance, usage: ResourceUsage(instance: instance, isVolumeBacked: false))
        for _ in 0..<2 { usage.update(migration, of: instance, host: "host1", node: "node1", isVolumeBacked: false) }
        #expect(usage.memoryMiB == 2048 + 256)
        var reverted = usage
        usage.endMove(of: instance, usage: ResourceUsage(instance: instance, isVolumeBacked: false))
        #expect(usage.memoryMiB == 2048)
        reverted.endMove(of: instance, usage: ResourceUsage(flavor: instance.oldFlavor ?? Flavor(in: .zed), isVolumeBacked: false))
        #expect(reverted.memoryMiB == 256)
        // An instance that is not counted is not counted by the end of its move.
        usage.endMove(of: HostSamples.instance("11111111-1111-4111-8111-111111111111"), usage: ResourceUsage(instance: instance, isVolumeBacked: false))
        #expect(usage.memoryMiB == 2048)
    }

    @Test func `inventories follow ratio, reserve and what is there`() {
        let ratios = AllocationRatios(
            cpu: nil, memory: 2, disk: nil, initialCPU: 16, initialMemory: 1.5, initialDisk: 1)
        let rules = InventoryRules(ratios: ratios, reservedCPUs: 1, reservedMemoryMiB: 512, reservedDiskMiB: 2048)
        let existing = ["VCPU": Inventory(total: 1, reserved: 0, maxUnit: 1, allocationRatio: 8)]
        let inventories = rules.inventories(vcpus: 4, memoryMiB: 1000, diskGiB: 0, existing: existing)
        #expect(inventories["VCPU"] == Inventory(total: 4, reserved: 1, maxUnit: 4, allocationRatio: 8))
        #expect(inventories["MEMORY_MB"] == Inventory(total: 1000, reserved: 512, maxUnit: 1000, allocationRatio: 2))
        #expect(inventories["DISK_GB"] == nil)
    }

    @Test func `turns are taken in order and a cancelled waiter leaves the line`() async throws {
        let queue = TurnQueue()
        let (entered, enter) = AsyncStream.makeStream(of: Void.self)
        let (release, open) = AsyncStream.makeStream(of: Void.self)
        let first = Task {
            try await queue.run {
                enter.finish()
                for await _ in release {}
            }
        }
        for await _ in entered {}
        let cancelled = Task { try await queue.run { true } }
        cancelled.cancel()
        await #expect(throws: CancellationError.self) { try await cancelled.value }
        let last = Task { try await queue.run { 7 } }
        open.finish()
        try await first.value
        #expect(try await last.value == 7)
    }
}
