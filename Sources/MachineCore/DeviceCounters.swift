// What one device did, countable from any thread without a lock.
import Synchronization

/// Counters of one device. Incremented on its queues' threads, read by the statistics command.
package final class DeviceCounters: Sendable {
    /// A consistent enough copy for statistics: each field is exact, the set is not a snapshot.
    package struct Values: Sendable, Equatable {
        package var readRequests: UInt64 = 0
        package var writeRequests: UInt64 = 0
        package var flushRequests: UInt64 = 0
        /// From the device to the guest.
        package var readBytes: UInt64 = 0
        /// From the guest to the device.
        package var writeBytes: UInt64 = 0
        package var errors: UInt64 = 0
        /// Frames that had no place to go, by direction.
        package var readDrops: UInt64 = 0
        package var writeDrops: UInt64 = 0
    }

    private let readRequests = Atomic<UInt64>(0)
    private let writeRequests = Atomic<UInt64>(0)
    private let flushRequests = Atomic<UInt64>(0)
    private let readBytes = Atomic<UInt64>(0)
    private let writeBytes = Atomic<UInt64>(0)
    private let errorCount = Atomic<UInt64>(0)
    private let readDrops = Atomic<UInt64>(0)
    private let writeDrops = Atomic<UInt64>(0)

    package init() {}

    package func countRead(bytes: Int) {
        readRequests.wrappingAdd(1, ordering: .relaxed)
        readBytes.wrappingAdd(UInt64(clamping: bytes), ordering: .relaxed)
    }
    package func countWrite(bytes: Int) {
        writeRequests.wrappingAdd(1, ordering: .relaxed)
        writeBytes.wrappingAdd(UInt64(clamping: bytes), ordering: .relaxed)
    }
    package func countFlush() { flushRequests.wrappingAdd(1, ordering: .relaxed) }
    package func countError() { errorCount.wrappingAdd(1, ordering: .relaxed) }
    package func countReadDrop() { readDrops.wrappingAdd(1, ordering: .relaxed) }
    package func countWriteDrop() { writeDrops.wrappingAdd(1, ordering: .relaxed) }

    package var values: Values {
        Values(
            readRequests: readRequests.load(ordering: .relaxed), writeRequests: writeRequests.load(ordering: .relaxed),
            flushRequests: flushRequests.load(ordering: .relaxed), readBytes: readBytes.load(ordering: .relaxed),
            writeBytes: writeBytes.load(ordering: .relaxed), errors: errorCount.load(ordering: .relaxed),
            readDrops: readDrops.load(ordering: .relaxed), writeDrops: writeDrops.load(ordering: .relaxed))
    }
}
