// The enhanced configuration access mechanism (PCI Express 3.0 §7.2.2): 256 MiB of memory, 4 KiB a function. The ACPI
// MCFG table tells the guest where; our functions have 256 bytes each and read all ones beyond.
package import MachineCore

/// The ECAM window, attached at 0xB0000000 with a length of 256 MiB.
package final class PCIExpressWindow: BusDevice {
    package static let base: UInt64 = 0xB000_0000
    package static let byteCount: UInt64 = 256 << 20

    private let bus: PCIBus

    package init(_ bus: PCIBus) {
        self.bus = bus
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard let target = Self.target(offset: offset, width: width) else { return width.allOnes }
        return bus.read(routingID: target.routingID, offset: target.offset, width: width)
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard let target = Self.target(offset: offset, width: width) else { return }
        bus.write(routingID: target.routingID, offset: target.offset, width: width, value: value)
    }

    /// An access that crosses a double word has no meaning here and gets none.
    private static func target(offset: UInt64, width: AccessWidth) -> (routingID: UInt16, offset: Int)? {
        guard offset < byteCount, width != .quadWord, offset & 3 + UInt64(width.byteCount) <= 4 else { return nil }
        return (UInt16(truncatingIfNeeded: offset >> 12), Int(offset & 0xFFF))
    }
}
