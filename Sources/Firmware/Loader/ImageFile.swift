// A kernel or RAM disk as a descriptor: read piecewise into guest memory, never whole into ours.
import Glibc
import GuestMemory
import HostSystem

/// An open file that a loader reads. The descriptor stays its owner's.
package struct ImageFile: Sendable {
    package let descriptor: CInt
    package let byteCount: UInt64

    package init(descriptor: CInt, named name: String) throws(LoaderError) {
        var status = stat()
        // SAFETY: fstat fills the local structure.
        guard unsafe fstat(descriptor, &status) == 0 else { throw LoaderError(name, "fstat: \(errorName(errno))") }
        self.descriptor = descriptor
        byteCount = UInt64(max(status.st_size, 0))
    }

    /// Bytes `[offset, offset + count)`, fewer where the file ends.
    package func bytes(at offset: UInt64, count: Int) throws(LoaderError) -> [UInt8] {
        guard let start = off_t(exactly: offset), count >= 0 else { throw LoaderError("file", "an offset of \(offset)") }
        var buffer = [UInt8](repeating: 0, count: count)
        // SAFETY: pread writes at most `count` bytes into a buffer of that size.
        let got = unsafe pread(descriptor, &buffer, count, start)
        guard got >= 0 else { throw LoaderError("file", "read: \(errorName(errno))") }
        return got == count ? buffer : Array(buffer[..<got])
    }

    /// Reads `[offset, offset + count)` into guest memory at `address`; a file that ends before is an error.
    func copy(from offset: UInt64, count: UInt64, to memory: GuestMemory, at address: GuestAddress, named name: String) throws(LoaderError) {
        let range: GuestHostRange
        do {
            unsafe range = unsafe try memory.hostRange(at: address, byteCount: count)
        } catch {
            throw LoaderError(name, "\(count) bytes do not fit at \(address): \(error)")
        }
        var done = 0
        while UInt64(done) < count {
            guard let start = off_t(exactly: offset + UInt64(done)) else { throw LoaderError(name, "an offset of \(offset)") }
            // SAFETY: hostRange proved `count` bytes; start + done + (count - done) stays within them.
            let got = unsafe pread(descriptor, range.start + done, range.byteCount - done, start)
            if got < 0, errno == EINTR { continue }
            guard got > 0 else { throw LoaderError(name, got == 0 ? "file ends \(count - UInt64(done)) bytes early" : "read: \(errorName(errno))") }
            done += got
        }
    }
}

/// Little-endian numbers out of a byte array; zero beyond its end.
struct ImageFields {
    let bytes: [UInt8]
    init(_ bytes: [UInt8]) { self.bytes = bytes }
    private func number(_ offset: Int, _ count: Int) -> UInt64 {
        (0..<count).reduce(0) { $0 | (offset + $1 < bytes.count ? UInt64(bytes[offset + $1]) << (UInt64($1) * 8) : 0) }
    }
    func u16(_ offset: Int) -> UInt16 { UInt16(truncatingIfNeeded: number(offset, 2)) }
    func u32(_ offset: Int) -> UInt32 { UInt32(truncatingIfNeeded: number(offset, 4)) }
    func u64(_ offset: Int) -> UInt64 { number(offset, 8) }
}
