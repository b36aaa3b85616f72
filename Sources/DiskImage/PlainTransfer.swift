// The blocking form of each request, and what to do where a file system lacks an operation.
import CLinux
import Glibc

/// The zeroes written where the file system cannot make them.
private let zeroChunk = [UInt8](repeating: 0, count: 64 << 10)

/// Carries out one allocation request on `descriptor`; returns 0 or an errno.
func performAllocation(_ request: BlockRequest, descriptor: CInt) -> CInt {
    let offset = Int64(clamping: request.offset)
    let length = Int64(clamping: request.byteCount)
    switch request.operation {
    case .flush:
        return fdatasync(descriptor) == 0 ? 0 : errno
    case .discard:
        if apus_fallocate(descriptor, CInt(APUS_FALLOC_PUNCH), offset, length) == 0 { return 0 }
        // A discard is advice: a file system that cannot do it has obeyed.
        return errno == EOPNOTSUPP ? 0 : errno
    case .writeZeroes(let mayUnmap):
        let mode = mayUnmap ? APUS_FALLOC_PUNCH : APUS_FALLOC_ZERO
        if apus_fallocate(descriptor, CInt(mode), offset, length) == 0 { return 0 }
        return errno == EOPNOTSUPP ? writeZeroes(descriptor, offset: offset, length: length) : errno
    case .read, .write:
        return EINVAL
    }
}

/// Writes zeroes the slow way; returns 0 or an errno.
func writeZeroes(_ descriptor: CInt, offset: Int64, length: Int64) -> CInt {
    var done: Int64 = 0
    while done < length {
        let count = Int(min(length - done, Int64(zeroChunk.count)))
        // SAFETY: count is at most the size of the chunk.
        let written = unsafe zeroChunk.withUnsafeBytes { bytes in
            unsafe pwrite(descriptor, bytes.baseAddress, count, off_t(offset + done))
        }
        if written < 0 {
            if errno == EINTR { continue }
            return errno
        }
        if written == 0 { return EIO }
        done += Int64(written)
    }
    return 0
}
