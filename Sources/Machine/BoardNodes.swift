// A description's nodes as the host and the guest meet them: which part of RAM is whose, where it comes from, what ACPI says of it.
import Firmware
package import GuestMemory
package import MachineConfiguration
import MachineCore

extension GuestConfiguration {
    /// Where RAM comes from.
    package var memoryPlacement: MemoryPlacement {
        let size: MemoryPlacement.PageSize =
            switch hugePages {
            case nil: .small
            case .twoMiB: .twoMiB
            case .oneGiB: .oneGiB
            }
        let bindings = zip(numa?.nodes ?? [], nodeRanges).enumerated().compactMap { number, pair -> MemoryPlacement.Binding? in
            pair.0.hostNode.map { MemoryPlacement.Binding(fileRange: pair.1, hostNode: $0, guestNode: number) }
        }
        return MemoryPlacement(pageSize: size, bindings: bindings)
    }

    /// What part of RAM's file each node has, in bytes: one after the other.
    private var nodeRanges: [Range<UInt64>] {
        var start: UInt64 = 0
        return (numa?.nodes ?? []).map { node in
            let end = start + UInt64(clamping: node.memoryMiB) << 20
            defer { start = end }
            return start..<end
        }
    }

    /// What the guest is told; nil where it is told nothing.
    ///
    /// - Parameter regions: RAM as it lies, in ascending order.
    func proximityDomains(_ regions: [GuestMemoryRegion]) -> ProximityDomains? {
        guard let numa else { return nil }
        var memory: [ProximityDomains.MemoryRange] = []
        for region in regions {
            for (node, range) in nodeRanges.enumerated() {
                let part = range.clamped(to: region.fileOffset..<(region.fileOffset + region.byteCount))
                guard !part.isEmpty else { continue }
                memory.append(
                    ProximityDomains.MemoryRange(
                        base: region.base.rawValue + (part.lowerBound - region.fileOffset), byteCount: part.upperBound - part.lowerBound, node: node))
            }
        }
        return ProximityDomains(
            processors: (0..<cpu.count).map { numa.node(ofCPU: $0) ?? 0 }, memory: memory,
            distances: numa.nodes.indices.map { from in numa.nodes.indices.map { UInt8(clamping: numa.distance(from: from, to: $0)) } })
    }
}
