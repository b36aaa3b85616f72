// RAM that is there for processors in system management mode alone. The accelerator keeps other processors out; what this process does
// for a device goes through `check`, which asks here.
//
// Two runs, in one word that an access loads once: their first and end in units of 64 KiB, 16 bits each.
import Synchronization

extension GuestMemory {
    private static let unit: UInt64 = 64 << 10

    /// Devices reach neither run from here on, whatever was concealed before. Runs are of whole 64 KiB and below 4 GiB: what else is
    /// given is a mistake of ours.
    package func conceal(_ first: Range<UInt64>?, _ second: Range<UInt64>?) {
        func word(_ run: Range<UInt64>?) -> UInt64 {
            guard let run, !run.isEmpty else { return 0 }
            precondition(run.lowerBound % Self.unit == 0 && run.upperBound % Self.unit == 0 && run.upperBound < 1 << 32, "no run of whole units below 4 GiB")
            return (run.lowerBound / Self.unit) | (run.upperBound / Self.unit) << 16
        }
        concealment.store(word(first) | word(second) << 32, ordering: .releasing)
    }

    private static func runs(_ word: UInt64) -> [Range<UInt64>] {
        [word & 0xFFFF_FFFF, word >> 32].compactMap { half in half == 0 ? nil : (half & 0xFFFF) * unit..<(half >> 16) * unit }
    }

    /// Whether any of the range, which is RAM, is concealed.
    static func conceals(_ word: UInt64, _ address: UInt64, _ byteCount: UInt64) -> Bool {
        func overlaps(_ half: UInt64) -> Bool { address < (half >> 16) * unit && address + byteCount > (half & 0xFFFF) * unit }
        return overlaps(word & 0xFFFF_FFFF) || overlaps(word >> 32)
    }

    /// What a device may reach, for the kernel's own devices: regions with concealed runs cut out.
    package var visibleRegions: [GuestMemoryRegion] {
        Self.runs(concealment.load(ordering: .acquiring)).reduce(regions) { regions, run in
            regions.flatMap { region -> [GuestMemoryRegion] in
                let base = region.base.rawValue, end = base + region.byteCount
                return [base..<max(base, min(end, run.lowerBound)), min(end, max(base, run.upperBound))..<end].compactMap { part in
                    part.isEmpty
                        ? nil
                        : GuestMemoryRegion(
                            base: GuestAddress(part.lowerBound), byteCount: UInt64(part.upperBound - part.lowerBound),
                            fileOffset: region.fileOffset + (part.lowerBound - base))
                }
            }
        }
    }
}
