// The file under an image format: positions, bytes and the order in which they become durable. What a format writes goes
// through here, so that a test can lose it as a failing host would.
import CLinux
import Glibc
package import HostSystem
import Synchronization

/// A file or block device that holds an image. Calls block; several threads may call at once.
package protocol ImageFile: AnyObject, Sendable {
    /// For messages only.
    var name: String { get }
    /// The bytes it has now.
    var byteCount: UInt64 { get }
    /// A write behind the end makes it longer, and what lies between reads as zero. False for a block device.
    var canGrow: Bool { get }
    /// Fills all of `vectors` from `offset` on. What lies behind the end of the file reads as zero.
    func read(into vectors: TransferVectors, at offset: UInt64) throws(ImageError)
    /// Writes all of `vectors` at `offset`; durable only after the next `synchronise`.
    func write(_ vectors: TransferVectors, at offset: UInt64) throws(ImageError)
    /// What was written before is durable after (fdatasync(2)): data, and the size if it grew.
    func synchronise() throws(ImageError)
    /// Cuts the file or lets it grow by zero bytes.
    func setByteCount(_ byteCount: UInt64) throws(ImageError)
    /// The bytes read as zero or as before: their space may be given back. Failure is not reported, as it is advice.
    func giveBack(offset: UInt64, byteCount: UInt64)
}

extension ImageFile {
    /// `count` bytes from `offset` on. The file must have them.
    package func bytes(at offset: UInt64, count: Int, _ what: @autoclosure () -> String) throws(ImageError) -> [UInt8] {
        let (end, overflow) = offset.addingReportingOverflow(UInt64(count))
        guard !overflow, end <= byteCount else {
            throw ImageError(
                .malformed, "read \(what())", subject: "\(name) at byte \(offset)", reason: "the file ends before")
        }
        return try bytesOrZero(at: offset, count: count)
    }

    /// `count` bytes from `offset` on, zero where the file has ended.
    package func bytesOrZero(at offset: UInt64, count: Int) throws(ImageError) -> [UInt8] {
        var result = [UInt8](repeating: 0, count: count)
        var failure: ImageError?
        // SAFETY: the array's own memory for the length of the call; read touches no more than the piece's length.
        unsafe result.withUnsafeMutableBytes { memory in
            let vectors = unsafe TransferVectors([iovec(iov_base: memory.baseAddress, iov_len: memory.count)])
            do throws(ImageError) { try read(into: vectors, at: offset) } catch { failure = error }
        }
        if let failure { throw failure }
        return result
    }

    /// Writes `bytes` at `offset`.
    package func write(_ bytes: [UInt8], at offset: UInt64) throws(ImageError) {
        var failure: ImageError?
        // SAFETY: a write only reads its memory, which is the array's for the length of the call.
        unsafe bytes.withUnsafeBytes { memory in
            let vectors = unsafe TransferVectors([
                iovec(iov_base: UnsafeMutableRawPointer(mutating: memory.baseAddress), iov_len: memory.count)
            ])
            do throws(ImageError) { try write(vectors, at: offset) } catch { failure = error }
        }
        if let failure { throw failure }
    }
}

/// An open descriptor as an image's file.
package final class DescriptorFile: ImageFile {
    package let name: String
    package let canGrow: Bool
    private let descriptor: OwnedDescriptor
    /// The errno of a synchronisation that failed; 0: none has. The kernel reports lost pages once and then forgets them, so
    /// nothing written later may be called durable.
    private let lostPages = Atomic<CInt>(0)

    /// - Parameter name: for messages only.
    package init(owning descriptor: consuming OwnedDescriptor, named name: String) throws(ImageError) {
        var information = stat()
        guard unsafe fstat(descriptor.rawValue, &information) == 0 else {
            throw ImageError(HostError("examine image", subject: name, errno: errno))
        }
        guard lseek(descriptor.rawValue, 0, SEEK_END) >= 0 else {
            throw ImageError(HostError("measure image", subject: name, errno: errno))
        }
        canGrow = information.st_mode & S_IFMT == S_IFREG
        self.name = name
        self.descriptor = descriptor
    }

    /// The number for locks. Borrow it; never close it.
    package var rawDescriptor: CInt { descriptor.rawValue }

    // lseek, since fstat gives no size for a block device. No position is used anywhere.
    package var byteCount: UInt64 { UInt64(max(0, lseek(descriptor.rawValue, 0, SEEK_END))) }

    package func read(into vectors: TransferVectors, at offset: UInt64) throws(ImageError) {
        var done = 0
        while done < vectors.byteCount {
            let position = try position(offset, done, "read")
            // SAFETY: the vectors' memory is valid by their contract.
            let count = unsafe vectors.withPieces(from: done) { unsafe preadv(descriptor.rawValue, $0, $1, position) }
            if count < 0 {
                if errno == EINTR { continue }
                throw ImageError(HostError("read", subject: "\(name) at byte \(position)", errno: errno))
            }
            if count == 0 {
                vectors.slice(from: done, count: vectors.byteCount - done).clear()
                return
            }
            done += count
        }
    }

    package func write(_ vectors: TransferVectors, at offset: UInt64) throws(ImageError) {
        var done = 0
        while done < vectors.byteCount {
            let position = try position(offset, done, "write")
            // SAFETY: the vectors' memory is valid by their contract.
            let count = unsafe vectors.withPieces(from: done) { unsafe pwritev(descriptor.rawValue, $0, $1, position) }
            if count < 0 {
                if errno == EINTR { continue }
                throw ImageError(HostError("write", subject: "\(name) at byte \(position)", errno: errno))
            }
            if count == 0 { throw ImageError(HostError("write", subject: name, errno: EIO)) }
            done += count
        }
    }

    private func position(_ offset: UInt64, _ done: Int, _ operation: String) throws(ImageError) -> off_t {
        guard let position = Int64(exactly: offset)?.addingReportingOverflow(Int64(done)), !position.overflow else {
            throw ImageError(
                .malformed, operation, subject: "\(name) at byte \(offset)", reason: "no file reaches that far")
        }
        return off_t(position.partialValue)
    }

    package func synchronise() throws(ImageError) {
        while lostPages.load(ordering: .acquiring) == 0, fdatasync(descriptor.rawValue) != 0 {
            if errno == EINTR { continue }
            lostPages.store(errno, ordering: .releasing)
        }
        let reason = lostPages.load(ordering: .acquiring)
        if reason != 0 { throw ImageError(HostError("synchronise", subject: name, errno: reason)) }
    }

    package func setByteCount(_ byteCount: UInt64) throws(ImageError) {
        guard ftruncate(descriptor.rawValue, off_t(clamping: byteCount)) == 0 else {
            throw ImageError(HostError("resize", subject: "\(name) to \(byteCount) bytes", errno: errno))
        }
    }

    package func giveBack(offset: UInt64, byteCount: UInt64) {
        _ = apus_fallocate(
            descriptor.rawValue, CInt(APUS_FALLOC_PUNCH), Int64(clamping: offset), Int64(clamping: byteCount))
    }
}
