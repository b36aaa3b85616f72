// Guest RAM in a file: written whole while the guest stands still, and put in place of the memfd's pages when it goes on.
//
// A restored guest's RAM is a private mapping of the file: the kernel reads a page when the guest first touches it and copies it
// when the guest first writes it. Nobody must change or cut the file while it is mapped: a page that is gone is a bus error.
// RAM of huge pages or of a node of the host cannot be that: the file's pages are small ones of anywhere. It is read whole.
import Glibc
package import HostSystem
import Synchronization

/// Which file a descriptor is of.
package struct FileIdentity: Sendable, Equatable {
    let device: UInt64
    let inode: UInt64

    package init(of descriptor: CInt) throws(HostError) {
        var status = stat()
        // SAFETY: fills a local.
        guard unsafe fstat(descriptor, &status) == 0 else { throw HostError("look at", subject: "descriptor \(descriptor)", errno: errno) }
        (device, inode) = (UInt64(status.st_dev), UInt64(status.st_ino))
    }
}

/// What writing RAM came to.
package struct MemoryImage: Sendable, Equatable {
    /// One for each `GuestMemory.chunkByteCount`, the last chunk perhaps shorter.
    package var checksums: [UInt32] = []
    /// Bytes written; the rest are holes, and zero.
    package var byteCount: UInt64 = 0
    /// Calls that wrote them.
    package var writeCount = 0
}

/// Writing was called off.
package struct WriteCancelled: Error {}

extension GuestMemory {
    /// What one checksum covers: as much as a reader checks in about a millisecond.
    package static let chunkByteCount: UInt64 = 2 << 20
    private static let pageByteCount = 4096
    /// Written in one call at most, so that calling off does not take long.
    private static let runLimit = 16 << 20

    package func isImage(_ file: FileIdentity) -> Bool { image.withLock { $0 } == file }

    /// Writes RAM to `file` from `offset` on, as `fileOffset` of the regions says; pages of zeros are left out, so that they are
    /// holes where the file had nothing. The guest stands still.
    package func write(to file: CInt, at offset: UInt64, isCancelled: () -> Bool) throws -> MemoryImage {
        var writing = ImageWriting(memory: self, file: file, offset: offset)
        var start: UInt64 = 0
        while start < byteCount {
            if isCancelled() { throw WriteCancelled() }
            let end = min(start + Self.chunkByteCount, byteCount)
            try writing.addChunk(start..<end)
            start = end
        }
        try writing.finishRun()
        return writing.image
    }

    /// Puts the `byteCount` bytes of `file` from `offset` on in the place of all RAM. `offset` is a multiple of 4096, and the bytes
    /// are there. The descriptor stays its owner's; the file must stay as it is where the placement is plain.
    package func adopt(_ file: CInt, at offset: UInt64) throws(HostError) {
        guard placement.isPlain else { return try readImage(file, at: offset) }
        let identity = try FileIdentity(of: file)
        // SAFETY: replaces this object's own mapping, whole, at its own address; nothing else lies there.
        let placed = unsafe mmap(
            mapping, Int(byteCount), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, file, off_t(clamping: offset))
        guard unsafe placed == mapping else {
            throw HostError("map", subject: "\(byteCount) bytes of saved RAM", errno: errno, remedy: "give a regular file open for reading")
        }
        image.withLock { $0 = identity }
        // What the memfd held is reached by nobody any more.
        _ = ftruncate(backing.rawValue, 0)
    }

    /// The guest does not want what is there: the host gets the pages back. False where the host would not take them.
    package func giveUp(at address: GuestAddress, byteCount: UInt64) throws(GuestMemoryFault) -> Bool {
        let range = unsafe try hostRange(at: address, byteCount: byteCount)
        // A huge page that went could be another's when the guest wants it back, and that would be a bus error.
        guard placement.pageSize == .small else { return false }
        // MADV_REMOVE makes a hole in the memfd; a private mapping has no file of its own, and forgets its copies.
        let advice = image.withLock { $0 } == nil ? Self.remove : MADV_DONTNEED
        // SAFETY: the range is checked guest RAM, and what it holds is no longer wanted.
        return unsafe madvise(range.start, range.byteCount, advice) == 0
    }

    /// MADV_REMOVE, SEEK_DATA and SEEK_HOLE, which Glibc's module leaves out.
    private static let remove: CInt = 9, seekData: CInt = 3, seekHole: CInt = 4

    /// Reads all RAM from the file into the pages that are there; holes of the file become zeroes.
    private func readImage(_ file: CInt, at offset: UInt64) throws(HostError) {
        var place: UInt64 = 0
        while place < byteCount {
            let data = lseek(file, off_t(clamping: offset + place), Self.seekData)
            // ENXIO: nothing but hole to the end. Another error: a file system that does not tell, and all of it is data.
            let start = data >= 0 ? min(max(UInt64(data) - offset, place), byteCount) : errno == ENXIO ? byteCount : place
            clear(place..<start)
            guard start < byteCount else { return }
            let hole = lseek(file, off_t(clamping: offset + start), Self.seekHole)
            let end = hole >= 0 ? min(max(UInt64(hole) - offset, start + 1), byteCount) : byteCount
            try read(file, at: offset + start, into: start..<end)
            place = end
        }
    }

    private func read(_ file: CInt, at offset: UInt64, into range: Range<UInt64>) throws(HostError) {
        var done = 0
        while done < range.count {
            // SAFETY: the range is within the mapping, as its callers saw to.
            let count = unsafe pread(file, mapping + Int(range.lowerBound) + done, range.count - done, off_t(clamping: offset) + off_t(done))
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                throw HostError("read", subject: "\(byteCount) bytes of saved RAM", errno: count == 0 ? EIO : errno, remedy: "the file may have been cut; take another copy")
            }
            done += count
        }
    }

    /// Zeroes, without making small pages for them.
    private func clear(_ range: Range<UInt64>) {
        guard !range.isEmpty else { return }
        // SAFETY: as above.
        if placement.pageSize == .small, unsafe madvise(mapping + Int(range.lowerBound), range.count, Self.remove) == 0 { return }
        // SAFETY: as above.
        unsafe memset(mapping + Int(range.lowerBound), 0, range.count)
    }

    /// One pass over RAM: checksums by chunk, and runs of pages that are not zero, written as they end.
    private struct ImageWriting {
        let memory: GuestMemory
        let file: CInt
        let offset: UInt64
        let zeros = [UInt8](repeating: 0, count: pageByteCount)
        var image = MemoryImage()
        /// Pages to be written next; they lie side by side.
        private var run: Range<UInt64> = 0..<0
        /// Up to where the memfd is known to have data, or a hole.
        private var extent: (end: UInt64, isHole: Bool) = (0, false)
        private let isShared: Bool

        init(memory: GuestMemory, file: CInt, offset: UInt64) {
            self.memory = memory
            self.file = file
            self.offset = offset
            isShared = memory.descriptor != nil
        }

        mutating func addChunk(_ chunk: Range<UInt64>) throws {
            var checksum = Checksum()
            var page = chunk.lowerBound
            while page < chunk.upperBound {
                defer { page += UInt64(pageByteCount) }
                // A page of the memfd that nobody touched is not read: reading would make it.
                guard !isHole(page) else {
                    unsafe checksum.add(zeros.span.bytes)
                    continue
                }
                // SAFETY: a whole page within the mapping: chunks end where RAM does, which is a multiple of 4096.
                let bytes = unsafe UnsafeRawBufferPointer(start: memory.mapping + Int(page), count: pageByteCount)
                unsafe checksum.add(bytes)
                guard unsafe !isZero(bytes) else { continue }
                if page != run.upperBound || run.count >= runLimit {
                    try finishRun()
                    run = page..<page
                }
                run = run.lowerBound..<(page + UInt64(pageByteCount))
            }
            image.checksums.append(checksum.value)
        }

        mutating func finishRun() throws {
            guard !run.isEmpty else { return }
            // SAFETY: pages of the mapping, as above.
            let bytes = unsafe UnsafeRawBufferPointer(start: memory.mapping + Int(run.lowerBound), count: run.count)
            unsafe try writeAll(bytes, to: file, at: offset + run.lowerBound, named: "RAM")
            image.byteCount += UInt64(run.count)
            image.writeCount += 1
            run = 0..<0
        }

        @unsafe private func isZero(_ page: UnsafeRawBufferPointer) -> Bool {
            // SAFETY: both have a page.
            unsafe zeros.withUnsafeBytes { zeros in
                guard let left = page.baseAddress, let right = zeros.baseAddress else { return true }
                return unsafe memcmp(left, right, pageByteCount) == 0
            }
        }

        private mutating func isHole(_ page: UInt64) -> Bool {
            guard isShared else { return false }
            if page < extent.end { return extent.isHole }
            let data = lseek(memory.backing.rawValue, off_t(page), seekData)
            if data < 0 || UInt64(data) > page {
                // ENXIO: nothing but hole to the end.
                extent = (data < 0 ? memory.byteCount : UInt64(data), true)
                if data < 0, errno != ENXIO { extent = (page + UInt64(pageByteCount), false) }
            } else {
                let hole = lseek(memory.backing.rawValue, off_t(page), seekHole)
                extent = (hole > 0 ? max(UInt64(hole), page + UInt64(pageByteCount)) : page + UInt64(pageByteCount), false)
            }
            return extent.isHole
        }
    }
}
