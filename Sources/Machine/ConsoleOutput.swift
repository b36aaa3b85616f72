// Where the serial port's bytes go: a descriptor, and where that is a file, never more of it than a bound.
import Chipset
import Glibc
package import HostSystem
package import Synchronization

/// Writes the console to a descriptor. A file is kept below `limit` bytes: at the bound its older half is dropped.
package final class ConsoleOutput: SerialOutput {
    private let descriptor: OwnedDescriptor
    private let limit: Int
    private let isFile: Bool
    private let length: Mutex<Int>
    /// Bytes the descriptor did not take.
    package let dropped = Atomic<UInt64>(0)

    package init(owning descriptor: consuming OwnedDescriptor, limit: Int = 1 << 20) {
        var status = stat()
        let known = unsafe fstat(descriptor.rawValue, &status) == 0
        isFile = known && status.st_mode & S_IFMT == S_IFREG
        length = Mutex(isFile ? Int(status.st_size) : 0)
        self.limit = max(limit, 2)
        self.descriptor = descriptor
    }

    package func write(_ byte: UInt8) {
        var byte = byte
        length.withLock { length in
            if isFile, length >= limit { length = dropOlderHalf(of: length) }
            // SAFETY: one byte from a local.
            let done = unsafe isFile ? pwrite(descriptor.rawValue, &byte, 1, off_t(length)) : Glibc.write(descriptor.rawValue, &byte, 1)
            if done == 1 { length += 1 } else { dropped.wrappingAdd(1, ordering: .relaxed) }
        }
    }

    /// Moves the newer half to the front; the new length is the answer.
    private func dropOlderHalf(of length: Int) -> Int {
        let kept = limit / 2
        var tail = [UInt8](repeating: 0, count: kept)
        // SAFETY: pread fills at most `kept` bytes of a buffer of that size; pwrite reads as many as were filled.
        let got = unsafe pread(descriptor.rawValue, &tail, kept, off_t(length - kept))
        guard got > 0, unsafe pwrite(descriptor.rawValue, tail, got, 0) == got, ftruncate(descriptor.rawValue, off_t(got)) == 0 else {
            _ = ftruncate(descriptor.rawValue, 0)
            return 0
        }
        return got
    }
}
