// A file as a request's body: read from its beginning by each attempt, on NIO's threads for blocking work.
import Glibc
package import NIOCore
import NIOPosix

/// The first `byteCount` bytes of a file that is open for reading; the descriptor is its owner's and stays open until the request ended.
package struct FileBody: Sendable, AsyncSequence {
    package typealias Element = ByteBuffer
    package let descriptor: CInt
    package let byteCount: Int64

    package init(descriptor: CInt, byteCount: Int64) {
        self.descriptor = descriptor
        self.byteCount = byteCount
    }

    package struct AsyncIterator: AsyncIteratorProtocol {
        let body: FileBody
        var position: Int64 = 0

        /// Throws where the file cannot be read or became shorter: the length is promised already.
        package mutating func next() async throws -> ByteBuffer? {
            let (descriptor, offset) = (body.descriptor, position)
            let wanted = Int(Swift.min(Int64(FileBody.pieceByteCount), body.byteCount - offset))
            guard wanted > 0 else { return nil }
            let piece = try await NIOThreadPool.singleton.runIfActive {
                try FileBody.read(descriptor, at: offset, count: wanted)
            }
            position += Int64(piece.readableBytes)
            return piece
        }
    }

    package func makeAsyncIterator() -> AsyncIterator { AsyncIterator(body: self) }

    static let pieceByteCount = 1 << 20

    private static func read(_ descriptor: CInt, at offset: Int64, count: Int) throws -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: count)
        var errno: CInt = 0
        // SAFETY: pread writes at most `count` bytes into the buffer's own memory, which has room for them.
        let got = unsafe buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: count) { memory in
            while true {
                let got = unsafe pread(descriptor, memory.baseAddress, count, off_t(offset))
                if got < 0, Glibc.errno == EINTR { continue }
                if got < 0 { errno = Glibc.errno }
                return Swift.max(0, got)
            }
        }
        guard got > 0 else { throw FileBodyError(offset: offset, errno: errno) }
        return buffer
    }
}

/// A file that was to be sent could not be read to its end.
package struct FileBodyError: Error, CustomStringConvertible {
    let offset: Int64
    /// 0: the file ended early.
    let errno: CInt

    package var description: String {
        errno == 0 ? "the file to send ended at byte \(offset)" : "the file to send cannot be read at byte \(offset): errno \(errno)"
    }
}
