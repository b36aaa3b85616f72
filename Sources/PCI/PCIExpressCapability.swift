// The PCI Express capability (PCI Express 3.0 §7.8), version 2, of the two kinds of functions that have it here: a root port and the
// endpoint behind one. A link of one lane at 2.5 GT/s that is always up.

extension PCIConfigurationSpace {
    private static let express: UInt8 = 0x10
    private static let version: UInt16 = 2, rootPort: UInt16 = 4 << 4, hasSlot: UInt16 = 1 << 8
    /// Role-based error reporting.
    private static let deviceCapabilities: UInt32 = 1 << 15
    private static let link: UInt32 = 0x11
    /// Of the link: reports that it is active; that it is.
    private static let reportsActive: UInt32 = 1 << 20, isActive: UInt16 = 1 << 13
    private static let isPresent: UInt16 = 1 << 6

    /// - Parameter slotNumber: unique in the machine, as a guest shows it.
    package mutating func addRootPort(slotNumber: UInt16, isOccupied: Bool) {
        addExpress(
            Self.version | Self.rootPort | Self.hasSlot, link: Self.link | Self.reportsActive, status: UInt16(Self.link) | (isOccupied ? Self.isActive : 0),
            slot: UInt32(slotNumber & 0x1FFF) << 19, slotStatus: isOccupied ? Self.isPresent : 0)
    }

    package mutating func addExpressEndpoint() {
        addExpress(Self.version, link: Self.link, status: UInt16(Self.link), slot: 0, slotStatus: 0)
    }

    private mutating func addExpress(_ kind: UInt16, link: UInt32, status: UInt16, slot: UInt32, slotStatus: UInt16) {
        // Body and mask begin behind id and next pointer, at offset 2 of the capability.
        var body = [UInt8](repeating: 0, count: 58), mask = body
        func put(_ value: UInt32, _ byteCount: Int, at offset: Int, writable: UInt32 = 0) {
            for index in 0..<byteCount {
                body[offset - 2 + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index))
                mask[offset - 2 + index] = UInt8(truncatingIfNeeded: writable >> UInt32(8 * index))
            }
        }
        put(UInt32(kind), 2, at: 0x02)
        put(Self.deviceCapabilities, 4, at: 0x04)
        put(0, 2, at: 0x08, writable: 0x7FFF)  // device control: kept, without effect; no function-level reset
        put(link, 4, at: 0x0C)
        put(0, 2, at: 0x10, writable: 0x00CB)  // link control
        put(UInt32(status), 2, at: 0x12)
        put(slot, 4, at: 0x14)
        put(UInt32(slotStatus), 2, at: 0x1A)
        put(0, 2, at: 0x1C, writable: kind & Self.rootPort != 0 ? 0x0F : 0)  // root control
        put(0, 2, at: 0x28, writable: 0x001F)  // completion timeout
        put(1, 2, at: 0x30)  // target link speed
        hasExtendedSpace = true
        _ = addCapability(id: Self.express, body: body, writable: mask)
    }
}
