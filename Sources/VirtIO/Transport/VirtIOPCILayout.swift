// Where the structures of a virtio-pci function lie in its one BAR, and the capabilities that say so (virtio 1.2 §4.1.4).
import MachineCore
import PCI

enum VirtIOPCILayout {
    static let bar: UInt8 = 0
    static let common = 0x0000..<0x1000
    static let isr = 0x1000..<0x2000
    static let device = 0x2000..<0x3000
    static let notify = 0x3000..<0x4000
    static let table = 0x4000..<0x5000
    static let pending = 0x5000..<0x6000
    static let byteCount: UInt64 = 0x8000
    /// Bytes between two queues' doorbells.
    static let notifyMultiplier = 4

    /// The body of a vendor capability after id and next pointer.
    private static func capability(type: UInt8, range: Range<Int>, extra: [UInt8] = []) -> [UInt8] {
        var writer = StateWriter()
        writer.write(UInt8(16 + extra.count))
        writer.write(type)
        writer.write(bar)
        writer.write(UInt8(0))
        writer.write(UInt16(0))
        writer.write(UInt32(range.lowerBound))
        writer.write(UInt32(range.count))
        return writer.bytes + extra
    }

    /// Adds BAR, virtio capabilities and MSI-X to `space`; returns the offsets of the two that have side effects.
    static func describe(in space: inout PCIConfigurationSpace, msix: MSIXTable) -> (window: Int, msix: Int) {
        space.addBAR(BaseAddressRegister(index: Int(bar), kind: .memory64, byteCount: byteCount))
        _ = space.addCapability(id: 0x09, body: capability(type: 1, range: common.lowerBound..<common.lowerBound + 0x38))
        _ = space.addCapability(
            id: 0x09, body: capability(type: 2, range: notify, extra: [UInt8(notifyMultiplier), 0, 0, 0]))
        _ = space.addCapability(id: 0x09, body: capability(type: 3, range: isr.lowerBound..<isr.lowerBound + 1))
        _ = space.addCapability(id: 0x09, body: capability(type: 4, range: device))
        // §4.1.4.9: bar, offset, length and the data window are the driver's to write.
        let window = space.addCapability(
            id: 0x09, body: capability(type: 5, range: 0..<0, extra: [0, 0, 0, 0]),
            writable: [0, 0, 0xFF, 0, 0, 0] + [UInt8](repeating: 0xFF, count: 12))
        let offset = space.addCapability(
            id: 0x11,
            body: msix.capabilityBody(
                bar: bar, tableOffset: UInt32(table.lowerBound), pendingOffset: UInt32(pending.lowerBound)),
            writable: MSIXTable.capabilityMask)
        return (window, offset)
    }
}
