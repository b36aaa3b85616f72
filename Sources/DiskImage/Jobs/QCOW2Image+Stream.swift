// Streaming: a qcow2 image takes over what its backing image holds, step by step while guests run, until it needs it no more.
import Synchronization

extension QCOW2Image {
    /// Copies a part of the backing image's data into this image; returns where to go on, nil when all has been copied.
    /// What a guest has written stays: a cluster is looked at and filled under the image's lock.
    /// - Parameter limit: bytes that are looked at, at most.
    package func stream(from start: UInt64, limit: UInt64) throws(ImageError) -> UInt64? {
        guard let backing, !isReadOnly else {
            throw ImageError(
                .refused, "stream", subject: name, reason: "it has no backing image, or is open only for reading")
        }
        let end = min(byteCount, backing.byteCount)
        var position = start & ~(clusterByteCount - 1)
        let stop = min(end, position.addingReportingOverflow(max(limit, clusterByteCount)).partialValue)
        while position < stop {
            position += try metadata.withLock { state throws(ImageError) -> UInt64 in
                try state.prepareForChanges()
                let (mapping, byteCount) = try state.mapping(at: position, limit: min(stop - position, 1 << 20))
                if mapping == .unallocated {
                    return try self.fillFromBacking(&state, at: position, byteCount: byteCount)
                }
                return byteCount
            }
        }
        return position < end ? position : nil
    }

    /// After the last step: the header names no backing image any more. The image keeps it open until it is opened anew.
    package func forgetBacking() throws(ImageError) {
        var position: UInt64 = 0
        let end = min(byteCount, backing?.byteCount ?? 0)
        while position < end {
            let (source, byteCount) = try source(at: position, limit: end - position)
            guard source != .backing else {
                throw ImageError(
                    .refused, "forget the backing image of", subject: name, reason: "byte \(position) is not copied yet"
                )
            }
            position += byteCount
        }
        try metadata.withLock { state throws(ImageError) in
            try state.writeBack()
            state.header.backingName = nil
            state.header.backingFormat = nil
            // Bytes 8...19: backing_file_offset and backing_file_size. The name of its format means nothing without them.
            try file.write([UInt8](repeating: 0, count: 12), at: 8)
            try file.synchronise()
        }
    }
}
