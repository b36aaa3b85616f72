// Discards and zeroes: whole clusters by their entries, parts of clusters by writing zeroes.
import Synchronization

extension QCOW2Image {
    enum Forgetting: Sendable {
        /// Parts of clusters stay as they are; whole ones read as zero and are given back. In version 2, which has no zero
        /// clusters, those over a backing image stay.
        case discard
        case zero(mayFree: Bool)
    }
    private enum Step: Sendable {
        case done(byteCount: UInt64)
        /// Zeroes have to be written as data.
        case write(byteCount: UInt64)
    }

    /// - Parameter byteCount: up to the disk's end or, while it grows, behind it.
    func forget(at start: UInt64, byteCount: UInt64, how: Forgetting) throws(ImageError) {
        let end = start + byteCount
        let mask = clusterByteCount - 1
        var position = start
        while position < end {
            let clusterEnd = min((position & ~mask) + clusterByteCount, max(self.byteCount, end))
            if position & mask != 0 || end < clusterEnd {
                let part = min(end, clusterEnd) - position
                if case .zero = how { try zeroPart(at: position, byteCount: part) }
                position += part
                continue
            }
            // Whole clusters, of which the last one may be cut short by the disk's end.
            let whole = end == max(self.byteCount, end) ? end - position : (end - position) & ~mask
            let step = try metadata.withLock { state throws(ImageError) -> Step in
                try state.prepareForChanges()
                return try self.forgetRun(&state, at: position, limit: min(whole, 512 * clusterByteCount), how: how)
            }
            switch step {
            case .done(let byteCount): position += byteCount
            case .write(let byteCount):
                try writeZeroes(at: position, byteCount: byteCount)
                position += byteCount
            }
        }
    }

    /// Zeroes in a part of one cluster, unless it reads as zero already.
    private func zeroPart(at position: UInt64, byteCount: UInt64) throws(ImageError) {
        let isZero = try metadata.withLock { state throws(ImageError) -> Bool in
            switch try state.mapping(at: position, limit: byteCount).mapping {
            case .zero: true
            case .unallocated: !self.hasBacking(at: position)
            case .data, .compressed, .malformed: false
            }
        }
        if !isZero { try writeZeroes(at: position, byteCount: byteCount) }
    }

    private func writeZeroes(at start: UInt64, byteCount: UInt64) throws(ImageError) {
        var done: UInt64 = 0
        while done < byteCount {
            let part = min(byteCount - done, 4 << 20)
            try writeGuest(.zeroes(Int(part)), at: start + done)
            done += part
        }
    }

    /// Whole clusters from `position` on that have the same mapping.
    private func forgetRun(
        _ state: inout QCOW2Metadata, at position: UInt64, limit: UInt64, how: Forgetting
    ) throws(ImageError) -> Step {
        let (mapping, runByteCount) = try state.mapping(at: position, limit: limit)
        let needsZero = hasBacking(at: position)
        let hasZeroClusters = state.header.version >= 3
        let mayFree: Bool
        let isDiscard: Bool
        switch how {
        case .discard: (mayFree, isDiscard) = (true, true)
        case .zero(let may): (mayFree, isDiscard) = (may, false)
        }
        let replacement = QCOW2Entry(rawValue: needsZero ? QCOW2Entry.zero : 0)
        switch mapping {
        case .malformed: throw state.corruption("discard in", at: position, "its entry is damaged")
        case .unallocated where !needsZero, .zero(preallocated: .none, _): return .done(byteCount: runByteCount)
        case .zero where !mayFree: return .done(byteCount: runByteCount)
        case .unallocated, .zero, .data, .compressed: break
        }
        if !hasZeroClusters, needsZero || !mayFree {
            return isDiscard ? .done(byteCount: runByteCount) : .write(byteCount: runByteCount)
        }
        try state.prepareL2Table(position)
        for guest in stride(from: position, to: position + runByteCount, by: Int(clusterByteCount)) {
            // One by one: hosts of zero clusters need not follow each other.
            let (old, _) = try state.mapping(at: guest, limit: clusterByteCount)
            if case .data(let offset, isCopied: true) = old, !mayFree {
                try state.setEntry(guest, QCOW2Entry(rawValue: offset | QCOW2Entry.copied | QCOW2Entry.zero))
            } else {
                try state.setEntry(guest, !mayFree ? QCOW2Entry(rawValue: QCOW2Entry.zero) : replacement)
                state.releaseHost(of: old)
            }
        }
        return .done(byteCount: runByteCount)
    }
}
