// One request as the driver lays it out (virtio 1.2 §5.2.6): header, data, status byte. Parsed and checked without I/O.
import DiskImage
import GuestMemory

/// The 16 bytes every request starts with.
private struct RequestHeader: BitwiseCopyable {
    var type: UInt32 = 0
    var reserved: UInt32 = 0
    var sector: UInt64 = 0
}

/// One range of a discard or write-zeroes request.
private struct RangeSegment: BitwiseCopyable {
    var sector: UInt64 = 0
    var sectorCount: UInt32 = 0
    var flags: UInt32 = 0
}

/// Status bytes of a block request.
enum BlockStatus: UInt8, Sendable {
    case ok = 0
    case ioError = 1
    case unsupported = 2
}

/// What a chain asks for.
enum BlockCommand: Sendable, Equatable {
    struct Range: Sendable, Equatable {
        var offset: UInt64
        var byteCount: UInt64
        var mayUnmap: Bool
    }

    case read(offset: UInt64, byteCount: Int)
    case write(offset: UInt64, byteCount: Int)
    case flush
    case discard([Range])
    case writeZeroes([Range])
    case identify
    /// Answered with this status and nothing done.
    case refuse(BlockStatus)

    static let headerByteCount = 16

    /// Reads the command out of `chain`; nil where there is not even room for a status byte or a header: a broken driver.
    init?(_ chain: borrowing DescriptorChain, sectorCount: UInt64, isReadOnly: Bool, features: VirtIOFeatures) {
        guard chain.writableByteCount >= 1,
            let header = chain.load(RequestHeader.self, at: 0, zero: RequestHeader())
        else { return nil }
        let readable = chain.readableByteCount - Self.headerByteCount
        let writable = chain.writableByteCount - 1
        switch header.type {
        case 0: self = Self.transfer(header.sector, writable, sectorCount) { .read(offset: $0, byteCount: writable) }
        case 1:
            self = isReadOnly ? .refuse(.ioError)
                : Self.transfer(header.sector, readable, sectorCount) { .write(offset: $0, byteCount: readable) }
        case 4: self = .flush
        case 8: self = .identify
        case 11 where features.contains(.blockDiscard):
            self = Self.ranges(chain, readable, sectorCount, isReadOnly) { .discard($0) }
        case 13 where features.contains(.blockWriteZeroes):
            self = Self.ranges(chain, readable, sectorCount, isReadOnly) { .writeZeroes($0) }
        default: self = .refuse(.unsupported)
        }
    }

    private static func transfer(
        _ sector: UInt64, _ byteCount: Int, _ sectorCount: UInt64, _ make: (UInt64) -> BlockCommand
    ) -> BlockCommand {
        guard byteCount > 0, byteCount % 512 == 0 else { return .refuse(.ioError) }
        guard isInside(sector, UInt64(byteCount / 512), sectorCount) else { return .refuse(.ioError) }
        return make(sector * 512)
    }

    private static func ranges(
        _ chain: borrowing DescriptorChain, _ byteCount: Int, _ sectorCount: UInt64, _ isReadOnly: Bool,
        _ make: ([Range]) -> BlockCommand
    ) -> BlockCommand {
        let size = MemoryLayout<RangeSegment>.size
        guard !isReadOnly, byteCount > 0, byteCount % size == 0,
            byteCount / size <= Int(BlockConfiguration.rangeSegmentMaximum)
        else { return .refuse(.ioError) }
        var ranges: [Range] = []
        for index in 0..<(byteCount / size) {
            guard let segment = chain.load(RangeSegment.self, at: headerByteCount + index * size, zero: RangeSegment())
            else { return .refuse(.ioError) }
            // §5.2.6.2: unknown flags are unsupported, and so is unmap for a discard.
            if segment.flags & ~1 != 0 { return .refuse(.unsupported) }
            guard segment.sectorCount <= BlockConfiguration.rangeSectorMaximum,
                isInside(segment.sector, UInt64(segment.sectorCount), sectorCount)
            else { return .refuse(.ioError) }
            if segment.sectorCount == 0 { continue }
            ranges.append(
                Range(
                    offset: segment.sector * 512, byteCount: UInt64(segment.sectorCount) * 512,
                    mayUnmap: segment.flags & 1 != 0))
        }
        return make(ranges)
    }

    private static func isInside(_ sector: UInt64, _ count: UInt64, _ sectorCount: UInt64) -> Bool {
        sector <= sectorCount && count <= sectorCount - sector
    }
}
