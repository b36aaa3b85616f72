// One request of the driver: the buffers of a descriptor chain (virtio 1.2 §2.7.5), validated and bounded.
//
// Every descriptor was copied once and its whole range checked when the chain was popped; nothing here can fault any
// more. The chain is reused from request to request, so that the hot path does not allocate. Headers are copied out of the
// buffers by value; bulk data goes to the kernel as I/O vectors.
package import GuestMemory
package import Glibc

/// The readable buffers and then the writable buffers of one request.
@safe package struct DescriptorChain: Sendable {
    /// One checked buffer.
    package struct Segment: Sendable {
        package let address: GuestAddress
        package let byteCount: Int
        fileprivate let host: UnsafeSegment
    }
    // Keeps the raw pointer out of Segment's own layout rules: passed to memcpy and system calls only.
    @safe fileprivate struct UnsafeSegment: @unchecked Sendable {
        // @unchecked: the range is checked guest RAM, shared with the guest by nature.
        let range: GuestHostRange
        init(_ range: GuestHostRange) { unsafe self.range = range }
    }

    /// The index the used ring gets back.
    package internal(set) var head: UInt16 = 0
    private var segments: [Segment] = []
    private var readableSegmentCount = 0
    package private(set) var readableByteCount = 0
    package private(set) var writableByteCount = 0

    package init() {
        segments.reserveCapacity(130)
    }

    package var segmentCount: Int { segments.count }
    package var readable: ArraySlice<Segment> { segments[..<readableSegmentCount] }
    package var writable: ArraySlice<Segment> { segments[readableSegmentCount...] }

    mutating func removeAll() {
        segments.removeAll(keepingCapacity: true)
        readableSegmentCount = 0
        readableByteCount = 0
        writableByteCount = 0
    }

    mutating func append(
        address: GuestAddress, byteCount: Int, isWritable: Bool, memory: GuestMemory
    ) -> QueueFault.Reason? {
        guard byteCount > 0 else { return .emptyBuffer }
        if !isWritable, segments.count > readableSegmentCount { return .readableAfterWritable }
        guard readableByteCount + writableByteCount + byteCount <= 1 << 32 else { return .lengthOverflow }
        do {
            let range = unsafe try memory.hostRange(at: address, byteCount: UInt64(byteCount))
            segments.append(Segment(address: address, byteCount: byteCount, host: unsafe UnsafeSegment(range)))
        } catch {
            return .bufferOutsideMemory
        }
        if isWritable {
            writableByteCount += byteCount
        } else {
            readableSegmentCount += 1
            readableByteCount += byteCount
        }
        return nil
    }

    // MARK: structures

    /// Copies a structure out of the readable bytes at `offset`, however the driver split it; nil where it does not fit.
    package func load<Value: BitwiseCopyable>(_ type: Value.Type, at offset: Int, zero: Value) -> Value? {
        let size = MemoryLayout<Value>.size
        guard offset >= 0, offset <= readableByteCount - size else { return nil }
        var value = zero
        unsafe withUnsafeMutableBytes(of: &value) { target in
            var done = 0
            unsafe forEachPiece(readable, from: offset, count: size) { pointer, count in
                // SAFETY: the pieces add up to `size`, the bytes of `value`.
                guard let base = target.baseAddress else { return }
                unsafe memcpy(base + done, pointer, count)
                done += count
            }
        }
        return value
    }

    /// Copies `bytes` into the writable bytes at `offset`, as many as fit; returns how many did.
    @discardableResult
    package func write(_ bytes: [UInt8], at offset: Int) -> Int {
        let count = min(bytes.count, writableByteCount - offset)
        guard offset >= 0, count > 0 else { return 0 }
        unsafe bytes.withUnsafeBytes { source in
            var done = 0
            unsafe forEachPiece(writable, from: offset, count: count) { pointer, count in
                // SAFETY: the pieces add up to `count`, at most the bytes of `source`.
                guard let base = source.baseAddress else { return }
                unsafe memcpy(pointer, base + done, count)
                done += count
            }
        }
        return count
    }

    /// Stores one byte at `offset` of the writable bytes.
    package func store(_ byte: UInt8, at offset: Int) {
        guard offset >= 0, offset < writableByteCount else { return }
        unsafe forEachPiece(writable, from: offset, count: 1) { pointer, _ in
            // SAFETY: one byte of a checked buffer.
            unsafe pointer.storeBytes(of: byte, as: UInt8.self)
        }
    }

    /// The readable bytes from `offset`, at most `limit`. Allocates: for control queues, not for data.
    package func readableBytes(from offset: Int, limit: Int) -> [UInt8] {
        let count = min(limit, readableByteCount - offset)
        guard offset >= 0, count > 0 else { return [] }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        unsafe forEachPiece(readable, from: offset, count: count) { pointer, count in
            // SAFETY: `count` bytes of a checked buffer.
            unsafe bytes.append(contentsOf: UnsafeRawBufferPointer(start: pointer, count: count))
        }
        return bytes
    }

    // MARK: bulk data

    /// Puts the I/O vectors of `count` readable bytes from `offset` into `vectors`; returns how many, or nil where
    /// they do not fit.
    @unsafe package func readableVectors(
        from offset: Int, count: Int, into vectors: UnsafeMutableBufferPointer<iovec>
    ) -> Int? {
        guard offset >= 0, count >= 0, count <= readableByteCount - offset else { return nil }
        return unsafe fill(vectors, readable, from: offset, count: count)
    }

    /// The same for writable bytes.
    @unsafe package func writableVectors(
        from offset: Int, count: Int, into vectors: UnsafeMutableBufferPointer<iovec>
    ) -> Int? {
        guard offset >= 0, count >= 0, count <= writableByteCount - offset else { return nil }
        return unsafe fill(vectors, writable, from: offset, count: count)
    }

    @unsafe private func fill(
        _ vectors: UnsafeMutableBufferPointer<iovec>, _ segments: ArraySlice<Segment>, from offset: Int, count: Int
    ) -> Int? {
        var used = 0
        var fits = true
        unsafe forEachPiece(segments, from: offset, count: count) { pointer, count in
            guard used < vectors.count else {
                fits = false
                return
            }
            // SAFETY: `used` is within the buffer.
            unsafe vectors[used] = iovec(iov_base: pointer, iov_len: count)
            used += 1
        }
        return fits ? used : nil
    }

    /// Calls `body` with the host pieces of `count` bytes from `offset`; the caller checked that they exist.
    @unsafe private func forEachPiece(
        _ segments: ArraySlice<Segment>, from offset: Int, count: Int, _ body: (UnsafeMutableRawPointer, Int) -> Void
    ) {
        var skip = offset
        var rest = count
        for segment in segments where rest > 0 {
            if skip >= segment.byteCount {
                skip -= segment.byteCount
                continue
            }
            let piece = min(segment.byteCount - skip, rest)
            // SAFETY: skip + piece <= the segment's checked length.
            unsafe body(segment.host.range.start + skip, piece)
            rest -= piece
            skip = 0
        }
    }
}
