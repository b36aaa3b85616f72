// Memory of ours that a guest sees beside its RAM: firmware, flash. Not hostile: a guest reads it, and writes it only where the
// accelerator maps it writable.
import Glibc
package import HostSystem

/// Whole pages, anonymous or of a file.
@safe package final class HostPages: @unchecked Sendable {
    // @unchecked: the mapping is shared with the guest by nature; all state of this object is immutable after init, and every
    // access below is a bounded copy.

    /// A multiple of 4096.
    package let byteCount: Int
    private let mapping: UnsafeMutableRawPointer

    /// Zeroed pages.
    ///
    /// - Parameter byteCount: rounded up to whole pages; at least one.
    package init(byteCount: Int) throws(HostError) {
        let size = try Self.rounded(byteCount)
        let mapped = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let mapped = unsafe mapped, unsafe mapped != MAP_FAILED else {
            throw HostError("map", subject: "\(size) bytes for firmware", errno: Glibc.errno)
        }
        unsafe mapping = mapped
        self.byteCount = size
    }

    /// The pages of a file from its start: what is written here is written there. The descriptor stays its owner's.
    package init(sharing descriptor: CInt, byteCount: Int, named name: String) throws(HostError) {
        let size = try Self.rounded(byteCount)
        let mapped = unsafe mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        guard let mapped = unsafe mapped, unsafe mapped != MAP_FAILED else {
            throw HostError("map", subject: name, errno: Glibc.errno, remedy: "give a file open for reading and writing")
        }
        unsafe mapping = mapped
        self.byteCount = size
    }

    deinit {
        // SAFETY: mapped in init with exactly this size.
        unsafe munmap(mapping, byteCount)
    }

    private static func rounded(_ byteCount: Int) throws(HostError) -> Int {
        guard byteCount > 0, byteCount <= 1 << 30 else {
            throw HostError("map", subject: "\(byteCount) bytes for firmware", errno: EINVAL, remedy: "give 1 byte to 1 GiB")
        }
        return (byteCount + 4095) & ~4095
    }

    /// The byte at `offset`; 0xFF outside.
    package func byte(at offset: Int) -> UInt8 {
        guard offset >= 0, offset < byteCount else { return 0xFF }
        // SAFETY: within the mapping by the line above.
        return unsafe mapping.load(fromByteOffset: offset, as: UInt8.self)
    }

    package func setByte(_ value: UInt8, at offset: Int) {
        guard offset >= 0, offset < byteCount else { return }
        // SAFETY: as above.
        unsafe mapping.storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
    }

    /// Copies `bytes` to `offset`, as far as they fit.
    package func write(_ bytes: [UInt8], at offset: Int) {
        guard offset >= 0, offset < byteCount else { return }
        let count = min(bytes.count, byteCount - offset)
        unsafe bytes.withUnsafeBytes { source in
            guard let base = source.baseAddress else { return }
            // SAFETY: count bytes are in both.
            unsafe memcpy(mapping + offset, base, count)
        }
    }

    /// The last `count` bytes, fewer where there are fewer.
    package func suffix(_ count: Int) -> [UInt8] {
        let kept = min(max(count, 0), byteCount)
        // SAFETY: the end of the mapping.
        return unsafe [UInt8](UnsafeRawBufferPointer(start: mapping + (byteCount - kept), count: kept))
    }

    /// Where the pages are in this process, for the accelerator's memory slots.
    @unsafe package var hostAddress: UnsafeMutableRawPointer { unsafe mapping }
}
