// A token bucket: so many tokens a second, and a store of them for bursts. Time is handed in, so that a test owns it.

/// Usage: let wait = bucket.wait(for: 4096, at: now); where that is 0, bucket.take(4096, at: now).
package struct TokenBucket: Sendable, Equatable {
    /// Tokens that come in a second, at least 1.
    package let tokensPerSecond: UInt64
    /// The most that are kept, at least 1. Full at the beginning.
    package let burst: UInt64

    private static let nanosecondsPerSecond: Int128 = 1_000_000_000
    /// Tokens times 10^9, so that nothing is lost to rounding. Below zero after a request larger than the store.
    private var level: Int128
    /// Nanoseconds of the last look.
    private var lastLook: UInt64

    /// - Parameters:
    ///   - tokensPerSecond: 1 or more; 0 is taken for 1.
    ///   - burst: tokens kept for bursts; a second's worth where nil.
    ///   - now: nanoseconds of any clock that does not go back.
    package init(tokensPerSecond: UInt64, burst: UInt64? = nil, at now: UInt64) {
        self.tokensPerSecond = max(1, tokensPerSecond)
        self.burst = max(1, burst ?? tokensPerSecond)
        level = Int128(self.burst) * Self.nanosecondsPerSecond
        lastLook = now
    }

    /// Nanoseconds until `amount` may be taken; 0: now. A request larger than the store waits until that is full, and is paid
    /// for by those that come later.
    package mutating func wait(for amount: UInt64, at now: UInt64) -> UInt64 {
        refill(at: now)
        let missing = Int128(min(amount, burst)) * Self.nanosecondsPerSecond - level
        if missing <= 0 { return 0 }
        let rate = Int128(tokensPerSecond)
        return UInt64(clamping: (missing + rate - 1) / rate)
    }

    /// Takes `amount`, whether it is there or not.
    package mutating func take(_ amount: UInt64, at now: UInt64) {
        refill(at: now)
        level -= Int128(amount) * Self.nanosecondsPerSecond
    }

    private mutating func refill(at now: UInt64) {
        guard now > lastLook else { return }
        // Where the product does not fit, the pause was so long that any bucket is full.
        let (gain, overflow) = Int128(tokensPerSecond).multipliedReportingOverflow(by: Int128(now - lastLook))
        let full = Int128(burst) * Self.nanosecondsPerSecond
        let (sum, isOver) = level.addingReportingOverflow(gain)
        level = overflow || isOver ? full : min(full, sum)
        lastLook = now
    }
}

/// What a disk may do: each limit is there or not.
package struct BlockLimits: Sendable, Equatable {
    package struct Limit: Sendable, Equatable {
        package var perSecond: UInt64
        /// nil: a second's worth.
        package var burst: UInt64?
        package init(perSecond: UInt64, burst: UInt64? = nil) {
            self.perSecond = perSecond
            self.burst = burst
        }
    }
    package var totalBytes: Limit?
    package var readBytes: Limit?
    package var writeBytes: Limit?
    package var totalOperations: Limit?
    package var readOperations: Limit?
    package var writeOperations: Limit?

    package init() {}
}

/// The buckets of one disk: a request starts when all that concern it have enough.
package struct BlockThrottle: Sendable {
    private struct Gate: Sendable {
        var bucket: TokenBucket
        var countsBytes: Bool
        var concernsReads: Bool
        var concernsWrites: Bool
    }
    private var gates: [Gate] = []

    package init(_ limits: BlockLimits, at now: UInt64) {
        func add(_ limit: BlockLimits.Limit?, bytes: Bool, reads: Bool, writes: Bool) {
            guard let limit else { return }
            let bucket = TokenBucket(tokensPerSecond: limit.perSecond, burst: limit.burst, at: now)
            gates.append(Gate(bucket: bucket, countsBytes: bytes, concernsReads: reads, concernsWrites: writes))
        }
        add(limits.totalBytes, bytes: true, reads: true, writes: true)
        add(limits.readBytes, bytes: true, reads: true, writes: false)
        add(limits.writeBytes, bytes: true, reads: false, writes: true)
        add(limits.totalOperations, bytes: false, reads: true, writes: true)
        add(limits.readOperations, bytes: false, reads: true, writes: false)
        add(limits.writeOperations, bytes: false, reads: false, writes: true)
    }

    /// 0: the request may start and is paid for; else nanoseconds until it is worth asking again. A flush always may; a discard
    /// and zeroes are writes of no bytes, since none are transferred.
    package mutating func admit(_ request: BlockRequest, at now: UInt64) -> UInt64 {
        let isRead: Bool
        let byteCount: UInt64
        switch request.operation {
        case .flush: return 0
        case .read: (isRead, byteCount) = (true, request.byteCount)
        case .write: (isRead, byteCount) = (false, request.byteCount)
        case .discard, .writeZeroes: (isRead, byteCount) = (false, 0)
        }
        var longest: UInt64 = 0
        for index in gates.indices where isRead ? gates[index].concernsReads : gates[index].concernsWrites {
            longest = max(longest, gates[index].bucket.wait(for: gates[index].countsBytes ? byteCount : 1, at: now))
        }
        if longest > 0 { return longest }
        for index in gates.indices where isRead ? gates[index].concernsReads : gates[index].concernsWrites {
            gates[index].bucket.take(gates[index].countsBytes ? byteCount : 1, at: now)
        }
        return 0
    }
}
