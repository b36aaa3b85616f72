// What a guest says about its memory (virtio 1.2 §5.5.6.4): tag and value pairs in the statistics queue.
import MachineCore

/// The last statistics of a balloon driver; nil where it sent none.
package struct BalloonStatistics: Sendable, Equatable {
    /// Values by tag, in bytes or counts as the tag says: 0 swap in, 1 swap out, 2 major faults, 3 minor faults,
    /// 4 free memory, 5 total memory, 6 available memory, 7 disk caches, 8 and 9 huge page allocations and failures.
    package private(set) var values: [UInt16: UInt64] = [:]

    package init() {}

    package var freeBytes: UInt64? { values[4] }
    package var totalBytes: UInt64? { values[5] }
    package var availableBytes: UInt64? { values[6] }
    package var cacheBytes: UInt64? { values[7] }

    /// Reads ten-byte entries; unknown tags are left out, a cut one ends the list.
    init(_ bytes: [UInt8]) {
        var offset = 0
        while offset + 10 <= bytes.count {
            let tag = UInt16(truncatingIfNeeded: readBlock(bytes, offset: offset, width: .word))
            let value = readBlock(bytes, offset: offset + 2, width: .quadWord)
            // All ones: the driver does not know.
            if tag < 16, value != .max { values[tag] = value }
            offset += 10
        }
    }
}
