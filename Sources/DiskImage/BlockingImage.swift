// An image that carries requests out in the calling thread. Formats with tables of their own are written this way: a queue's
// thread calls them, an image on top reads its backing through it, and jobs copy with it.
import Glibc
package import HostSystem

package protocol BlockingImage: BlockBackend {
    /// Carries out `request` to its end. Any thread, several at once.
    /// - Parameter vectors: the memory of a read or write, as long as the request; empty otherwise.
    /// - Returns: 0 or an errno. EINVAL for what lies outside of the image, EROFS for changes to a read-only one.
    func perform(_ request: BlockRequest, vectors: TransferVectors) -> CInt
    /// Called by a queue's thread that has had nothing to do for a second after a change: what is kept back in memory goes
    /// to the file, so that a killed process loses at most that second.
    func settle()
    /// Writes back all that is kept in memory, before the image is left.
    func close() throws(ImageError)
}

extension BlockingImage {
    package func settle() {}
    package func close() throws(ImageError) {}

    package func makeQueue(depth: Int, vectorLimit: Int) throws(HostError) -> any BlockQueue {
        try ThreadQueue(image: self, depth: depth, vectorLimit: vectorLimit)
    }

    /// The errno a request outside of the image, or a change to a read-only image, ends with; 0 where it may go on.
    func refusal(of request: BlockRequest) -> CInt {
        if request.operation == .flush { return 0 }
        let (end, overflow) = request.offset.addingReportingOverflow(request.byteCount)
        if overflow || end > byteCount { return EINVAL }
        return isReadOnly && request.operation != .read ? EROFS : 0
    }

    /// Reads `count` bytes at `offset` into memory of our own.
    package func read(at offset: UInt64, count: Int) throws(ImageError) -> ScratchMemory {
        let memory = ScratchMemory(byteCount: count)
        try read(into: memory.vectors, at: offset)
        return memory
    }

    /// Fills `vectors` from `offset` on.
    package func read(into vectors: TransferVectors, at offset: UInt64) throws(ImageError) {
        let request = BlockRequest(.read, offset: offset, byteCount: UInt64(vectors.byteCount), tag: 0)
        try check(perform(request, vectors: vectors), "read", request)
    }

    /// Carries `request` out; throws what it ends with.
    package func carryOut(_ request: BlockRequest, vectors: TransferVectors = TransferVectors.none) throws(ImageError) {
        try check(perform(request, vectors: vectors), "change", request)
    }

    private func check(_ errno: CInt, _ operation: String, _ request: BlockRequest) throws(ImageError) {
        if errno != 0 {
            throw ImageError(
                HostError(
                    operation, subject: "an image, \(request.byteCount) bytes at \(request.offset)", errno: errno))
        }
    }
}

extension TransferVectors {
    /// No memory: for requests without data.
    package static var none: TransferVectors { unsafe TransferVectors([iovec]()) }
}
