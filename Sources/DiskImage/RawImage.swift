// A raw image over a descriptor that was handed in: a file or a block device, byte for byte the guest's disk.
import CLinux
import Glibc
package import HostSystem
import Synchronization

/// Usage: RawImage(owning: descriptor, named: "vda", isReadOnly: false), then a VirtIOBlock on it.
package final class RawImage: BlockingImage {
    /// How requests reach the kernel.
    package enum Engine: Sendable {
        /// io_uring where the kernel allows it, else a thread.
        case automatic
        case thread
    }

    package let isReadOnly: Bool
    package let logicalBlockByteCount: UInt32 = 512
    package let physicalBlockByteCount: UInt32
    package let name: String
    private let descriptor: OwnedDescriptor
    private let size: Atomic<UInt64>
    private let engine: Engine

    /// - Parameter name: for messages only.
    package init(
        owning descriptor: consuming OwnedDescriptor, named name: String, isReadOnly: Bool, engine: Engine = .automatic
    ) throws(HostError) {
        var information = stat()
        guard unsafe fstat(descriptor.rawValue, &information) == 0 else {
            throw HostError("examine image", subject: name, errno: errno)
        }
        let blockSize = UInt32(clamping: information.st_blksize)
        let isBlockSize = blockSize >= 512 && blockSize <= 1 << 16 && blockSize & (blockSize - 1) == 0
        physicalBlockByteCount = isBlockSize ? blockSize : 4096
        size = Atomic(try Self.measure(descriptor.rawValue, name))
        self.isReadOnly = isReadOnly
        self.name = name
        self.engine = engine
        self.descriptor = descriptor
    }

    package var byteCount: UInt64 { size.load(ordering: .relaxed) }

    /// Looks at the size again, after the image was grown.
    package func refreshSize() throws(HostError) {
        size.store(try Self.measure(descriptor.rawValue, name), ordering: .relaxed)
    }

    /// lseek, since fstat gives no size for a block device.
    private static func measure(_ descriptor: CInt, _ name: String) throws(HostError) -> UInt64 {
        let end = lseek(descriptor, 0, SEEK_END)
        guard end >= 0 else { throw HostError("measure image", subject: name, errno: errno) }
        return UInt64(end)
    }

    package func makeQueue(depth: Int, vectorLimit: Int) throws(HostError) -> any BlockQueue {
        if engine == .automatic,
            let queue = try RingQueue(
                descriptor: descriptor.rawValue, image: self, depth: depth, vectorLimit: vectorLimit)
        {
            return queue
        }
        return try ThreadQueue(image: self, depth: depth, vectorLimit: vectorLimit)
    }

    package func perform(_ request: BlockRequest, vectors: TransferVectors) -> CInt {
        let isDurable: CInt
        switch request.operation {
        case .read: isDurable = 0
        case .write(let durable): isDurable = durable ? 1 : 0
        case .flush, .discard, .writeZeroes: return performAllocation(request, descriptor: descriptor.rawValue)
        }
        var done = 0
        while done < vectors.byteCount {
            let position = Int64(clamping: request.offset &+ UInt64(done))
            // SAFETY: the vectors' memory is valid by their contract.
            let count = unsafe vectors.withPieces(from: done) { pieces, number in
                unsafe request.operation == .read
                    ? preadv(descriptor.rawValue, pieces, number, off_t(position))
                    : apus_pwritev(descriptor.rawValue, pieces, number, position, isDurable)
            }
            if count < 0 {
                if errno == EINTR { continue }
                return errno
            }
            if count == 0 { return EIO }  // the image ends before the request
            done += count
        }
        return 0
    }
}
