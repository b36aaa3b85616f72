// Reading and writing a file at a place, to the end of what was asked: a system call may do less.
import Glibc

/// Writes all of `bytes` at `offset`.
@unsafe package func writeAll(_ bytes: UnsafeRawBufferPointer, to descriptor: CInt, at offset: UInt64, named name: String) throws(HostError) {
    var written = 0
    while written < bytes.count {
        // SAFETY: the rest of the caller's buffer.
        let done = unsafe pwrite(
            descriptor, bytes.baseAddress.map { unsafe $0 + written }, bytes.count - written, off_t(clamping: offset &+ UInt64(written)))
        if done < 0, errno == EINTR { continue }
        guard done > 0 else { throw HostError("write", subject: "\(bytes.count - written) bytes of \(name)", errno: done == 0 ? EIO : errno) }
        written += done
    }
}

package func writeAll(_ bytes: [UInt8], to descriptor: CInt, at offset: UInt64, named name: String) throws(HostError) {
    let failure = unsafe bytes.withUnsafeBytes { buffer -> HostError? in
        do throws(HostError) { unsafe try writeAll(buffer, to: descriptor, at: offset, named: name) } catch { return error }
        return nil
    }
    if let failure { throw failure }
}

/// `count` bytes at `offset`, fewer where the file ends before.
package func readAll(_ descriptor: CInt, at offset: UInt64, count: Int, named name: String) throws(HostError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: max(count, 0))
    var filled = 0
    while filled < bytes.count {
        // SAFETY: fills the rest of the array and no more.
        let done = unsafe bytes.withUnsafeMutableBytes {
            unsafe pread(descriptor, $0.baseAddress.map { unsafe $0 + filled }, $0.count - filled, off_t(clamping: offset &+ UInt64(filled)))
        }
        if done < 0, errno == EINTR { continue }
        guard done >= 0 else { throw HostError("read", subject: name, errno: errno) }
        if done == 0 { break }
        filled += done
    }
    bytes.removeLast(bytes.count - filled)
    return bytes
}
