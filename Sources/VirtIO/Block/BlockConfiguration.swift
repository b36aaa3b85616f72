// The block device's configuration space and features (virtio 1.2 §5.2.3, §5.2.4).
import DiskImage
import MachineCore

/// Feature bits of a block device.
extension VirtIOFeatures {
    static let blockSegmentMaximum = VirtIOFeatures.device(2)
    static let blockGeometry = VirtIOFeatures.device(4)
    static let blockReadOnly = VirtIOFeatures.device(5)
    static let blockSize = VirtIOFeatures.device(6)
    static let blockFlush = VirtIOFeatures.device(9)
    static let blockTopology = VirtIOFeatures.device(10)
    static let blockMultiQueue = VirtIOFeatures.device(12)
    static let blockDiscard = VirtIOFeatures.device(13)
    static let blockWriteZeroes = VirtIOFeatures.device(14)
}

/// The values behind the configuration space.
struct BlockConfiguration: Sendable, Equatable {
    /// Data buffers of one request.
    static let segmentMaximum = 126
    /// One gigabyte a segment, the range of a signed 32-bit byte count.
    static let rangeSectorMaximum: UInt32 = 1 << 21
    static let rangeSegmentMaximum: UInt32 = 64

    var sectorCount: UInt64
    var logicalBlockByteCount: UInt32
    var physicalBlockByteCount: UInt32
    var queueCount: UInt16

    init(_ backend: any BlockBackend, queueCount: Int) {
        sectorCount = backend.byteCount / 512
        logicalBlockByteCount = backend.logicalBlockByteCount
        physicalBlockByteCount = max(backend.physicalBlockByteCount, backend.logicalBlockByteCount)
        self.queueCount = UInt16(clamping: queueCount)
    }

    /// The structure as the driver reads it.
    var bytes: [UInt8] {
        var writer = StateWriter()
        writer.write(sectorCount)
        writer.write(UInt32(0))  // size_max, not offered
        writer.write(UInt32(Self.segmentMaximum))
        // The geometry large disks have shown since LBA: 16 heads, 63 sectors.
        writer.write(UInt16(clamping: sectorCount / (16 * 63)))
        writer.write(UInt8(16))
        writer.write(UInt8(63))
        writer.write(logicalBlockByteCount)
        let exponent = (physicalBlockByteCount / logicalBlockByteCount).trailingZeroBitCount
        writer.write(UInt8(clamping: exponent))
        writer.write(UInt8(0))  // alignment offset
        writer.write(UInt16(clamping: physicalBlockByteCount / logicalBlockByteCount))  // suggested minimum I/O
        writer.write(UInt32(0))  // optimal I/O: no preference
        writer.write(UInt8(1))  // write-back
        writer.write(UInt8(0))
        writer.write(queueCount)
        writer.write(Self.rangeSectorMaximum)  // discard
        writer.write(Self.rangeSegmentMaximum)
        writer.write(physicalBlockByteCount / 512)
        writer.write(Self.rangeSectorMaximum)  // write zeroes
        writer.write(Self.rangeSegmentMaximum)
        writer.write(UInt8(1))  // write zeroes may unmap
        writer.write(UInt8(0))
        writer.write(UInt16(0))
        return writer.bytes
    }
}
