// Writes and hashes an image's data on NIO's threads for blocking work, in pieces large enough that the hop is cheap.
import Glibc
import NIOPosix

/// An image's data did not fit into the caller's file.
package struct ImageWriteFailed: Error, Sendable, CustomStringConvertible {
    package let imageID: String
    package let errno: CInt

    package var isOutOfSpace: Bool { errno == ENOSPC || errno == EDQUOT }

    package var description: String {
        let name =
            switch errno {
            case ENOSPC: "no space left on device (ENOSPC)"
            case EDQUOT: "disk quota exceeded (EDQUOT)"
            case EFBIG: "file too large (EFBIG)"
            case EIO: "input/output error (EIO)"
            default: "errno \(errno)"
            }
        return "write image \(imageID) to its file: \(name) (host)"
    }
}

struct ImageFileWriter {
    static let pieceByteCount = 1 << 20

    let imageID: String
    let descriptor: CInt
    let digest: ImageDigest?
    private(set) var byteCount: Int64 = 0

    init(imageID: String, descriptor: CInt, digest: ImageDigest?) {
        self.imageID = imageID
        self.descriptor = descriptor
        self.digest = digest
    }

    /// Returns when the piece is written: the descriptor is never in use after the caller's await.
    mutating func write(_ piece: [UInt8]) async throws {
        let (descriptor, imageID, digest) = (descriptor, imageID, digest)
        try await NIOThreadPool.singleton.runIfActive {
            try Self.writeAll(piece, to: descriptor, imageID: imageID)
            digest?.update(piece)
        }
        byteCount += Int64(piece.count)
    }

    private static func writeAll(_ piece: [UInt8], to descriptor: CInt, imageID: String) throws {
        try unsafe piece.withUnsafeBytes { bytes in
            var rest = unsafe bytes[...]
            while unsafe !rest.isEmpty {
                // SAFETY: `rest` lies within `bytes`, which live until this closure ends; write only reads them.
                let count = unsafe Glibc.write(
                    descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
                if count < 0 {
                    let code = Glibc.errno
                    if code == EINTR { continue }
                    throw ImageWriteFailed(imageID: imageID, errno: code)
                }
                unsafe rest = rest.dropFirst(count)
            }
        }
    }
}
