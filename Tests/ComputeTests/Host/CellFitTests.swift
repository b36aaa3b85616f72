import JSON
import NovaObjects
import ServiceConfiguration
import Testing

@testable import Compute

/// Cells as the API makes them of a flavor.
enum CellSamples {
    static func topology(_ cells: [(cpus: [Int], memoryMiB: Int)], pages: Int? = nil, policy: String? = nil, pinned: [Int] = []) -> InstanceNUMATopology {
        var topology = InstanceNUMATopology(in: .zed)
        topology.cells = cells.enumerated().map { number, described in
            var cell = InstanceNUMACell(in: .zed)
            cell.set("id", to: number)
            cell.set("cpuset", to: .array(described.cpus.map { .integer(Int64($0)) }))
            cell.set("pcpuset", to: .array(pinned.map { .integer(Int64($0)) }))
            cell.set("memory", to: described.memoryMiB)
            cell.set("pagesize", to: pages)
            cell.set("cpu_policy", to: policy)
            cell.set("cpu_thread_policy", to: .null)
            return cell
        }
        topology.set("emulator_threads_policy", to: .null)
        return topology
    }
}

@Suite struct CellFitTests {
    private typealias Request = InstanceNUMACell.PageRequest

    /// Two cells of four CPUs and 4 GiB; the second has 512 pages of 2 MiB, the first 64.
    private func host(_ count: Int = 2) -> HostTopology {
        var host = HostTopology(root: "/nonexistent", vcpus: 0, memoryMiB: 0)
        host.cells = (0..<count).map { id in
            let huge = id == 1 ? 512 : 64
            return HostTopology.Cell(
                id: id, cpus: Set(id * 4..<id * 4 + 4), memoryMiB: 4096, siblings: [], socket: id, pages: [2048: huge, 4: (4096 - huge * 2) * 256])
        }
        return host
    }

    private func fit(
        _ topology: InstanceNUMATopology, usage: CellUsage = CellUsage(), shared: Set<Int>? = nil, limits: CellLimits? = nil, hostCells: Int = 2
    ) throws -> (cells: [Int?], pages: [Int?]) {
        let placed = try CellFit(host: host(hostCells), usage: usage, shared: shared, limits: limits).place(topology)
        return (placed.cells.map(\.hostCell), placed.cells.map(\.pageSizeKiB))
    }

    private func refusal(
        _ topology: InstanceNUMATopology, usage: CellUsage = CellUsage(), shared: Set<Int>? = nil, limits: CellLimits? = nil
    ) -> String {
        let error = #expect(throws: CellRefusal.self) { try fit(topology, usage: usage, shared: shared, limits: limits) }
        return error?.reason ?? ""
    }

    @Test func `each cell goes to a cell of its own, the first ones first`() throws {
        let placed = try fit(CellSamples.topology([([0, 1], 512), ([2], 1024)]))
        #expect(placed.cells == [0, 1] && placed.pages == [nil, nil])
        #expect(try fit(CellSamples.topology([([0], 64)]), hostCells: 3).cells == [0])
    }

    @Test func `what the cells of the message hold besides stays`() throws {
        let topology = CellSamples.topology([([0, 1], 512), ([2], 1024)])
        let placed = try CellFit(host: host(), usage: CellUsage(), shared: nil, limits: nil).place(topology)
        #expect(placed.cells.map(\.cpus) == [[0, 1], [2]] && placed.cells.map(\.memoryMiB) == [512, 1024])
        #expect(placed.cells[0].object.isSet("cpu_thread_policy") && placed.object.changes.contains("cells"))
    }

    @Test func `a cell without room is passed over`() throws {
        var usage = CellUsage()
        usage.memoryMiB = [0: 3900]
        let limits = CellLimits(cpuRatio: 16, memoryRatio: 1)
        #expect(try fit(CellSamples.topology([([0], 512)]), usage: usage, limits: limits).cells == [1])
        // In the other order, because the first cell of the guest fits the second of the host alone.
        #expect(try fit(CellSamples.topology([([0], 512), ([1], 128)]), usage: usage, limits: limits).cells == [1, 0])
        #expect(refusal(CellSamples.topology([([0], 512), ([1], 512)]), usage: usage, limits: limits).contains("do not fit this host"))
        // Without limits nothing is over-committed but against itself.
        #expect(try fit(CellSamples.topology([([0], 512)]), usage: usage).cells == [0])
        #expect(refusal(CellSamples.topology([([0], 4097)])).contains("1 vCPUs, 4097 MiB"))
    }

    @Test func `processors are counted, those that are offered`() throws {
        #expect(refusal(CellSamples.topology([(Array(0..<5), 64)])).contains("5 vCPUs"))
        #expect(try fit(CellSamples.topology([([0, 1], 64)]), shared: [0, 4, 5]).cells == [1])
        var usage = CellUsage()
        usage.cpus = [0: 4, 1: 7]
        #expect(try fit(CellSamples.topology([([0, 1, 2], 64)]), usage: usage, limits: CellLimits(cpuRatio: 2, memoryRatio: 1)).cells == [0])
        #expect(refusal(CellSamples.topology([([0, 1], 64), ([2, 3], 64)]), usage: usage, limits: CellLimits(cpuRatio: 2, memoryRatio: 1)).contains("do not fit"))
    }

    @Test func `page sizes are those that are asked for, and all cells have the same`() throws {
        let two = [(cpus: [0], memoryMiB: 64), (cpus: [1], memoryMiB: 64)]
        #expect(try fit(CellSamples.topology(two, pages: Request.small)).pages == [4, 4])
        #expect(try fit(CellSamples.topology(two, pages: Request.large)).pages == [2048, 2048])
        #expect(try fit(CellSamples.topology(two, pages: 2048)).pages == [2048, 2048])
        // 1 GiB of pages is in the second cell alone.
        #expect(try fit(CellSamples.topology([([0], 1024)], pages: Request.large)).cells == [1])
        let large = [(cpus: [0], memoryMiB: 512), (cpus: [1], memoryMiB: 512)]
        #expect(try fit(CellSamples.topology(large, pages: Request.any)).pages == [4, 4])
        #expect(refusal(CellSamples.topology(large, pages: Request.large)).contains("in huge pages"))
        #expect(refusal(CellSamples.topology(two, pages: 1_048_576)).contains("in pages of 1048576 KiB"))
        #expect(refusal(CellSamples.topology([([0], 63)], pages: 2048)).contains("in pages of 2048 KiB"))
    }

    @Test func `used pages are gone`() throws {
        var first = CellSamples.topology([([0], 1000)], pages: 2048)
        first = try CellFit(host: host(), usage: CellUsage(), shared: nil, limits: nil).place(first)
        var usage = CellUsage()
        usage.add(CellUsage(first), sign: 1)
        #expect(usage.pages == [1: [2048: 500]] && usage.cpus == [1: 1] && usage.memoryMiB == [1: 1000])
        #expect(refusal(CellSamples.topology([([0], 200)], pages: 2048), usage: usage).contains("do not fit"))
        #expect(try fit(CellSamples.topology([([0], 24)], pages: 2048), usage: usage).cells == [0])
        usage.add(CellUsage(first), sign: -1)
        #expect(try fit(CellSamples.topology([([0], 200)], pages: 2048), usage: usage).cells == [1])
    }

    @Test func `what is not done here is refused in words`() {
        #expect(refusal(CellSamples.topology([([0], 64)], policy: "dedicated")).contains("does not pin CPUs"))
        #expect(refusal(CellSamples.topology([([], 64)], pinned: [0])).contains("does not pin CPUs"))
        #expect(refusal(CellSamples.topology([([0], 64), ([1], 64), ([2], 64)])).contains("3 NUMA cells, this host has 2"))
        var isolated = CellSamples.topology([([0], 64)])
        isolated.set("emulator_threads_policy", to: "isolate")
        #expect(refusal(isolated).contains("emulator threads"))
        var mixed = CellSamples.topology([([0], 64), ([1], 64)])
        mixed.cells[1].pageSizeKiB = 2048
        #expect(refusal(mixed).contains("different sizes"))
        var broken = CellSamples.topology([([0], 64)])
        broken.set("cells", to: [5])
        #expect(refusal(broken).contains("cannot be read"))
    }

    @Test func `many equal cells that do not fit are given up soon`() {
        let cells = (0..<12).map { (cpus: [$0], memoryMiB: $0 == 11 ? 5000 : 64) }
        #expect(throws: CellRefusal.self) { try fit(CellSamples.topology(cells), hostCells: 16) }
    }

    @Test func `limits come as a build has them and as other claims have them`() throws {
        let numa: JSONValue = ["nova_object.name": "NUMATopologyLimits", "nova_object.data": ["cpu_allocation_ratio": 16.0, "ram_allocation_ratio": 1.5]]
        let expected = CellLimits(cpuRatio: 16, memoryRatio: 1.5)
        #expect(CellLimits(["numa_topology": numa]) == expected)
        #expect(CellLimits(["nova_object.name": "SchedulerLimits", "nova_object.data": ["numa_topology": numa]]) == expected)
        #expect(CellLimits([:]) == nil && CellLimits(["numa_topology": .null]) == nil)
    }

    @Test func `pages that are kept back are not given`() throws {
        var kept = host().reserving([.init(node: 1, sizeKiB: 2048, count: 500), .init(node: 7, sizeKiB: 2048, count: 9), .init(node: 0, sizeKiB: 64, count: 9)])
        #expect(kept.cells.map(\.reserved) == [[:], [2048: 500]])
        let placed = try CellFit(host: kept, usage: CellUsage(), shared: nil, limits: nil).place(CellSamples.topology([([0], 64)], pages: 2048))
        #expect(placed.cells.map(\.hostCell) == [0])
        #expect(throws: CellRefusal.self) {
            try CellFit(host: kept, usage: CellUsage(), shared: nil, limits: nil).place(CellSamples.topology([([0], 200)], pages: 2048))
        }
        kept.cells.removeFirst()
        let json = try JSONValue.parse(kept.primitiveText(shared: nil, profile: .zed))
        let pages = json["nova_object.data"]?["cells"]?.arrayValue?.first?["nova_object.data"]?["mempages"]?.arrayValue?.compactMap { $0["nova_object.data"] }
        #expect(pages?.map { $0["reserved"] } == [0, 500])
    }

    @Test func `the host's record tells what is used`() throws {
        var usage = CellUsage()
        (usage.cpus, usage.memoryMiB, usage.pages) = ([1: 3], [1: 100], [1: [2048: 50]])
        let json = try JSONValue.parse(host().primitiveText(shared: nil, usage: usage, profile: .zed))
        let cell = try #require(json["nova_object.data"]?["cells"]?.arrayValue?.last?["nova_object.data"])
        #expect(cell["cpu_usage"] == 3 && cell["memory_usage"] == 100)
        let pages = cell["mempages"]?.arrayValue?.compactMap { $0["nova_object.data"] } ?? []
        #expect(pages.map { $0["size_kb"] } == [4, 2048] && pages.map { $0["used"] } == [0, 50])
    }
}
