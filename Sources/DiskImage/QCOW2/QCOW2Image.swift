import Glibc
// A qcow2 image as a disk: requests in terms of the guest's bytes, carried out on clusters of the file, of a backing image
// that was handed in, or of nothing.
//
// One lock guards the tables. Transfers to and from clusters that exist run outside of it; what allocates runs inside. Several
// queues may work on one image. Lock order: an image's lock, then TransfersInFlight, then those of its backing image.
import HostSystem
import Synchronization

/// Usage: QCOW2Image(file: DescriptorFile(owning: descriptor, named: "vda"), isReadOnly: false, backing: nil), then a VirtIOBlock
/// on it, and `close()` when the guest is gone.
package final class QCOW2Image: BlockingImage {
    package let name: String
    package let isReadOnly: Bool
    package let logicalBlockByteCount: UInt32 = 512
    package let physicalBlockByteCount: UInt32
    package let clusterByteCount: UInt64
    package let backing: (any BlockingImage)?
    let file: any ImageFile
    let metadata: Mutex<QCOW2Metadata>
    let inFlight = TransfersInFlight()
    private let size: Atomic<UInt64>
    private let decompressed: QCOW2Decompressed
    private let lastFailure = Mutex<ImageError?>(nil)

    /// - Parameters:
    ///   - backing: the image that holds what this one does not: exactly where the header names one. Nobody looks at the name,
    ///     and nobody guesses the format: whoever hands it in has decided both.
    ///   - cacheByteLimit: memory for L2 tables and refcount blocks; 512 KiB map 4 GiB of 64 KiB clusters.
    /// An image whose refcounts were left dirty is repaired first, unless it is only read.
    package init(
        file: any ImageFile, isReadOnly: Bool, backing: (any BlockingImage)?, cacheByteLimit: Int = 4 << 20
    ) throws(ImageError) {
        var header = try QCOW2Header(readFrom: file)
        if let backingName = header.backingName, backing == nil {
            throw ImageError(
                .refused, "open qcow2 image", subject: file.name,
                reason: "it is based on \"\(backingName)\" of format \(header.backingFormat ?? "unknown")",
                remedy: "hand the backing image in, with its format")
        }
        guard header.backingName != nil || backing == nil else {
            throw ImageError(
                .refused, "open qcow2 image", subject: file.name, reason: "a backing image came with one that has none")
        }
        if !isReadOnly {
            guard !header.incompatibleFeatures.contains(.corrupt) else {
                throw ImageError(
                    .refused, "open qcow2 image for writing", subject: file.name, reason: "it is marked corrupt",
                    remedy: "repair it, or open it only for reading")
            }
            if header.incompatibleFeatures.contains(.dirty) {
                _ = try QCOW2Check(file: file).repair()
                header = try QCOW2Header(readFrom: file)
            }
        }
        name = file.name
        self.file = file
        self.isReadOnly = isReadOnly
        self.backing = backing
        clusterByteCount = header.clusterByteCount
        physicalBlockByteCount = UInt32(max(4096, min(header.clusterByteCount, 65536)))
        size = Atomic(header.byteCount)
        decompressed = QCOW2Decompressed(
            compression: header.compression, clusterByteCount: Int(header.clusterByteCount))
        metadata = Mutex(
            try QCOW2Metadata(
                header: header, file: file, isReadOnly: isReadOnly, cacheByteLimit: cacheByteLimit, inFlight: inFlight))
    }

    deinit { settle() }

    package var byteCount: UInt64 { size.load(ordering: .relaxed) }
    package var header: QCOW2Header { metadata.withLock { $0.header } }
    package var counters: QCOW2Counters { metadata.withLock { $0.counters } }

    func setSize(_ byteCount: UInt64) { size.store(byteCount, ordering: .relaxed) }

    package func perform(_ request: BlockRequest, vectors: TransferVectors) -> CInt {
        let refusal = refusal(of: request)
        if refusal != 0 { return refusal }
        do throws(ImageError) {
            switch request.operation {
            case .read: try readGuest(vectors, at: request.offset)
            case .write(let isDurable):
                try writeGuest(vectors, at: request.offset)
                if isDurable { try flush() }
            case .flush: try flush()
            case .discard: try forget(at: request.offset, byteCount: request.byteCount, how: .discard)
            case .writeZeroes(let mayUnmap):
                try forget(at: request.offset, byteCount: request.byteCount, how: .zero(mayFree: mayUnmap))
            }
            return 0
        } catch {
            lastFailure.withLock { $0 = error }
            return error.errno
        }
    }

    /// Why the last request that failed did: the guest got only an errno.
    package var lastError: ImageError? { lastFailure.withLock { $0 } }

    /// Everything that was completed before is durable after.
    package func flush() throws(ImageError) {
        let wroteBack = try metadata.withLock { state throws(ImageError) -> Bool in
            guard !isReadOnly, state.hasChanges else { return false }
            try state.writeBack()
            // Released clusters' refcounts are written with the next change: as they are, a crash leaks, no more.
            return true
        }
        if !wroteBack { try file.synchronise() }
    }

    package func settle() {
        guard !isReadOnly else { return }
        // What cannot be written now is tried again with the guest's next flush, which reports it.
        do throws(ImageError) {
            try metadata.withLock { state throws(ImageError) in
                while state.hasChanges { try state.writeBack() }
            }
        } catch {}
    }

    package func close() throws(ImageError) {
        guard !isReadOnly else { return }
        try metadata.withLock { state throws(ImageError) in
            // The second time for the refcounts of what the first time released.
            while state.hasChanges { try state.writeBack() }
            try file.synchronise()
        }
    }

    // MARK: Reading

    func readGuest(_ vectors: TransferVectors, at start: UInt64) throws(ImageError) {
        var done = 0
        while done < vectors.byteCount {
            let position = start + UInt64(done)
            let limit = UInt64(vectors.byteCount - done)
            let (mapping, byteCount, generation) = try metadata.withLock {
                state throws(ImageError) -> (QCOW2Mapping, UInt64, UInt64) in
                let run = try state.mapping(at: position, limit: limit)
                switch run.mapping {
                case .data, .compressed: inFlight.enter()
                case .unallocated, .zero, .malformed: break
                }
                return (run.mapping, run.byteCount, state.compressedGeneration)
            }
            let part = vectors.slice(from: done, count: Int(byteCount))
            let within = position & (clusterByteCount - 1)
            switch mapping {
            case .unallocated: try readBacking(into: part, at: position)
            case .zero, .malformed: part.clear()
            case .data(let offset, _):
                defer { inFlight.leave() }
                try file.read(into: part, at: offset + within)
            case .compressed(let place):
                defer { inFlight.leave() }
                part.fill(from: try decompressed.cluster(place, generation: generation, file), at: Int(within))
            }
            done += Int(byteCount)
        }
    }

    /// What a cluster that is not in this image reads as. Behind the end of the backing image that is zero.
    func readBacking(into vectors: TransferVectors, at offset: UInt64) throws(ImageError) {
        guard let backing, offset < backing.byteCount else {
            vectors.clear()
            return
        }
        let count = Int(min(UInt64(vectors.byteCount), backing.byteCount - offset))
        try backing.read(into: vectors.slice(from: 0, count: count), at: offset)
        if count < vectors.byteCount { vectors.slice(from: count, count: vectors.byteCount - count).clear() }
    }

    /// True where the backing image has bytes at or behind `offset`.
    func hasBacking(at offset: UInt64) -> Bool { backing.map { offset < $0.byteCount } ?? false }

    /// The bytes of a compressed cluster, for a write into it.
    func decompress(_ place: QCOW2CompressedPlace, generation: UInt64) throws(ImageError) -> [UInt8] {
        try decompressed.cluster(place, generation: generation, file)
    }
}

extension QCOW2Header {
    /// Reads and checks the header of `file`.
    package init(readFrom file: any ImageFile) throws(ImageError) {
        let byteCount = file.byteCount
        let beginning = try file.bytes(at: 0, count: Int(min(byteCount, UInt64(Self.maximumByteCount))), "qcow2 header")
        try self.init(parsing: beginning, named: file.name, fileByteCount: byteCount)
    }
}
