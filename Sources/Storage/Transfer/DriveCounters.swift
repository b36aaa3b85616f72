// What one drive did, countable from any thread without a lock.
import Synchronization

/// Counters of one drive. Incremented on vCPU and I/O threads, read by the statistics command.
package final class DriveCounters: Sendable {
    /// Each field is exact; the set is not a snapshot.
    package struct Values: Sendable, Equatable {
        package var readRequests: UInt64 = 0
        package var writeRequests: UInt64 = 0
        package var flushRequests: UInt64 = 0
        /// From the drive to the guest.
        package var readBytes: UInt64 = 0
        /// From the guest to the drive.
        package var writeBytes: UInt64 = 0
        /// Requests that the image refused or the guest asked wrongly.
        package var errors: UInt64 = 0

        package init(
            readRequests: UInt64 = 0, writeRequests: UInt64 = 0, flushRequests: UInt64 = 0, readBytes: UInt64 = 0, writeBytes: UInt64 = 0,
            errors: UInt64 = 0
        ) {
            self.readRequests = readRequests
            self.writeRequests = writeRequests
            self.flushRequests = flushRequests
            self.readBytes = readBytes
            self.writeBytes = writeBytes
            self.errors = errors
        }
    }

    private let readRequests = Atomic<UInt64>(0)
    private let writeRequests = Atomic<UInt64>(0)
    private let flushRequests = Atomic<UInt64>(0)
    private let readBytes = Atomic<UInt64>(0)
    private let writeBytes = Atomic<UInt64>(0)
    private let errorCount = Atomic<UInt64>(0)

    package init() {}

    package func count(_ work: DiskWork) {
        switch work {
        case .read(_, let byteCount):
            readRequests.wrappingAdd(1, ordering: .relaxed)
            readBytes.wrappingAdd(UInt64(clamping: byteCount), ordering: .relaxed)
        case .write(_, let byteCount, _):
            writeRequests.wrappingAdd(1, ordering: .relaxed)
            writeBytes.wrappingAdd(UInt64(clamping: byteCount), ordering: .relaxed)
        case .flush: flushRequests.wrappingAdd(1, ordering: .relaxed)
        case .discard, .writeZeroes: writeRequests.wrappingAdd(1, ordering: .relaxed)
        }
    }

    package func countError() { errorCount.wrappingAdd(1, ordering: .relaxed) }

    package var values: Values {
        Values(
            readRequests: readRequests.load(ordering: .relaxed), writeRequests: writeRequests.load(ordering: .relaxed),
            flushRequests: flushRequests.load(ordering: .relaxed), readBytes: readBytes.load(ordering: .relaxed),
            writeBytes: writeBytes.load(ordering: .relaxed), errors: errorCount.load(ordering: .relaxed))
    }
}
