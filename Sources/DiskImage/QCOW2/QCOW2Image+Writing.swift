// Writing to a qcow2 image: in place where a cluster is this image's alone, else into a new cluster that takes over what the
// write leaves out (copy on write).
import Synchronization

extension QCOW2Image {
    /// Where the bytes of one step of a write go.
    private enum Step: Sendable {
        /// To the file from this byte on, outside of the lock.
        case inPlace(UInt64, byteCount: UInt64)
        /// They are written.
        case done(byteCount: UInt64)
    }

    func writeGuest(_ vectors: TransferVectors, at start: UInt64) throws(ImageError) {
        var done = 0
        while done < vectors.byteCount {
            let position = start + UInt64(done)
            let rest = vectors.slice(from: done, count: vectors.byteCount - done)
            let step = try metadata.withLock { state throws(ImageError) -> Step in
                try state.prepareForChanges()
                let run = try state.mapping(at: position, limit: UInt64(rest.byteCount))
                guard case .data(let offset, isCopied: true) = run.mapping else {
                    return .done(
                        byteCount: try self.writeIntoNew(
                            &state, rest.slice(from: 0, count: Int(run.byteCount)), at: position, over: run.mapping))
                }
                let within = position & (clusterByteCount - 1)
                try checkInPlace(&state, offset, byteCount: within + run.byteCount)
                inFlight.enter()
                return .inPlace(offset + within, byteCount: run.byteCount)
            }
            switch step {
            case .done(let byteCount): done += Int(byteCount)
            case .inPlace(let offset, let byteCount):
                defer { inFlight.leave() }
                try file.write(rest.slice(from: 0, count: Int(byteCount)), at: offset)
                done += Int(byteCount)
            }
        }
    }

    /// Clusters that an entry names may hold guest data: they are in the file and are not tables.
    private func checkInPlace(
        _ state: inout QCOW2Metadata, _ offset: UInt64, byteCount: UInt64
    ) throws(ImageError) {
        for place in stride(from: offset, to: offset + byteCount, by: Int(clusterByteCount)) {
            guard state.isPlausible(place), !state.isMetadata(cluster: place >> state.clusterBits) else {
                throw state.corruption(
                    "write to", at: place, "a guest's cluster lies in a table or behind the file's end")
            }
        }
    }

    /// Writes the beginning of `vectors` into clusters that the image gets for it; returns the bytes written.
    /// - Parameter mapping: what is there now, for all of `vectors`.
    private func writeIntoNew(
        _ state: inout QCOW2Metadata, _ vectors: TransferVectors, at position: UInt64, over mapping: QCOW2Mapping
    ) throws(ImageError) -> UInt64 {
        try state.prepareL2Table(position)
        let within = position & (clusterByteCount - 1)
        let inFirst = Int(min(UInt64(vectors.byteCount), clusterByteCount - within))
        switch mapping {
        case .data(let offset, _):
            // The flag may be absent although nobody else uses the cluster.
            try checkInPlace(&state, offset, byteCount: 1)
            if try state.refcount(offset >> state.clusterBits) == 1 {
                try file.write(vectors.slice(from: 0, count: inFirst), at: offset + within)
                try state.setEntry(position, QCOW2Entry(rawValue: offset | QCOW2Entry.copied))
                return UInt64(inFirst)
            }
        case .zero(preallocated: .some(let offset), _):
            try checkInPlace(&state, offset, byteCount: 1)
            if try state.refcount(offset >> state.clusterBits) == 1 {
                let padded = self.padded(
                    vectors.slice(from: 0, count: inFirst), within: within, end: clusterByteCount)
                try file.write(padded, at: offset)
                try state.setEntry(position, QCOW2Entry(rawValue: offset | QCOW2Entry.copied))
                return UInt64(inFirst)
            }
        case .malformed: throw state.corruption("write to", at: position, "its entry is damaged")
        case .unallocated, .zero, .compressed: break
        }
        let part: TransferVectors
        switch mapping {
        case .unallocated, .zero(preallocated: .none, _):
            // At most 4 MiB while the lock is held.
            part = vectors.slice(
                from: 0, count: Int(min(UInt64(vectors.byteCount), max(4 << 20, clusterByteCount) - within)))
        case .data, .compressed, .zero, .malformed: part = vectors.slice(from: 0, count: inFirst)
        }
        return try writeNew(&state, part, at: position, over: mapping)
    }

    private func writeNew(
        _ state: inout QCOW2Metadata, _ vectors: TransferVectors, at position: UInt64, over mapping: QCOW2Mapping
    ) throws(ImageError) -> UInt64 {
        let within = position & (clusterByteCount - 1)
        let want = (within + UInt64(vectors.byteCount) + clusterByteCount - 1) >> state.clusterBits
        let (first, count) = try state.allocate(upTo: want)
        let part = vectors.slice(from: 0, count: Int(min(UInt64(vectors.byteCount), count * clusterByteCount - within)))
        let host = first << state.clusterBits
        let guest = position - within
        do throws(ImageError) {
            let isFresh = first >= state.usedFileClusters && file.canGrow
            switch mapping {
            case .unallocated where hasBacking(at: guest), .data, .compressed:
                try file.write(
                    try completed(part, state, within: within, end: count * clusterByteCount, at: guest, over: mapping),
                    at: host)
            case .unallocated, .zero, .malformed:
                // A growing file is zero where nothing was written.
                if isFresh {
                    try file.write(part, at: host + within)
                } else {
                    try file.write(padded(part, within: within, end: count * clusterByteCount), at: host)
                }
            }
        } catch {
            try state.cancelAllocation(first: first, count: count)
            throw error
        }
        state.noteUsed(first + count - 1)
        for number in 0..<count {
            let offset = host + number * clusterByteCount
            try state.setEntry(guest + number * clusterByteCount, QCOW2Entry(rawValue: offset | QCOW2Entry.copied))
        }
        state.releaseHost(of: mapping)
        state.counters.allocations += count
        return UInt64(part.byteCount)
    }

    /// `vectors` with zeroes before and behind, so that whole clusters are written.
    private func padded(_ vectors: TransferVectors, within: UInt64, end: UInt64) -> TransferVectors {
        var result = TransferVectors.zeroes(Int(within))
        result.append(vectors)
        result.append(.zeroes(Int(end - within) - vectors.byteCount))
        return result
    }

    /// `vectors` with what the clusters held before and behind.
    private func completed(
        _ vectors: TransferVectors, _ state: borrowing QCOW2Metadata, within: UInt64, end: UInt64, at guest: UInt64,
        over mapping: QCOW2Mapping
    ) throws(ImageError) -> TransferVectors {
        let tail = within + UInt64(vectors.byteCount)
        let decompressed: [UInt8]
        if case .compressed(let place) = mapping {
            decompressed = try decompress(place, generation: state.compressedGeneration)
        } else {
            decompressed = []
        }
        func old(from start: UInt64, to end: UInt64) throws(ImageError) -> TransferVectors {
            if start >= end { return .none }
            let memory = ScratchMemory(byteCount: Int(end - start))
            var result = memory.vectors
            result.keepAlive(memory)
            switch mapping {
            case .data(let offset, _): try file.read(into: result, at: offset + start)
            case .compressed: result.fill(from: decompressed, at: Int(start))
            case .unallocated, .zero, .malformed: try readBacking(into: result, at: guest + start)
            }
            return result
        }
        var result = try old(from: 0, to: within)
        result.append(vectors)
        result.append(try old(from: tail, to: end))
        return result
    }
}

extension QCOW2Metadata {
    /// The host clusters behind an entry that has just been replaced lose one user, once the file says so.
    mutating func releaseHost(of mapping: QCOW2Mapping) {
        switch mapping {
        case .data(let offset, _), .zero(preallocated: .some(let offset), _):
            pendingReleases.append(Release(firstCluster: offset >> clusterBits, clusterCount: 1))
        case .compressed(let place):
            let first = place.offset >> clusterBits
            let last = (place.offset + UInt64(place.byteCount) - 1) >> clusterBits
            pendingReleases.append(Release(firstCluster: first, clusterCount: last - first + 1))
        case .unallocated, .zero, .malformed: break
        }
    }
}

extension QCOW2Image {
    /// Makes clusters that are not in this image its own, with what the backing image holds; returns the bytes that were
    /// filled, from `position`, a cluster's start, on.
    func fillFromBacking(
        _ state: inout QCOW2Metadata, at position: UInt64, byteCount: UInt64
    ) throws(ImageError) -> UInt64 {
        try state.prepareL2Table(position)
        return try writeNew(
            &state, try read(fromBackingAt: position, byteCount: byteCount), at: position, over: .unallocated)
    }

    private func read(fromBackingAt position: UInt64, byteCount: UInt64) throws(ImageError) -> TransferVectors {
        let memory = ScratchMemory(byteCount: Int(byteCount))
        var vectors = memory.vectors
        vectors.keepAlive(memory)
        try readBacking(into: vectors, at: position)
        return vectors
    }
}
