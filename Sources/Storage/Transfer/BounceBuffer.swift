// Memory of ours between an image and a data port: programmed I/O has no guest address that the kernel could fill.
package import Glibc

/// A fixed buffer that a transfer of the image's and the data port take turns in.
@safe package final class BounceBuffer: @unchecked Sendable {
    // @unchecked: the controller's lock serialises the port's side; while a transfer is in flight the port is not served.
    package let byteCount: Int
    private let memory: UnsafeMutableRawPointer

    package init(byteCount: Int) {
        self.byteCount = byteCount
        unsafe memory = .allocate(byteCount: byteCount, alignment: 4096)
        unsafe memory.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    }

    deinit {
        // SAFETY: allocated in init; bytes are trivial.
        unsafe memory.deallocate()
    }

    /// A byte; outside the buffer, zero and nothing.
    package subscript(offset: Int) -> UInt8 {
        get {
            guard offset >= 0, offset < byteCount else { return 0 }
            // SAFETY: within the buffer, by the guard.
            return unsafe memory.load(fromByteOffset: offset, as: UInt8.self)
        }
        set {
            guard offset >= 0, offset < byteCount else { return }
            // SAFETY: within the buffer, by the guard.
            unsafe memory.storeBytes(of: newValue, toByteOffset: offset, as: UInt8.self)
        }
    }

    /// The vector of the first `count` bytes.
    @unsafe package func vector(count: Int) -> iovec {
        unsafe iovec(iov_base: memory, iov_len: min(max(0, count), byteCount))
    }

    package func copyIn(_ bytes: [UInt8]) {
        for (index, byte) in bytes.prefix(byteCount).enumerated() { self[index] = byte }
    }

    package func bytes(count: Int) -> [UInt8] { (0..<min(max(0, count), byteCount)).map { self[$0] } }
}
