// Where a function sits: bus, device, function (PCI 3.0 §3.2.2.3.2), segment 0 only.

/// Bus, device and function of a PCI function.
package struct PCIAddress: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let bus: UInt8
    /// 0-31.
    package let device: UInt8
    /// 0-7.
    package let function: UInt8

    /// Device and function are taken modulo their field width.
    package init(bus: UInt8 = 0, device: UInt8, function: UInt8 = 0) {
        self.bus = bus
        self.device = device & 0x1F
        self.function = function & 0x7
    }

    /// The 16-bit routing id: bus, then device, then function.
    package var routingID: UInt16 {
        UInt16(bus) << 8 | UInt16(device) << 3 | UInt16(function)
    }

    package init(routingID: UInt16) {
        self.init(
            bus: UInt8(truncatingIfNeeded: routingID >> 8), device: UInt8(truncatingIfNeeded: routingID >> 3),
            function: UInt8(truncatingIfNeeded: routingID))
    }

    package static func < (left: PCIAddress, right: PCIAddress) -> Bool {
        left.routingID < right.routingID
    }

    /// As lspci prints it, for example `00:03.0`.
    package var description: String {
        func hex(_ value: UInt8) -> String {
            let digits = String(value, radix: 16)
            return digits.count < 2 ? "0" + digits : digits
        }
        return "\(hex(bus)):\(hex(device)).\(function)"
    }
}
