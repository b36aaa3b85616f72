// The bytes a PS/2 device has ready to send: at most 16, as in the keyboards of IBM (Keyboard Technical Reference,
// "Buffer"), in one integer, so that queueing a key allocates nothing.

package struct PS2Queue: Sendable, Equatable, ExpressibleByArrayLiteral {
    package static let capacity = 16

    /// The oldest byte is in bits 7 to 0; bits above `count` bytes are 0.
    private(set) var bits: UInt128 = 0
    package private(set) var count = 0

    package init() {}

    /// The first 16 of `elements`.
    package init(arrayLiteral elements: UInt8...) {
        for element in elements { append(element) }
    }

    /// Nil where saved state is of no such queue.
    init?(bits: UInt128, count: Int) {
        guard (0...Self.capacity).contains(count), count == Self.capacity || bits >> (UInt128(count) * 8) == 0 else {
            return nil
        }
        self.bits = bits
        self.count = count
    }

    package var isEmpty: Bool { count == 0 }
    package var space: Int { Self.capacity - count }

    /// False, and nothing happens, where the queue is full.
    @discardableResult
    package mutating func append(_ byte: UInt8) -> Bool {
        guard count < Self.capacity else { return false }
        bits |= UInt128(byte) << (UInt128(count) * 8)
        count += 1
        return true
    }

    /// All of `other` or, where it does not fit, nothing of it.
    @discardableResult
    package mutating func append(contentsOf other: PS2Queue) -> Bool {
        guard other.count <= space else { return false }
        if !other.isEmpty { bits |= other.bits << (UInt128(count) * 8) }
        count += other.count
        return true
    }

    package mutating func popFirst() -> UInt8? {
        guard count > 0 else { return nil }
        defer {
            bits >>= 8
            count -= 1
        }
        return UInt8(truncatingIfNeeded: bits)
    }
}
