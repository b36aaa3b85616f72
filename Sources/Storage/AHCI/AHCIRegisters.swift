// Registers of an AHCI host bus adapter (AHCI 1.3.1 §3) and the structures it reads and writes in memory (§4), by the names that
// the specification gives them.

/// Generic host control, offsets in the ABAR.
enum AHCIRegister {
    static let capabilities: UInt64 = 0x00  // CAP
    static let globalHostControl: UInt64 = 0x04  // GHC
    static let interruptStatus: UInt64 = 0x08  // IS
    static let portsImplemented: UInt64 = 0x0C  // PI
    static let version: UInt64 = 0x10  // VS
    static let capabilities2: UInt64 = 0x24  // CAP2
    static let firstPort: UInt64 = 0x100
    static let portByteCount: UInt64 = 0x80

    /// S64A, SNCQ, SCLO, SAM, 3 Gbit/s, 32 command slots.
    static let capabilityBits: UInt32 = 1 << 31 | 1 << 30 | 1 << 24 | 1 << 18 | 2 << 20 | 31 << 8
    static let versionNumber: UInt32 = 0x0001_0300

    enum HostControl {
        static let reset: UInt32 = 1 << 0  // HR
        static let interruptEnable: UInt32 = 1 << 1  // IE
        static let ahciEnable: UInt32 = 1 << 31  // AE: read-only one, there being no other mode
    }
}

/// Offsets in a port's registers.
enum AHCIPortRegister: UInt64 {
    case commandListBase = 0x00  // CLB
    case commandListBaseUpper = 0x04  // CLBU
    case fisBase = 0x08  // FB
    case fisBaseUpper = 0x0C  // FBU
    case interruptStatus = 0x10  // IS
    case interruptEnable = 0x14  // IE
    case command = 0x18  // CMD
    case taskFileData = 0x20  // TFD
    case signature = 0x24  // SIG
    case sataStatus = 0x28  // SSTS
    case sataControl = 0x2C  // SCTL
    case sataError = 0x30  // SERR
    case sataActive = 0x34  // SACT
    case commandIssue = 0x38  // CI

    /// PxIS and PxIE.
    enum Interrupt {
        static let deviceToHost: UInt32 = 1 << 0  // DHRS
        static let pioSetup: UInt32 = 1 << 1  // PSS
        static let setDeviceBits: UInt32 = 1 << 3  // SDBS
        static let portConnectChange: UInt32 = 1 << 6  // PCS: shows SERR.DIAG.X
        static let overflow: UInt32 = 1 << 24  // OFS
        static let hostBusFatal: UInt32 = 1 << 29  // HBFS
        static let taskFileError: UInt32 = 1 << 30  // TFES
        static let known: UInt32 = 0xFDC0_00FF
    }
    /// PxCMD.
    enum Command {
        static let start: UInt32 = 1 << 0  // ST
        static let spinUp: UInt32 = 1 << 1  // SUD
        static let powerOn: UInt32 = 1 << 2  // POD
        static let listOverride: UInt32 = 1 << 3  // CLO
        static let fisReceiveEnable: UInt32 = 1 << 4  // FRE
        static let fisReceiveRunning: UInt32 = 1 << 14  // FR
        static let listRunning: UInt32 = 1 << 15  // CR
        static let isATAPI: UInt32 = 1 << 24  // ATAPI: kept for software
        /// ST, FRE, ATAPI, DLAE.
        static let writable: UInt32 = start | fisReceiveEnable | isATAPI | 1 << 25
    }
    static let exchanged: UInt32 = 1 << 26  // SERR.DIAG.X
}

/// Offsets in the received FIS structure (§4.2.1) and types of FIS (SATA 2.6 §10.3).
enum AHCIFIS {
    static let pioSetupOffset: UInt64 = 0x20
    static let deviceToHostOffset: UInt64 = 0x40
    static let setDeviceBitsOffset: UInt64 = 0x58
    static let hostToDevice: UInt8 = 0x27
    static let deviceToHost: UInt8 = 0x34
    static let pioSetup: UInt8 = 0x5F
    static let setDeviceBits: UInt8 = 0xA1
    static let interrupt: UInt8 = 0x40
    static let toHost: UInt8 = 0x20
}

/// One of the 32 entries of the command list (§4.2.2).
struct AHCICommandHeader: BitwiseCopyable {
    var flags: UInt32 = 0
    var byteCount: UInt32 = 0  // PRDBC
    var table: UInt32 = 0
    var tableUpper: UInt32 = 0

    /// CFL, in words of four bytes.
    var fisByteCount: Int { Int(flags & 0x1F) * 4 }
    var isPacket: Bool { flags & 1 << 5 != 0 }
    /// C: clear BSY when the FIS was taken.
    var clearsBusy: Bool { flags & 1 << 10 != 0 }
    var regionCount: Int { Int(flags >> 16) }
    var tableAddress: UInt64 { UInt64(table & ~0x7F) | UInt64(tableUpper) << 32 }
    static let byteCountOffset: UInt64 = 4
}

/// A physical region descriptor (§4.2.3.3).
struct AHCIRegion: BitwiseCopyable {
    var address: UInt32 = 0
    var addressUpper: UInt32 = 0
    var reserved: UInt32 = 0
    var count: UInt32 = 0

    /// DBC: one less than the count, always even in hardware.
    var byteCount: Int { Int(count & 0x3F_FFFF | 1) + 1 }
    var start: UInt64 { UInt64(address & ~1) | UInt64(addressUpper) << 32 }
}

/// The command FIS, its 20 bytes as the host laid them down.
struct AHCICommandFIS: BitwiseCopyable {
    var word0: UInt32 = 0
    var word1: UInt32 = 0
    var word2: UInt32 = 0
    var word3: UInt32 = 0
    var word4: UInt32 = 0

    private func byte(_ word: UInt32, _ index: UInt32) -> UInt16 { UInt16(word >> (8 * index) & 0xFF) }

    var type: UInt8 { UInt8(word0 & 0xFF) }
    /// C: the FIS carries a command; without it, the control register.
    var isCommand: Bool { word0 & 0x8000 != 0 }
    var control: UInt8 { UInt8(word3 >> 24) }

    var taskFile: TaskFile {
        var file = TaskFile()
        file.command = UInt8(byte(word0, 2))
        file.features = byte(word0, 3) | byte(word2, 3) << 8
        file.lbaLow = byte(word1, 0) | byte(word2, 0) << 8
        file.lbaMid = byte(word1, 1) | byte(word2, 1) << 8
        file.lbaHigh = byte(word1, 2) | byte(word2, 2) << 8
        file.device = UInt8(byte(word1, 3))
        file.count = byte(word3, 0) | byte(word3, 1) << 8
        return file
    }
}

extension TaskFile {
    /// A register FIS to the host (SATA 2.6 §10.3.5); PIO Setup has the same first fourteen bytes.
    func registerFIS(type: UInt8, flags: UInt8) -> [UInt8] {
        let low = { (word: UInt16) in UInt8(truncatingIfNeeded: word) }
        let high = { (word: UInt16) in UInt8(truncatingIfNeeded: word >> 8) }
        return [
            type, flags, status, error, low(lbaLow), low(lbaMid), low(lbaHigh), device, high(lbaLow), high(lbaMid),
            high(lbaHigh), 0,
            low(count), high(count), 0, 0, 0, 0, 0, 0,
        ]
    }

    /// What PxSIG shows of a signature.
    var signature: UInt32 {
        UInt32(lbaHigh & 0xFF) << 24 | UInt32(lbaMid & 0xFF) << 16 | UInt32(lbaLow & 0xFF) << 8 | UInt32(count & 0xFF)
    }
}
