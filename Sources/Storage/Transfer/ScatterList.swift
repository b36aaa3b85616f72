// Where in guest memory a command's data lies: what an AHCI PRD table, an IDE PRD table or an NVMe PRP list comes to.
//
// The guest wrote the list: every piece is checked when it is appended and again when it is used, so that nothing here depends
// on memory staying as it was.
package import Glibc
package import GuestMemory

/// Pieces of guest RAM in the order the data fills them. Neighbours are joined.
package struct ScatterList: Sendable {
    package struct Segment: Sendable, Equatable {
        package var address: GuestAddress
        package var byteCount: Int
    }

    package private(set) var segments: [Segment] = []
    package private(set) var byteCount = 0

    package init() {}

    /// Keeps the storage for the next command.
    package mutating func removeAll() {
        segments.removeAll(keepingCapacity: true)
        byteCount = 0
    }

    /// Adds `count` bytes at `address`. False, and nothing added, where they are not RAM.
    package mutating func append(_ address: GuestAddress, _ count: Int, memory: GuestMemory) -> Bool {
        guard count > 0 else { return count == 0 }
        guard unsafe (try? memory.hostRange(at: address, byteCount: UInt64(count))) != nil else { return false }
        if let last = segments.last, last.address.advanced(by: UInt64(last.byteCount)) == address,
            unsafe (try? memory.hostRange(at: last.address, byteCount: UInt64(last.byteCount + count))) != nil
        {
            segments[segments.count - 1].byteCount += count
        } else {
            segments.append(Segment(address: address, byteCount: count))
        }
        byteCount += count
        return true
    }

    /// Copies `bytes` out to the guest from `offset` on, as many as fit. Returns how many did.
    @discardableResult
    package func write(_ bytes: [UInt8], at offset: Int = 0, memory: GuestMemory) -> Int {
        var done = 0
        forEachPiece(from: offset, count: min(bytes.count, max(0, byteCount - offset))) { address, count in
            // Checked when appended; a failure here would only leave the guest's memory as it was.
            try? memory.write(Array(bytes[done..<(done + count)]), at: address)
            done += count
            return true
        }
        return done
    }

    /// The first bytes of the data, at most `limit`. Allocates: for parameter lists.
    package func bytes(limit: Int, memory: GuestMemory) -> [UInt8] {
        var result: [UInt8] = []
        forEachPiece(from: 0, count: min(limit, byteCount)) { address, count in
            result += (try? memory.bytes(at: address, count: count)) ?? [UInt8](repeating: 0, count: count)
            return true
        }
        return result
    }

    /// Points `vectors` at the bytes from `offset` on, at most `count`, as far as the vectors reach; a run that would end before
    /// `count` is cut to whole sectors. Nil where a piece is not RAM any more.
    @unsafe package func fill(
        _ vectors: UnsafeMutableBufferPointer<iovec>, from offset: Int, count: Int, memory: GuestMemory
    ) -> (vectorCount: Int, byteCount: Int)? {
        var used = 0, total = 0, isSound = true
        forEachPiece(from: offset, count: count) { address, pieceCount in
            guard used < vectors.count else { return false }
            guard let range = unsafe try? memory.hostRange(at: address, byteCount: UInt64(pieceCount)) else {
                isSound = false
                return false
            }
            // SAFETY: `used` is within the buffer, by the guard above.
            unsafe vectors[used] = iovec(iov_base: range.start, iov_len: pieceCount)
            used += 1
            total += pieceCount
            return true
        }
        guard isSound, total > 0 else { return nil }
        var excess = total < count ? total % 512 : 0
        total -= excess
        while excess > 0, used > 0 {
            // SAFETY: used - 1 was filled above.
            let length = unsafe vectors[used - 1].iov_len
            if length > excess {
                unsafe vectors[used - 1].iov_len = length - excess
                excess = 0
            } else {
                excess -= length
                used -= 1
            }
        }
        return total > 0 ? (used, total) : nil
    }

    /// Calls `body` with the pieces of `count` bytes from `offset`, as far as there are any, until it returns false.
    private func forEachPiece(from offset: Int, count: Int, _ body: (GuestAddress, Int) -> Bool) {
        var skip = offset, rest = count
        for segment in segments where rest > 0 {
            if skip >= segment.byteCount {
                skip -= segment.byteCount
                continue
            }
            let piece = min(segment.byteCount - skip, rest)
            guard let address = segment.address.advanced(by: UInt64(skip)), body(address, piece) else { return }
            rest -= piece
            skip = 0
        }
    }
}
