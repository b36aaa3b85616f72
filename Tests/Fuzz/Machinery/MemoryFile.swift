// A disk image's file in memory: what is written grows it up to a bound, as a full disk would.
import DiskImage
import Glibc
import Synchronization

final class MemoryFile: ImageFile {
    private static let limit = 8 << 20
    private let contents: Mutex<[UInt8]>
    let name = "input"
    let canGrow = true

    init(_ bytes: [UInt8]) { contents = Mutex(bytes) }

    var bytes: [UInt8] { contents.withLock { $0 } }
    var byteCount: UInt64 { contents.withLock { UInt64($0.count) } }

    func read(into vectors: TransferVectors, at offset: UInt64) throws(ImageError) {
        let part = contents.withLock { bytes -> [UInt8] in
            let start = min(bytes.count, Int(clamping: offset))
            return Array(bytes[start..<min(bytes.count, start + vectors.byteCount)])
        }
        vectors.fill(from: part, at: 0)
        if part.count < vectors.byteCount {
            vectors.fill(from: part + [UInt8](repeating: 0, count: vectors.byteCount - part.count), at: 0)
        }
    }

    func write(_ vectors: TransferVectors, at offset: UInt64) throws(ImageError) {
        let part = vectors.bytes
        guard offset <= UInt64(Self.limit - part.count) else { throw full }
        contents.withLock { bytes in
            let start = Int(offset)
            if start + part.count > bytes.count { bytes += [UInt8](repeating: 0, count: start + part.count - bytes.count) }
            bytes.replaceSubrange(start..<(start + part.count), with: part)
        }
    }

    func synchronise() throws(ImageError) {}

    func setByteCount(_ byteCount: UInt64) throws(ImageError) {
        guard byteCount <= UInt64(Self.limit) else { throw full }
        contents.withLock { bytes in
            if Int(byteCount) < bytes.count { bytes.removeLast(bytes.count - Int(byteCount)) }
            bytes += [UInt8](repeating: 0, count: Int(byteCount) - bytes.count)
        }
    }

    func giveBack(offset: UInt64, byteCount: UInt64) {}

    private var full: ImageError { ImageError(.host(errno: ENOSPC), "write", subject: name, reason: "no room") }
}
