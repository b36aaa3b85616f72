// The requests of one queue and their I/O vectors: fixed memory, made once, so that the kernel may keep pointing at it.
// Both: which of them owns iovec for the compiler depends on the file that is compiled before this one.
import CLinux
import Glibc

/// Slots by tag. A slot keeps what is left of its transfer, so that a short one can be continued.
@safe struct RequestSlots: ~Copyable, @unchecked Sendable {
    // @unchecked: the memory is this value's alone; the queue that owns it is serialised by its owner.
    struct Slot {
        var request = BlockRequest(.flush, tag: 0)
        var firstVector = 0
        var vectorCount = 0
        var done: UInt64 = 0
    }

    let depth: Int
    let vectorLimit: Int
    private let arena: UnsafeMutableBufferPointer<iovec>
    private(set) var slots: [Slot]

    init(depth: Int, vectorLimit: Int) {
        self.depth = depth
        self.vectorLimit = vectorLimit
        // Touched only as far as requests need: the pages behind long requests never become resident.
        unsafe arena = .allocate(capacity: depth * vectorLimit)
        slots = Array(repeating: Slot(), count: depth)
    }

    deinit {
        // SAFETY: allocated in init; iovec is trivial.
        unsafe arena.deallocate()
    }

    @unsafe func vectors(for tag: Int) -> UnsafeMutableBufferPointer<iovec> {
        precondition(tag >= 0 && tag < depth, "the tag is the device's own number")
        // SAFETY: within the arena by the line above.
        return unsafe UnsafeMutableBufferPointer(rebasing: arena[(tag * vectorLimit)..<((tag + 1) * vectorLimit)])
    }

    mutating func begin(_ request: BlockRequest, vectorCount: Int) {
        slots[request.tag] = Slot(request: request, firstVector: 0, vectorCount: vectorCount, done: 0)
    }

    /// The vectors still to be transferred.
    @unsafe func remainingVectors(_ tag: Int) -> UnsafeMutableBufferPointer<iovec> {
        let slot = slots[tag]
        // SAFETY: firstVector + vectorCount stays within the slot's vectors.
        return unsafe UnsafeMutableBufferPointer(
            rebasing: vectors(for: tag)[slot.firstVector..<(slot.firstVector + slot.vectorCount)])
    }

    /// Takes note of `count` transferred bytes. True when the request is finished.
    mutating func advance(_ tag: Int, by count: Int) -> Bool {
        slots[tag].done += UInt64(count)
        var rest = count
        let vectors = unsafe vectors(for: tag)
        while rest > 0, slots[tag].vectorCount > 0 {
            let index = slots[tag].firstVector
            // SAFETY: firstVector is within the slot while vectorCount is positive.
            let length = unsafe vectors[index].iov_len
            if rest < length {
                unsafe vectors[index].iov_base = vectors[index].iov_base + rest
                unsafe vectors[index].iov_len = length - rest
                return false
            }
            rest -= length
            slots[tag].firstVector += 1
            slots[tag].vectorCount -= 1
        }
        return slots[tag].done >= slots[tag].request.byteCount
    }
}
