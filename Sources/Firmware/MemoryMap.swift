// Where everything lies in the guest's physical address space: one list of names for the loaders, the tables and the board.
import GuestMemory

/// The guest-physical layout. Addresses in bytes.
package enum MemoryMap {
    /// Conventional memory ends where the extended BIOS data area would begin.
    package static let conventionalEnd: UInt64 = 0x9_FC00
    /// ACPI tables, SMBIOS and the RSDP: the area that is searched for them.
    package static let biosArea: UInt64 = 0xE_0000
    package static let biosAreaEnd: UInt64 = 0x10_0000
    /// The generation id's page on a machine without firmware, behind the tables in the area that is reserved anyway.
    package static let generationPage: UInt64 = 0xF_F000
    package static let highMemory: UInt64 = 0x10_0000
    /// RAM below 4 GiB ends here at the latest.
    package static let lowMemoryEnd: UInt64 = GuestMemory.lowMemoryEnd
    /// PCI Express configuration space, 256 buses of 1 MiB.
    package static let ecamBase: UInt64 = 0xB000_0000
    package static let ecamByteCount: UInt64 = 0x1000_0000
    /// BARs below 4 GiB.
    package static let pciWindow: UInt64 = 0xC000_0000
    package static let pciWindowEnd: UInt64 = 0xFEC0_0000
    package static let ioAPIC: UInt64 = 0xFEC0_0000
    package static let hpet: UInt64 = 0xFED0_0000
    package static let localAPIC: UInt64 = 0xFEE0_0000
    /// KVM's identity map page and TSS.
    package static let kvmReserved: UInt64 = 0xFEFF_C000
    package static let kvmReservedByteCount: UInt64 = 0x4000
    package static let fourGiB: UInt64 = 1 << 32
    /// BARs above 4 GiB: 256 GiB from the first GiB behind RAM, which processors with 39 address bits still reach.
    package static func widePCIWindow(highMemoryEnd: UInt64) -> ClosedRange<UInt64> {
        let gib: UInt64 = 1 << 30
        // RAM that ended in the last TiB of the address space could not be mapped.
        let end = min(max(highMemoryEnd, fourGiB), .max - 1024 * gib)
        let base = (end + gib - 1) & ~(gib - 1)
        return base...(base + 256 * gib - 1)
    }
    /// Where RAM below 4 GiB ends on a PC with firmware: SeaBIOS and OVMF place BARs, and ECAM, from there up.
    package static func pcLowMemoryEnd(memoryByteCount: UInt64, hasECAM: Bool) -> UInt64 {
        if hasECAM { return memoryByteCount >= 0xB000_0000 ? 0x8000_0000 : 0xB000_0000 }
        return memoryByteCount >= 0xE000_0000 ? 0xC000_0000 : 0xE000_0000
    }

    /// I/O ports of the power management block.
    package static let pmBase: UInt16 = 0x600
    package static let gpe0Base: UInt16 = 0x620
    /// I/O ports for BARs.
    package static let pciPortWindow: UInt16 = 0x1000
    package static let pciPortWindowEnd: UInt16 = 0xFFFF

    /// One line of an e820 map.
    package struct Range: Sendable, Equatable {
        package enum Kind: UInt32, Sendable { case ram = 1, reserved = 2, acpi = 3 }
        package let base: UInt64
        package let byteCount: UInt64
        package let kind: Kind

        package init(base: UInt64, byteCount: UInt64, kind: Kind) {
            self.base = base
            self.byteCount = byteCount
            self.kind = kind
        }
    }

    /// The e820 map of a guest with this RAM, ascending and without overlap.
    package static func ranges(memoryByteCount: UInt64, lowMemoryEnd: UInt64 = MemoryMap.lowMemoryEnd) -> [Range] {
        let low = min(memoryByteCount, lowMemoryEnd)
        var ranges = [
            Range(base: 0, byteCount: conventionalEnd, kind: .ram),
            Range(base: conventionalEnd, byteCount: 0xA_0000 - conventionalEnd, kind: .reserved),
            Range(base: biosArea, byteCount: biosAreaEnd - biosArea, kind: .reserved),
            Range(base: highMemory, byteCount: low - highMemory, kind: .ram),
            Range(base: ecamBase, byteCount: ecamByteCount, kind: .reserved),
            Range(base: kvmReserved, byteCount: kvmReservedByteCount, kind: .reserved),
        ]
        if memoryByteCount > low {
            ranges.append(Range(base: fourGiB, byteCount: memoryByteCount - low, kind: .ram))
        }
        return ranges
    }
}
