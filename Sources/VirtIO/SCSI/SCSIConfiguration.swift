// The device configuration of a virtio SCSI host (virtio 1.2 §5.6.4) and the numbers of its protocol (§5.6.6).
import MachineCore

extension VirtIOFeatures {
    /// VIRTIO_SCSI_F_CHANGE: events tell of changed units.
    static let scsiChange = device(2)
}

struct SCSIConfiguration: Sendable {
    static let segmentMaximum: UInt32 = 126
    static let senseByteCountDefault: UInt32 = 96
    static let blockByteCountDefault: UInt32 = 32
    private static let senseOffset = 20
    private static let blockOffset = 24

    var requestQueueCount: UInt32
    var lastTarget: UInt16
    /// sense_size and cdb_size, which the driver may set.
    var senseByteCount = senseByteCountDefault
    var blockByteCount = blockByteCountDefault

    init(requestQueueCount: Int, lastTarget: UInt8) {
        self.requestQueueCount = UInt32(clamping: requestQueueCount)
        self.lastTarget = UInt16(lastTarget)
    }

    var bytes: [UInt8] {
        var writer = StateWriter()
        writer.write(requestQueueCount)
        writer.write(Self.segmentMaximum)
        writer.write(UInt32(0xFFFF))  // max_sectors
        writer.write(UInt32(128))  // cmd_per_lun
        writer.write(UInt32(SCSIEvent.byteCount))
        writer.write(senseByteCount)
        writer.write(blockByteCount)
        writer.write(UInt16(0))  // max_channel
        writer.write(lastTarget)
        writer.write(UInt32(0))  // max_lun
        return writer.bytes
    }

    /// Sizes that no driver needs are not taken: the field keeps its value.
    mutating func write(offset: Int, width: AccessWidth, value: UInt64) {
        guard width == .doubleWord else { return }
        if offset == Self.senseOffset, value <= 252 { senseByteCount = UInt32(value) }
        if offset == Self.blockOffset, value >= 16, value <= 255 { blockByteCount = UInt32(value) }
    }

    mutating func reset() {
        senseByteCount = Self.senseByteCountDefault
        blockByteCount = Self.blockByteCountDefault
    }
}

/// How far a request came (`response`); commands and task management share the numbers.
enum SCSIResponse {
    static let ok: UInt8 = 0  // also: function complete
    static let overrun: UInt8 = 1
    static let badTarget: UInt8 = 3
    static let functionSucceeded: UInt8 = 10
    static let functionRejected: UInt8 = 11
    static let incorrectLUN: UInt8 = 12
}

enum SCSIEvent {
    static let byteCount = 16
    static let parameterChange: UInt32 = 3  // VIRTIO_SCSI_T_PARAM_CHANGE
}

/// An address as requests give it (§5.6.6.1): 1, the target, a single-level LUN, zeroes.
struct SCSIAddress: Equatable {
    var target: UInt8
    var lun: UInt16

    init?(_ bytes: [UInt8], at offset: Int) {
        guard bytes.count >= offset + 8, bytes[offset] == 1 else { return nil }
        target = bytes[offset + 1]
        lun = (UInt16(bytes[offset + 2]) << 8 | UInt16(bytes[offset + 3])) & 0x3FFF
    }

    static func bytes(target: UInt8, lun: UInt16) -> [UInt8] {
        [1, target, 0x40 | UInt8(lun >> 8 & 0x3F), UInt8(lun & 0xFF), 0, 0, 0, 0]
    }
}
