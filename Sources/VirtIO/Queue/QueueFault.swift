// What a driver can do wrong in a ring. Always the guest's fault: the device stops with NEEDS_RESET and counts it.

/// A queue that breaks the rules of virtio 1.2 §2.7.
package struct QueueFault: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Reason: String, Sendable {
        case ringOutsideMemory = "the ring is not in RAM"
        case ringMisaligned = "the ring is not aligned"
        case sizeInvalid = "the size is not a power of two within the maximum"
        case indexJumped = "the available index is further ahead than the queue is long"
        case headOutsideTable = "the head is outside the descriptor table"
        case nextOutsideTable = "a next field is outside the descriptor table"
        case chainTooLong = "the chain is longer than its table: a loop"
        case emptyBuffer = "a buffer has no bytes"
        case bufferOutsideMemory = "a buffer is not in RAM"
        case readableAfterWritable = "a readable buffer follows a writable one"
        case lengthOverflow = "the chain is longer than 4 GiB"
        case indirectNotNegotiated = "an indirect table without the feature"
        case indirectNested = "an indirect table within an indirect table"
        case indirectChained = "an indirect table with a next field"
        case indirectLengthInvalid = "an indirect table whose length is no multiple of 16, or too long"
    }
    package let queue: Int
    package let reason: Reason

    package var description: String { "virtqueue \(queue): \(reason.rawValue) (guest)" }
}
