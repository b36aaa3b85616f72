// The cluster that was decompressed last: a guest reads a cluster in several requests, which need not decompress it again.
import Synchronization

final class QCOW2Decompressed: Sendable {
    private struct Last: Sendable {
        var place: QCOW2CompressedPlace
        var generation: UInt64
        var bytes: [UInt8]
    }
    private let compression: QCOW2Header.Compression
    private let clusterByteCount: Int
    private let last = Mutex<Last?>(nil)

    init(compression: QCOW2Header.Compression, clusterByteCount: Int) {
        self.compression = compression
        self.clusterByteCount = clusterByteCount
    }

    /// The whole cluster.
    /// - Parameter generation: changes whenever host clusters were given to somebody else, so that `place` may hold other bytes.
    func cluster(
        _ place: QCOW2CompressedPlace, generation: UInt64, _ file: any ImageFile
    ) throws(ImageError) -> [UInt8] {
        let known = last.withLock { last -> [UInt8]? in
            guard let last, last.place == place, last.generation == generation else { return nil }
            return last.bytes
        }
        if let known { return known }
        // At most a cluster's worth of sectors twice over: the entry has no more bits.
        let input = try file.bytesOrZero(at: place.offset, count: place.byteCount)
        let output: [UInt8]?
        switch compression {
        case .zlib: output = Inflate.decompress(input, byteCount: clusterByteCount)
        case .zstd: output = Zstandard.decompress(input, byteCount: clusterByteCount)
        }
        guard let output else {
            throw ImageError(
                .malformed, "decompress cluster of", subject: "\(file.name) at byte \(place.offset)",
                reason: "the data is damaged")
        }
        last.withLock { $0 = Last(place: place, generation: generation, bytes: output) }
        return output
    }
}
