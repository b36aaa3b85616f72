// A server's NUMA cells as its monitor's nodes and pages: pure. The claim has given each cell a cell of this host and a size of pages.
import ComputeDriver
import MachineConfiguration
import NovaObjects

struct NodeChoice: Sendable, Equatable {
    var nodes: [SavedMachine.Node] = []
    var hugePageKiB: Int?

    /// Refuses, in words, cells that are not the server's vCPUs and memory, and what a monitor cannot do.
    ///
    /// - Parameter topology: nil: the server has none.
    init(_ topology: InstanceNUMATopology?, vcpus: Int, memoryMiB: Int) throws(DriverError) {
        guard let topology else { return }
        func refusal(_ reason: String) -> DriverError {
            DriverError(novaClass: "ComputeResourcesUnavailable", tenantMessage: "Insufficient compute resources: \(reason).", fault: .caller)
        }
        let cells = topology.cells
        guard !cells.contains(where: \.asksForPinnedCPUs) else { throw refusal("this compute host does not pin CPUs") }
        let all = cells.flatMap { $0.cpus.sorted() }
        guard !cells.isEmpty, cells.count == topology.cellCount, cells.count <= NUMAConfiguration.nodeLimit, all.sorted() == Array(0..<vcpus),
            cells.allSatisfy({ (1...memoryMiB).contains($0.memoryMiB) }), cells.reduce(0, { $0 + $1.memoryMiB }) == memoryMiB
        else { throw refusal("the server's NUMA cells are not its \(vcpus) VCPUs and \(memoryMiB) MiB") }
        let sizes = Set(cells.map { $0.pageSizeKiB ?? 4 })
        guard sizes.count == 1, let size = sizes.first, size <= 4 || Self.page(size) != nil else {
            throw refusal("this compute host gives a server pages of one size, 4, 2048 or 1048576 KiB")
        }
        hugePageKiB = size > 4 ? size : nil
        nodes = cells.map { SavedMachine.Node(cpus: $0.cpus.sorted(), memoryMiB: $0.memoryMiB, hostNode: $0.hostCell) }
    }

    static func page(_ kibibytes: Int) -> HugePageSize? { HugePageSize.allCases.first { $0.mebibytes * 1024 == kibibytes } }
}

extension SavedMachine {
    /// Gives the monitor nodes and pages.
    ///
    /// - Parameter hostNodeCount: the host's nodes, asked for where there are nodes to place. With one alone nothing is bound: all memory is of it anyway, and RAM that is not bound can be
    ///   restored by mapping it.
    func applyNodes(to configuration: inout GuestConfiguration, hostNodeCount: @autoclosure () throws -> Int) rethrows {
        configuration.hugePages = hugePageKiB.flatMap(NodeChoice.page)
        guard !nodes.isEmpty else { return }
        let isBound = try hostNodeCount() > 1
        configuration.numa = NUMAConfiguration(
            nodes: nodes.map { NUMAConfiguration.Node(cpus: $0.cpus, memoryMiB: $0.memoryMiB, hostNode: isBound ? $0.hostNode : nil) })
    }
}
