// Configuration mechanism 1: the address latch at port 0xCF8 and the data window at 0xCFC-0xCFF (PCI 3.0 §3.2.2.3.2).
//
// Only a 32-bit write to 0xCF8 is the latch; narrower accesses of 0xCF8-0xCFB belong to other devices (0xCF9 is the
// reset control register: the machine attaches that one over this).
package import MachineCore
import Synchronization

/// The two ports, attached at 0xCF8 with a length of 8. A saved state holds the latch.
package final class PCIConfigurationPorts: BusDevice, SavableDevice {
    private let bus: PCIBus
    private let latch = Mutex<UInt32>(0)

    package init(_ bus: PCIBus) {
        self.bus = bus
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        if offset == 0, width == .doubleWord { return UInt64(latch.withLock { $0 }) }
        guard let target = target(offset: offset, width: width) else { return width.allOnes }
        return bus.read(routingID: target.routingID, offset: target.offset, width: width)
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        if offset == 0, width == .doubleWord {
            // Bits 30-24 and 1-0 are reserved and read as zero.
            latch.withLock { $0 = UInt32(truncatingIfNeeded: value) & 0x80FF_FFFC }
            return
        }
        guard let target = target(offset: offset, width: width) else { return }
        bus.write(routingID: target.routingID, offset: target.offset, width: width, value: value)
    }

    /// What an access of the data window means: nothing unless the enable bit is set and the access stays within it.
    private func target(offset: UInt64, width: AccessWidth) -> (routingID: UInt16, offset: Int)? {
        guard offset >= 4, offset < 8, width != .quadWord, offset + UInt64(width.byteCount) <= 8 else { return nil }
        let address = latch.withLock { $0 }
        guard address & 0x8000_0000 != 0 else { return nil }
        return (UInt16(truncatingIfNeeded: address >> 8), Int(address & 0xFC) + Int(offset - 4))
    }

    package func reset() {
        latch.withLock { $0 = 0 }
    }

    // MARK: saved state

    package var stateName: String { "pci-configuration-ports" }
    package static var stateVersion: UInt32 { 1 }

    package func saveState(into writer: inout StateWriter) {
        writer.write(latch.withLock { $0 })
    }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        let value = try reader.read(UInt32.self) & 0x80FF_FFFC
        latch.withLock { $0 = value }
    }
}
