import Firmware
import GuestMemory
import HostSystem
import MachineConfiguration
import Testing

@testable import Machine

/// A description's nodes as RAM's file, guest-physical ranges and tables have them.
struct NodeTests {
    private func configuration(_ nodes: [NUMAConfiguration.Node], hugePages: HugePageSize? = nil) -> GuestConfiguration {
        GuestConfiguration(
            name: "a", uuid: .zero, memoryMiB: nodes.reduce(0) { $0 + $1.memoryMiB }, cpu: CPUConfiguration(count: 4, sockets: 1, cores: 4, threads: 1),
            kernel: -1, numa: NUMAConfiguration(nodes: nodes, distances: [NUMAConfiguration.Distance(from: 0, to: 1, value: 25)]), hugePages: hugePages)
    }
    private func node(_ cpus: [Int], _ memoryMiB: Int, host: Int? = nil) -> NUMAConfiguration.Node {
        NUMAConfiguration.Node(cpus: cpus, memoryMiB: memoryMiB, hostNode: host)
    }

    @Test func theHoleBelow4GiBSplitsTheNodeThatLiesAcrossIt() throws {
        let machine = configuration([node([0, 2], 2048), node([1, 3], 2048)])
        let regions = [
            GuestMemoryRegion(base: GuestAddress(0), byteCount: 0xB000_0000, fileOffset: 0),
            GuestMemoryRegion(base: GuestAddress(1 << 32), byteCount: 0x5000_0000, fileOffset: 0xB000_0000),
        ]
        let domains = try #require(machine.proximityDomains(regions))
        typealias Range = ProximityDomains.MemoryRange
        #expect(
            domains.memory == [
                Range(base: 0, byteCount: 0x8000_0000, node: 0), Range(base: 0x8000_0000, byteCount: 0x3000_0000, node: 1),
                Range(base: 1 << 32, byteCount: 0x5000_0000, node: 1),
            ])
        #expect(domains.processors == [0, 1, 0, 1] && domains.distances == [[10, 25], [25, 10]])
    }

    @Test func nodesWithAHostsAreBoundInTheOrderOfTheFile() {
        let placement = configuration([node([0], 64, host: 1), node([1], 32), node([2, 3], 32, host: 0)], hugePages: .twoMiB).memoryPlacement
        let mib: UInt64 = 1 << 20
        #expect(
            placement
                == MemoryPlacement(
                    pageSize: .twoMiB,
                    bindings: [
                        MemoryPlacement.Binding(fileRange: 0..<(64 * mib), hostNode: 1, guestNode: 0),
                        MemoryPlacement.Binding(fileRange: (96 * mib)..<(128 * mib), hostNode: 0, guestNode: 2),
                    ]))
        var plain = configuration([node([0, 1, 2, 3], 64)])
        #expect(plain.memoryPlacement.isPlain)
        plain.numa = nil
        #expect(plain.memoryPlacement.isPlain && plain.proximityDomains([]) == nil)
    }
}
