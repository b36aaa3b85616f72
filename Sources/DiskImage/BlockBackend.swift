// What a disk device asks of an image. The device imports this; an image never knows its device.
package import Glibc
package import HostSystem

/// One operation on an image.
package struct BlockRequest: Sendable, Equatable {
    package enum Operation: Sendable, Equatable {
        /// Into the request's vectors.
        case read
        /// From the request's vectors; durable on completion where asked, as a cache-less disk's.
        case write(isDurable: Bool)
        /// Everything completed before is durable after.
        case flush
        /// The bytes may be forgotten.
        case discard
        /// The bytes read as zero; the space may be given back where asked.
        case writeZeroes(mayUnmap: Bool)
    }
    package var operation: Operation
    /// Byte offset in the image.
    package var offset: UInt64
    package var byteCount: UInt64
    /// The request's slot, below the queue's depth; free again when its completion was reaped.
    package var tag: Int

    package init(_ operation: Operation, offset: UInt64 = 0, byteCount: UInt64 = 0, tag: Int) {
        self.operation = operation
        self.offset = offset
        self.byteCount = byteCount
        self.tag = tag
    }
}

/// The end of a request.
package struct BlockCompletion: Sendable, Equatable {
    package var tag: Int
    /// 0, or the errno of the host.
    package var errno: CInt

    package init(tag: Int, errno: CInt) {
        self.tag = tag
        self.errno = errno
    }
}

/// An image.
package protocol BlockBackend: AnyObject, Sendable {
    var byteCount: UInt64 { get }
    var isReadOnly: Bool { get }
    /// Smallest unit the image should be addressed in, a power of two from 512 up.
    var logicalBlockByteCount: UInt32 { get }
    /// Unit below which a write costs a read.
    var physicalBlockByteCount: UInt32 { get }
    /// A queue of at most `depth` requests in flight, each of at most `vectorLimit` vectors.
    func makeQueue(depth: Int, vectorLimit: Int) throws(HostError) -> any BlockQueue
}

/// One stream of requests. Not for several threads at once: its owner's lock or thread serialises all calls.
package protocol BlockQueue: AnyObject, Sendable {
    /// Readable when completions wait to be reaped.
    var completionDescriptor: CInt { get }
    /// The vectors of slot `tag`, to be filled before `submit`. They add up to the request's length.
    @unsafe func vectors(for tag: Int) -> UnsafeMutableBufferPointer<iovec>
    /// Takes a request whose slot is free. It starts with the next `commit` at the latest.
    func submit(_ request: BlockRequest, vectorCount: Int)
    /// Starts everything submitted, in one system call where possible.
    func commit()
    /// Takes finished requests, in any order.
    func reap(_ body: (BlockCompletion) -> Void)
}
