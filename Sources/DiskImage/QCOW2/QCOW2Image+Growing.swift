// A larger disk, and what an image knows about its own parts: for growing, for committing, for whoever copies only what is there.
import Synchronization

extension QCOW2Image {
    /// Where a part of the disk comes from.
    package enum Source: Sendable, Equatable {
        /// This image's own data.
        case data
        case zero
        /// The backing image, or zeroes where there is none.
        case backing
    }

    /// The source at `offset`, and for how many bytes on it holds (at least 1, at most `limit`).
    package func source(at offset: UInt64, limit: UInt64) throws(ImageError) -> (source: Source, byteCount: UInt64) {
        try metadata.withLock { state throws(ImageError) -> (Source, UInt64) in
            let (mapping, byteCount) = try state.mapping(at: offset, limit: limit)
            switch mapping {
            case .unallocated: return (.backing, byteCount)
            case .zero, .malformed: return (.zero, byteCount)
            case .data, .compressed: return (.data, byteCount)
            }
        }
    }

    /// Makes the disk larger; the new bytes read as zero. Guests may go on meanwhile.
    /// - Parameter newByteCount: a multiple of 512, not less than now.
    package func grow(to newByteCount: UInt64) throws(ImageError) {
        let old = byteCount
        guard !isReadOnly, newByteCount % 512 == 0, newByteCount >= old else {
            throw ImageError(
                .refused, "grow", subject: name,
                reason: isReadOnly ? "it is open only for reading" : "\(newByteCount) bytes after \(old)")
        }
        if newByteCount == old { return }
        try metadata.withLock { state throws(ImageError) in
            try state.prepareForChanges()
            try state.growL1(toMap: newByteCount)
        }
        // What lies behind the old end: the rest of its cluster, and a longer backing image.
        let clusterEnd = (old + clusterByteCount - 1) & ~(clusterByteCount - 1)
        let visible = max(clusterEnd, backing?.byteCount ?? 0)
        if visible > old { try forget(at: old, byteCount: min(visible, newByteCount) - old, how: .zero(mayFree: true)) }
        try metadata.withLock { state throws(ImageError) in
            try state.writeBack()
            state.header.byteCount = newByteCount
            try state.header.writeSize(to: file)
            try file.synchronise()
        }
        setSize(newByteCount)
    }

    /// Writes this image's own data into its backing image, which then reads the same; it is larger afterwards where this one
    /// is. The backing image is durable when this returns. This image stays as it is: see `empty`.
    /// - Parameter growBacking: makes the backing image larger.
    package func commit(growBacking: (UInt64) throws(ImageError) -> Void) throws(ImageError) {
        guard let backing, !backing.isReadOnly else {
            throw ImageError(
                .refused, "commit", subject: name,
                reason: backing == nil ? "it has no backing image" : "its backing image is open only for reading")
        }
        if backing.byteCount < byteCount { try growBacking(byteCount) }
        var position: UInt64 = 0
        while position < byteCount {
            let (source, byteCount) = try source(at: position, limit: min(self.byteCount - position, 1 << 20))
            switch source {
            case .backing: break
            case .zero:
                try backing.carryOut(
                    BlockRequest(.writeZeroes(mayUnmap: true), offset: position, byteCount: byteCount, tag: 0))
            case .data:
                let memory = ScratchMemory(byteCount: Int(byteCount))
                try readGuest(memory.vectors, at: position)
                try backing.carryOut(
                    BlockRequest(.write(isDurable: false), offset: position, byteCount: byteCount, tag: 0),
                    vectors: memory.vectors)
            }
            position += byteCount
        }
        try backing.carryOut(BlockRequest(.flush, tag: 0))
    }

    /// Gives all of this image's clusters back, so that it reads as its backing image: after `commit`, with no guest running.
    package func empty() throws(ImageError) {
        try metadata.withLock { state throws(ImageError) in
            try state.prepareForChanges()
            try state.dropAllMappings()
        }
        try close()
    }
}

extension QCOW2Metadata {
    /// A longer L1 table where the disk needs one; the header names it when this returns.
    mutating func growL1(toMap byteCount: UInt64) throws(ImageError) {
        let needed = QCOW2Header.l1EntriesNeeded(byteCount: byteCount, clusterBits: header.clusterBits)
        if needed <= UInt64(l1.count) { return }
        guard needed * 8 <= QCOW2Header.maximumL1ByteCount else {
            throw ImageError(
                .full, "grow", subject: name, reason: "\(byteCount) bytes need larger clusters",
                remedy: "convert the image to larger clusters")
        }
        let clusters = (needed * 8 + clusterByteCount - 1) >> clusterBits
        let first = try allocateContiguous(clusters)
        try writeBack()
        var table = l1
        table.bytes += [UInt8](repeating: 0, count: Int(needed) * 8 - table.bytes.count)
        for cluster in first..<(first + clusters) {
            cache.forget(cluster: cluster << clusterBits, byteCount: clusterByteCount)
        }
        try file.write(
            table.bytes + [UInt8](repeating: 0, count: Int(clusters << clusterBits) - table.bytes.count),
            at: first << clusterBits)
        noteUsed(first + clusters - 1)
        try file.synchronise()
        let old = Release(
            firstCluster: header.l1Offset >> clusterBits,
            clusterCount: (UInt64(l1.bytes.count) + clusterByteCount - 1) >> clusterBits)
        header.l1Offset = first << clusterBits
        header.l1EntryCount = UInt32(needed)
        l1 = table
        try header.writeSize(to: file)
        try file.synchronise()
        if old.clusterCount > 0 { pendingReleases.append(old) }
    }

    /// Every guest cluster becomes unallocated, its table's too.
    mutating func dropAllMappings() throws(ImageError) {
        for index in 0..<l1.count where l1[index].offset != 0 {
            let entry = l1[index]
            guard isPlausible(entry.offset) else {
                throw corruption("find L2 table of", at: entry.offset, "it does not lie in the file")
            }
            try writeBack()
            let l2 = QCOW2Table(bytes: try file.bytesOrZero(at: entry.offset, count: Int(clusterByteCount)))
            l1[index] = QCOW2Entry(rawValue: 0)
            changedL1.insert(index)
            cache.forget(cluster: entry.offset, byteCount: clusterByteCount)
            // A table shared with a snapshot counts its clusters once for each L1 table that leads to it.
            for position in 0..<l2.count where l2[position].rawValue != 0 {
                releaseHost(of: l2[position].mapping(clusterBits: header.clusterBits, version: header.version))
            }
            pendingReleases.append(Release(firstCluster: entry.offset >> clusterBits, clusterCount: 1))
        }
    }
}
