// Images of other formats as read-only disks: for taking them over once, not for running guests on them for long.
//
// A format is a map from the guest's bytes to places in the file; everything else is the same for all.
import HostSystem
import Synchronization

/// Where a format keeps the guest's bytes. Several threads may ask at once.
package protocol ExtentMap: Sendable {
    /// The guest's disk, in bytes.
    var byteCount: UInt64 { get }
    /// The bytes at `offset`, which is below `byteCount`, and for how many bytes on (at least 1) the same holds.
    func extent(at offset: UInt64) throws(ImageError) -> Extent
}

package struct Extent: Sendable, Equatable {
    package enum Source: Sendable, Equatable {
        case zero
        /// The bytes of the file from here on.
        case data(UInt64)
        /// zlib data (RFC 1950) at this byte of the file; `skip` bytes of what it decompresses to (`byteCount`) come before.
        case deflated(offset: UInt64, compressedByteCount: Int, byteCount: Int, skip: Int)
    }
    package var source: Source
    package var byteCount: UInt64
}

/// Usage: ImportedImage(file: file, map: try VDIMap(file: file))
package final class ImportedImage: BlockingImage {
    package let isReadOnly = true
    package let logicalBlockByteCount: UInt32 = 512
    package let physicalBlockByteCount: UInt32 = 4096
    package let byteCount: UInt64
    private let file: any ImageFile
    private let map: any ExtentMap
    private let lastFailure = Mutex<ImageError?>(nil)
    /// What was decompressed last.
    private let last = Mutex<(offset: UInt64, bytes: [UInt8])?>(nil)

    package init(file: any ImageFile, map: any ExtentMap) {
        self.file = file
        self.map = map
        byteCount = map.byteCount
    }

    package func perform(_ request: BlockRequest, vectors: TransferVectors) -> CInt {
        let refusal = refusal(of: request)
        if refusal != 0 { return refusal }
        guard request.operation == .read else { return 0 }  // a flush
        do throws(ImageError) {
            var done = 0
            while done < vectors.byteCount {
                let extent = try map.extent(at: request.offset + UInt64(done))
                let count = min(vectors.byteCount - done, Int(clamping: extent.byteCount))
                let part = vectors.slice(from: done, count: count)
                switch extent.source {
                case .zero: part.clear()
                case .data(let offset): try file.read(into: part, at: offset)
                case .deflated(let offset, let compressed, let byteCount, let skip):
                    part.fill(from: try decompressed(offset, compressed, byteCount), at: skip)
                }
                done += count
            }
            return 0
        } catch {
            lastFailure.withLock { $0 = error }
            return error.errno
        }
    }

    /// Why the last request that failed did: the guest got only an errno.
    package var lastError: ImageError? { lastFailure.withLock { $0 } }

    private func decompressed(_ offset: UInt64, _ compressed: Int, _ byteCount: Int) throws(ImageError) -> [UInt8] {
        if let known = last.withLock({ $0?.offset == offset ? $0?.bytes : nil }) { return known }
        let input = try file.bytes(at: offset, count: compressed, "compressed data")
        // Two bytes of zlib header: deflate, no dictionary, and a check that makes them a multiple of 31.
        let header: UInt16 = input.bigEndian(at: 0)
        guard header >> 8 & 15 == 8, header % 31 == 0, header & 0x20 == 0,
            let bytes = Inflate.decompress(input, from: 2, byteCount: byteCount)
        else {
            throw ImageError(
                .malformed, "decompress", subject: "\(file.name) at byte \(offset)", reason: "the data is damaged")
        }
        last.withLock { $0 = (offset, bytes) }
        return bytes
    }
}

/// A table of a file, read a page at a time: whatever size a header gives it, memory stays the same.
final class TableReader: Sendable {
    private static let pageByteCount = 4096
    private let file: any ImageFile
    private let last = Mutex<(page: UInt64, bytes: [UInt8])?>(nil)

    init(_ file: any ImageFile) { self.file = file }

    /// The `T` at byte `offset` of the file as it is stored, least significant byte first; 0 behind the end of the file.
    /// - Parameter offset: a multiple of the size of `T`.
    func littleEndian<T: FixedWidthInteger & BitwiseCopyable & Sendable>(
        _ type: T.Type = T.self, at offset: UInt64
    ) throws(ImageError) -> T {
        let page = offset & ~UInt64(Self.pageByteCount - 1)
        let within = Int(offset - page)
        if let known = last.withLock({ $0?.page == page ? $0?.bytes.littleEndian(T.self, at: within) : nil }) {
            return known
        }
        let bytes = try file.bytesOrZero(at: page, count: Self.pageByteCount)
        last.withLock { $0 = (page, bytes) }
        return bytes.littleEndian(at: within)
    }
}
