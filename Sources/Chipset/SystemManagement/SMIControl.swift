// What makes a system management interrupt, and for whom: SMI_EN and SMI_STS of ICH9's power management block (ICH9 §13.8.3.6,
// §13.8.3.7), SMI_LOCK (§13.8.1.1), and which processors one command interrupts, agreed with firmware over fw_cfg (QEMU,
// docs/specs/fw_cfg: etc/smi). A plain value.
//
// The one source here is a write to APM_CNT. The commands that switch ACPI on and off make none: the registers follow them by themselves.
package import MachineCore

package struct SMIControl: Sendable, Equatable {
    package enum Enable {
        package static let global: UInt32 = 1 << 0, command: UInt32 = 1 << 5
        /// EOS and BIOS_RLS: written, and never read as set.
        package static let strobes: UInt32 = 1 << 1 | 1 << 7
    }
    package static let commandStatus: UInt32 = 1 << 5
    /// Features that firmware may ask for: an SMI interrupts every processor.
    package static let broadcast: UInt64 = 1 << 0
    package static let supported = broadcast

    package private(set) var enable: UInt32 = 0
    package private(set) var status: UInt32 = 0
    /// GBL_SMI_EN keeps its value until a reset.
    package private(set) var isLocked = false
    package private(set) var requested: UInt64 = 0
    /// What was agreed; nil before.
    package private(set) var negotiated: UInt64?

    package init() {}

    package mutating func lock() { isLocked = true }
    package mutating func reset() { self = SMIControl() }

    // MARK: Registers, by bytes from SMI_EN on

    package func byte(at offset: Int) -> UInt8 {
        UInt8(truncatingIfNeeded: (UInt64(status) << 32 | UInt64(enable)) >> UInt64(8 * (offset & 7)))
    }

    package mutating func write(_ byte: UInt8, at offset: Int) {
        let shift = UInt32(8 * (offset & 3)), mask = UInt32(0xFF) << shift, value = UInt32(byte) << shift
        guard offset & 7 < 4 else {
            // Written ones clear.
            status &= ~value
            return
        }
        let kept = Enable.strobes | (isLocked ? Enable.global : 0)
        enable = enable & ~(mask & ~kept) | value & ~kept
    }

    // MARK: Features

    /// Firmware wrote its wish. After the agreement it has none.
    package mutating func request(_ features: UInt64) { if negotiated == nil { requested = features } }

    /// Firmware asks whether its wish is granted: 1, and it is final; 0 where it wants what is not there.
    package mutating func agree() -> UInt8 {
        if negotiated == nil, requested & ~Self.supported == 0 { negotiated = requested }
        return negotiated == nil ? 0 : 1
    }

    // MARK: Interrupts

    package enum Target: Sendable, Equatable { case writer, all }

    /// A write to APM_CNT: whom it interrupts; nil: nobody.
    package mutating func command() -> Target? {
        status |= Self.commandStatus
        guard enable & (Enable.global | Enable.command) == Enable.global | Enable.command else { return nil }
        return (negotiated ?? 0) & Self.broadcast != 0 ? .all : .writer
    }

    // MARK: Saved state

    package func save(into writer: inout StateWriter) {
        writer.write(enable)
        writer.write(status)
        writer.write(isLocked)
        writer.write(requested)
        writer.write(negotiated != nil)
        writer.write(negotiated ?? 0)
    }

    package init(from reader: inout StateReader) throws(DeviceStateError) {
        enable = try reader.read() & ~Enable.strobes
        status = try reader.read()
        isLocked = try reader.readBool()
        requested = try reader.read()
        let isAgreed = try reader.readBool(), features: UInt64 = try reader.read()
        guard features & ~Self.supported == 0 else {
            throw DeviceStateError(section: reader.section, reason: "SMI features 0x\(String(features, radix: 16)), which this program does not have")
        }
        negotiated = isAgreed ? features : nil
    }
}
