// The power management block as each chipset lays it out around the registers of `PowerManagement`.
package import MachineCore

/// ICH9's 128 ports (ICH9 §13.8.3): PM1, timer and GPE0 as they are, then SMI_EN and SMI_STS. The rest reads zero.
package final class ICH9PowerBlock: BusDevice {
    private static let smiEnable: UInt64 = 0x30
    /// APMC_EN and GBL_SMI_EN, already set: no firmware shall set up a system management mode that is not there.
    private static let enabled: UInt64 = 1 << 5 | 1 << 0
    private let registers: PowerManagement

    package init(_ registers: PowerManagement) { self.registers = registers }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        switch offset {
        case ..<Self.smiEnable: registers.read(offset: offset, width: width)
        case Self.smiEnable: Self.enabled & width.allOnes
        default: 0
        }
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        if offset < Self.smiEnable { registers.write(offset: offset, width: width, value: value) }
    }
}

/// PIIX4's general-purpose events at four fixed ports: two bytes of status, two of enables.
package final class PIIX4EventBlock: BusDevice {
    private static let status: UInt64 = 0x20, enable: UInt64 = 0x28
    private let registers: PowerManagement

    package init(_ registers: PowerManagement) { self.registers = registers }

    private static func place(_ offset: UInt64) -> UInt64 { offset < 2 ? status + offset : enable + (offset - 2) }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard offset + UInt64(width.byteCount) <= 4 else { return width.allOnes }
        return (0..<UInt64(width.byteCount)).reduce(0) { $0 | registers.read(offset: Self.place(offset + $1), width: .byte) << (8 * $1) }
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard offset + UInt64(width.byteCount) <= 4 else { return }
        for index in 0..<UInt64(width.byteCount) { registers.write(offset: Self.place(offset + index), width: .byte, value: value >> (8 * index) & 0xFF) }
    }
}
