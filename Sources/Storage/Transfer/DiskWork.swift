// What a command, of whatever command set, comes to for the image behind the drive. Offsets and lengths were checked against
// the capacity by the command set that made it.
import MachineCore

/// A run of bytes of an image.
package struct ByteRange: Sendable, Equatable {
    package var offset: UInt64
    package var byteCount: UInt64

    package init(offset: UInt64, byteCount: UInt64) {
        self.offset = offset
        self.byteCount = byteCount
    }
}

/// One piece of work for an image.
package enum DiskWork: Sendable, Equatable {
    /// From the image into the command's memory.
    case read(offset: UInt64, byteCount: Int)
    /// From the command's memory; durable on completion where asked (FUA, or no write cache).
    case write(offset: UInt64, byteCount: Int, isDurable: Bool)
    /// Everything completed before is durable after.
    case flush
    /// The bytes may be forgotten.
    case discard([ByteRange])
    /// The bytes read as zero after.
    case writeZeroes([ByteRange], mayUnmap: Bool)
}

/// A drive's name plates.
package struct DriveIdentity: Sendable, Equatable {
    /// At most 40 characters count (ATA); SCSI takes the first 16.
    package var model: String
    /// At most 20 characters count.
    package var serial: String
    /// At most 8 characters count; SCSI takes the first 4.
    package var firmware: String
    /// World wide name, 0 where it has none.
    package var worldWideName: UInt64

    package init(model: String = "APUS HARDDISK", serial: String, firmware: String = "1.0", worldWideName: UInt64 = 0) {
        self.model = model
        self.serial = serial
        self.firmware = firmware
        self.worldWideName = worldWideName
    }

    /// `text` as printable ASCII in exactly `count` bytes, padded with spaces as every drive standard pads.
    package static func padded(_ text: String, _ count: Int) -> [UInt8] {
        let bytes = text.utf8.prefix(count).map { $0 >= 0x20 && $0 < 0x7F ? $0 : 0x20 }
        return bytes + [UInt8](repeating: 0x20, count: count - bytes.count)
    }
}

extension DeviceCounters {
    /// Work that ended well.
    func count(_ work: DiskWork) {
        switch work {
        case .read(_, let byteCount): countRead(bytes: byteCount)
        case .write(_, let byteCount, _): countWrite(bytes: byteCount)
        case .flush: countFlush()
        case .discard, .writeZeroes: countWrite(bytes: 0)
        }
    }
}
