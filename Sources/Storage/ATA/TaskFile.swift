// The registers that a command is written into and its end is read from (ATA8-ACS §7, "task file"), as an IDE channel shows them
// one by one and a Register FIS carries them at once.

/// Registers of one device. Those two deep hold the previous content in the high byte, as 48-bit commands want it.
package struct TaskFile: Sendable, Equatable {
    package var features: UInt16 = 0
    package var count: UInt16 = 0
    package var lbaLow: UInt16 = 0
    package var lbaMid: UInt16 = 0
    package var lbaHigh: UInt16 = 0
    package var device: UInt8 = 0
    package var command: UInt8 = 0
    package var status: UInt8 = 0
    package var error: UInt8 = 0

    package init() {}

    /// Bits of the status register.
    package enum Status {
        package static let busy: UInt8 = 0x80  // BSY
        package static let ready: UInt8 = 0x40  // DRDY
        package static let deviceFault: UInt8 = 0x20  // DF
        package static let seekComplete: UInt8 = 0x10  // DSC, in old drives
        package static let dataRequest: UInt8 = 0x08  // DRQ
        package static let error: UInt8 = 0x01  // ERR; CHK for a packet device
        /// What a drive with nothing to do shows.
        package static let idle = ready | seekComplete
    }
    /// Bits of the error register.
    package enum ErrorBits {
        package static let uncorrectable: UInt8 = 0x40  // UNC
        package static let idNotFound: UInt8 = 0x10  // IDNF
        package static let aborted: UInt8 = 0x04  // ABRT
    }
    /// Bits of the device register.
    package enum Device {
        package static let lba: UInt8 = 0x40
        package static let second: UInt8 = 0x10  // DEV
        package static let forceUnitAccess: UInt8 = 0x80  // in NCQ commands
    }

    /// The 48-bit address: six bytes in three registers.
    package var lba48: UInt64 {
        get {
            let low = UInt64(lbaLow & 0xFF) | UInt64(lbaMid & 0xFF) << 8 | UInt64(lbaHigh & 0xFF) << 16
            return low | UInt64(lbaLow >> 8) << 24 | UInt64(lbaMid >> 8) << 32 | UInt64(lbaHigh >> 8) << 40
        }
        set {
            lbaLow = UInt16(newValue & 0xFF) | UInt16(newValue >> 24 & 0xFF) << 8
            lbaMid = UInt16(newValue >> 8 & 0xFF) | UInt16(newValue >> 32 & 0xFF) << 8
            lbaHigh = UInt16(newValue >> 16 & 0xFF) | UInt16(newValue >> 40 & 0xFF) << 8
        }
    }

    /// The 28-bit address: three bytes and the low half of the device register.
    package var lba28: UInt64 {
        get {
            UInt64(lbaLow & 0xFF) | UInt64(lbaMid & 0xFF) << 8 | UInt64(lbaHigh & 0xFF) << 16 | UInt64(device & 0x0F)
                << 24
        }
        set {
            lbaLow = UInt16(newValue & 0xFF)
            lbaMid = UInt16(newValue >> 8 & 0xFF)
            lbaHigh = UInt16(newValue >> 16 & 0xFF)
            device = device & 0xF0 | UInt8(newValue >> 24 & 0x0F)
        }
    }

    package mutating func succeed() {
        status = Status.idle
        error = 0
    }

    package mutating func fail(_ bits: UInt8) {
        status = Status.idle | Status.error
        error = bits
    }

    /// What a device leaves in its registers after a reset (ATA8-ACS §9, table "signature").
    package mutating func setSignature(isPacketDevice: Bool) {
        count = 1
        lbaLow = 1
        lbaMid = isPacketDevice ? 0x14 : 0
        lbaHigh = isPacketDevice ? 0xEB : 0
        device &= Device.second
        error = 1  // diagnostic code: passed
        status = isPacketDevice ? 0 : Status.idle
    }
}
