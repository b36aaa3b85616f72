// Which cells of the host an instance's cells go to (nova.virt.hardware.numa_fit_instance_to_host): pure. The first arrangement that
// fits is taken, host cells in the order of their numbers. All cells of a guest get pages of one size, because its monitor takes one.
import JSON
import NovaObjects

/// What instances take of the host's cells.
struct CellUsage: Sendable, Equatable {
    /// By the host cell's number.
    var cpus: [Int: Int] = [:]
    var memoryMiB: [Int: Int] = [:]
    /// By the host cell's number, then the size in KiB: pages.
    var pages: [Int: [Int: Int]] = [:]

    init() {}

    /// What a claimed instance takes.
    init(_ topology: InstanceNUMATopology?) {
        for cell in topology?.cells ?? [] {
            guard let host = cell.hostCell, cell.memoryMiB > 0, cell.memoryMiB <= 1 << 40 else { continue }
            cpus[host, default: 0] += cell.cpus.count
            memoryMiB[host, default: 0] &+= cell.memoryMiB
            guard let size = cell.pageSizeKiB, size > 0 else { continue }
            pages[host, default: [:]][size, default: 0] &+= cell.memoryMiB * 1024 / size
        }
    }

    mutating func add(_ other: CellUsage, sign: Int) {
        cpus.merge(other.cpus.mapValues { sign * $0 }, uniquingKeysWith: &+)
        memoryMiB.merge(other.memoryMiB.mapValues { sign &* $0 }, uniquingKeysWith: &+)
        for (cell, sizes) in other.pages {
            pages[cell, default: [:]].merge(sizes.mapValues { sign &* $0 }, uniquingKeysWith: &+)
        }
    }
}

/// How far cells may be over-committed, as the scheduler says with the request; nil: it does not.
struct CellLimits: Sendable, Equatable {
    var cpuRatio: Double
    var memoryRatio: Double

    init(cpuRatio: Double, memoryRatio: Double) {
        self.cpuRatio = cpuRatio
        self.memoryRatio = memoryRatio
    }

    /// - Parameter limits: of a build (a dictionary) or another claim (a SchedulerLimits).
    init?(_ limits: JSONValue) {
        let fields = (limits["numa_topology"] ?? limits["nova_object.data"]?["numa_topology"])?["nova_object.data"]
        guard let cpu = fields?["cpu_allocation_ratio"]?.doubleValue, let memory = fields?["ram_allocation_ratio"]?.doubleValue else { return nil }
        (cpuRatio, memoryRatio) = (cpu, memory)
    }
}

/// Why an instance's cells do not go where it was sent.
struct CellRefusal: Error, Equatable {
    let reason: String
}

struct CellFit {
    /// Bounds what a host of many cells costs: all arrangements of 6 of 8 cells are fewer.
    private static let trialLimit = 100_000

    var host: HostTopology
    var usage: CellUsage
    /// CPUs offered; nil: all.
    var shared: Set<Int>?
    var limits: CellLimits?

    /// The topology with a cell of the host and a page size for each cell.
    func place(_ topology: InstanceNUMATopology) throws(CellRefusal) -> InstanceNUMATopology {
        let cells = topology.cells
        guard !cells.isEmpty, cells.count == topology.cellCount else { throw CellRefusal(reason: "the server's NUMA topology cannot be read") }
        guard !cells.contains(where: \.asksForPinnedCPUs) else {
            throw CellRefusal(reason: "this host does not pin CPUs (hw:cpu_policy dedicated or mixed)")
        }
        guard topology.emulatorThreadsPolicy == nil else { throw CellRefusal(reason: "this host does not place emulator threads (hw:emulator_threads_policy)") }
        guard cells.count <= host.cells.count else {
            throw CellRefusal(reason: "the server has \(cells.count) NUMA cells, this host has \(host.cells.count)")
        }
        guard Set(cells.map(\.pageSizeKiB)).count == 1 else { throw CellRefusal(reason: "the server's NUMA cells ask for pages of different sizes") }
        let request = cells[0].pageSizeKiB
        for size in pageSizes(for: request) {
            var trials = 0
            guard let places = arrange(cells[...], pages: size, taken: [], &trials) else { continue }
            var placed = topology
            placed.cells = zip(cells, places).map { cell, place in
                var cell = cell
                cell.hostCell = host.cells[place].id
                cell.pageSizeKiB = size
                return cell
            }
            return placed
        }
        let pages = request.map { $0 > 0 ? " in pages of \($0) KiB" : $0 == InstanceNUMACell.PageRequest.large ? " in huge pages" : "" } ?? ""
        throw CellRefusal(
            reason: "the server's NUMA cells (\(cells.map { "\($0.cpus.count) vCPUs, \($0.memoryMiB) MiB" }.joined(separator: "; "))) do not fit this host's\(pages)")
    }

    /// Sizes to try, in KiB; nil: pages are not counted.
    private func pageSizes(for request: Int?) -> [Int?] {
        // What the monitor can take: more are not to be had on this architecture.
        let known = Set(host.cells.flatMap(\.pages.keys)).intersection([4, 2048, 1_048_576]).sorted(by: >)
        switch request {
        case nil, 0?: return [nil]
        case InstanceNUMACell.PageRequest.small?: return known.suffix(1).map { $0 }
        case InstanceNUMACell.PageRequest.large?: return known.dropLast().map { $0 }
        case InstanceNUMACell.PageRequest.any?: return known.map { $0 }
        case let size?: return known.contains(size) ? [size] : []
        }
    }

    /// The host's cells for these cells, by index; nil where there is no arrangement.
    private func arrange(_ cells: ArraySlice<InstanceNUMACell>, pages: Int?, taken: [Int], _ trials: inout Int) -> [Int]? {
        guard let cell = cells.first else { return taken }
        for place in host.cells.indices where !taken.contains(place) {
            trials += 1
            guard trials < Self.trialLimit else { return nil }
            guard fits(cell, host.cells[place], pages: pages) else { continue }
            if let found = arrange(cells.dropFirst(), pages: pages, taken: taken + [place], &trials) { return found }
        }
        return nil
    }

    private func fits(_ cell: InstanceNUMACell, _ host: HostTopology.Cell, pages size: Int?) -> Bool {
        let cpuCount = shared.map { host.cpus.intersection($0).count } ?? host.cpus.count, memoryMiB = cell.memoryMiB
        // Nova lets no instance over-commit against itself.
        guard memoryMiB > 0, memoryMiB <= host.memoryMiB, cell.cpus.count <= cpuCount else { return false }
        if let limits {
            let cpus = Double(usage.cpus[host.id, default: 0] + cell.cpus.count), memory = Double(usage.memoryMiB[host.id, default: 0] &+ memoryMiB)
            guard cpus <= Double(cpuCount) * limits.cpuRatio, memory <= Double(host.memoryMiB) * limits.memoryRatio else { return false }
        }
        guard let size else { return true }
        let free = host.pages[size, default: 0] - host.reserved[size, default: 0] - (usage.pages[host.id]?[size] ?? 0)
        return memoryMiB * 1024 % size == 0 && memoryMiB * 1024 / size <= free
    }
}
