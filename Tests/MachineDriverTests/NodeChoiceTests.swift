import ComputeDriver
import JSON
import MachineConfiguration
import NovaObjects
import Testing

@testable import MachineDriver

@Suite struct NodeChoiceTests {
    private func topology(_ cells: [(cpus: [Int], memoryMiB: Int, host: Int)], pages: Int? = nil, policy: String? = nil) -> InstanceNUMATopology {
        var topology = InstanceNUMATopology(in: .zed)
        topology.cells = cells.map { described in
            var cell = InstanceNUMACell(in: .zed)
            cell.hostCell = described.host
            cell.set("cpuset", to: .array(described.cpus.map { .integer(Int64($0)) }))
            cell.set("memory", to: described.memoryMiB)
            cell.set("pagesize", to: pages)
            cell.set("cpu_policy", to: policy)
            return cell
        }
        return topology
    }

    private var machine: SavedMachine {
        SavedMachine(
            uuid: "3f0a2b1c-0001-4c4b-9f5e-0123456789ab", name: "a", memoryMiB: 512, vcpus: 4, sockets: 4, cores: 1, threads: 1, commandLine: "",
            hasRAMDisk: false, hasEntropy: true, disks: [], queueCount: 1, interfaces: [])
    }

    private func configuration(_ machine: SavedMachine, hostNodeCount: Int) -> GuestConfiguration {
        var configuration = GuestConfiguration(name: "a", uuid: .zero, memoryMiB: machine.memoryMiB, cpu: CPUConfiguration(count: machine.vcpus), kernel: 3)
        machine.applyNodes(to: &configuration, hostNodeCount: hostNodeCount)
        return configuration
    }

    @Test func cellsBecomeNodesWithTheHostsAndPages() throws {
        let choice = try NodeChoice(topology([([0, 2], 128, 1), ([3, 1], 384, 0)], pages: 2048), vcpus: 4, memoryMiB: 512)
        var machine = machine
        (machine.nodes, machine.hugePageKiB) = (choice.nodes, choice.hugePageKiB)
        let configuration = configuration(machine, hostNodeCount: 2)
        #expect(configuration.hugePages == .twoMiB)
        #expect(
            configuration.numa
                == NUMAConfiguration(nodes: [
                    NUMAConfiguration.Node(cpus: [0, 2], memoryMiB: 128, hostNode: 1), NUMAConfiguration.Node(cpus: [1, 3], memoryMiB: 384, hostNode: 0),
                ]))
        try configuration.checkMemory()
        // It is started again from its directory.
        #expect(SavedMachine(json: machine.json) == machine)
    }

    @Test func onAHostOfOneNodeNothingIsBound() throws {
        var machine = machine
        machine.nodes = try NodeChoice(topology([([0, 1, 2, 3], 512, 0)]), vcpus: 4, memoryMiB: 512).nodes
        for count in [0, 1] {
            let configuration = configuration(machine, hostNodeCount: count)
            #expect(configuration.numa?.nodes.map(\.hostNode) == [nil] && configuration.hugePages == nil)
        }
    }

    @Test func smallPagesAreNoHugeOnes() throws {
        #expect(try NodeChoice(topology([([0], 64, 0)], pages: 4), vcpus: 1, memoryMiB: 64).hugePageKiB == nil)
        #expect(try NodeChoice(topology([([0], 1024, 0)], pages: 1_048_576), vcpus: 1, memoryMiB: 1024).hugePageKiB == 1_048_576)
        #expect(try NodeChoice(nil, vcpus: 1, memoryMiB: 64).nodes.isEmpty)
    }

    @Test func aFileOfAnEarlierVersionHasNoNodes() throws {
        guard case .object(var members) = machine.json else { return #expect(Bool(false)) }
        members["nodes"] = nil
        members["hugePageKiB"] = nil
        let old = try #require(SavedMachine(json: .object(members)))
        #expect(old.nodes.isEmpty && old.hugePageKiB == nil && configuration(old, hostNodeCount: 2).numa == nil)
    }

    @Test func whatAMonitorCannotDoIsRefusedInWords() {
        func refusal(_ topology: InstanceNUMATopology) -> String {
            let error = #expect(throws: DriverError.self) { try NodeChoice(topology, vcpus: 2, memoryMiB: 128) }
            return error?.tenantMessage ?? ""
        }
        #expect(refusal(topology([([0, 1], 128, 0)], policy: "dedicated")).contains("does not pin CPUs"))
        #expect(refusal(topology([([0, 1], 128, 0)], pages: 16_384)).contains("pages of one size"))
        for cells in [[([0], 128, 0)], [([0, 1], 64, 0)], [([0, 1], 64, 0), ([1], 64, 1)], [([0, 1], 256, 0), ([], -128, 1)], []] {
            #expect(refusal(topology(cells)).contains("are not its 2 VCPUs and 128 MiB"))
        }
    }
}
