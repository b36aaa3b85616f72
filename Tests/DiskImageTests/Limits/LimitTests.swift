import DiskImage
import Foundation
import HostSystem
import Synchronization
import Testing

private let second: UInt64 = 1_000_000_000

@Suite struct TokenBucketTests {
    @Test func fullBucketGivesItsBurstAtOnceAndThenItsRate() {
        var bucket = TokenBucket(tokensPerSecond: 1000, burst: 5000, at: 0)
        #expect(bucket.wait(for: 5000, at: 0) == 0)
        bucket.take(5000, at: 0)
        #expect(bucket.wait(for: 1, at: 0) == 1_000_000)
        #expect(bucket.wait(for: 1000, at: 0) == second)
        #expect(bucket.wait(for: 1000, at: second / 2) == second / 2)
        #expect(bucket.wait(for: 1000, at: second) == 0)
    }

    @Test func bucketDoesNotFillBeyondItsBurst() {
        var bucket = TokenBucket(tokensPerSecond: 1000, burst: 10, at: 0)
        bucket.take(10, at: 0)
        #expect(bucket.wait(for: 10, at: 3600 * second) == 0)
        bucket.take(10, at: 3600 * second)
        #expect(bucket.wait(for: 10, at: 3600 * second) == second / 100)
    }

    @Test func requestLargerThanTheBurstWaitsForAFullBucketAndIsPaidForAfterwards() {
        var bucket = TokenBucket(tokensPerSecond: 100, burst: 100, at: 0)
        #expect(bucket.wait(for: 1000, at: 0) == 0)
        bucket.take(1000, at: 0)
        // 900 in debt, and one more.
        #expect(bucket.wait(for: 1, at: 0) == 9 * second + second / 100)
        #expect(bucket.wait(for: 1000, at: 0) == 10 * second)
    }

    /// 3 tokens a second asked for one by one: no token is gained or lost to rounding in a day.
    @Test func rateIsExactOverALongTime() {
        var bucket = TokenBucket(tokensPerSecond: 3, burst: 1, at: 0)
        var now: UInt64 = 0
        for _ in 0..<30_001 {
            now += bucket.wait(for: 1, at: now)
            bucket.take(1, at: now)
        }
        // The first one is there; each wait is rounded up to a nanosecond, but what is left over stays.
        #expect(now >= 10_000 * second && now < 10_000 * second + 30_000)
    }

    @Test func extremesDoNotTrap() {
        var bucket = TokenBucket(tokensPerSecond: .max, burst: .max, at: 0)
        bucket.take(.max, at: 0)
        bucket.take(.max, at: .max)
        #expect(bucket.wait(for: .max, at: .max) < 10 * second)
        var slow = TokenBucket(tokensPerSecond: 0, burst: 0, at: .max)
        slow.take(.max, at: 0)
        #expect(slow.wait(for: .max, at: 5) == .max)
    }

    @Test func throttleAsksAllBucketsAndTakesFromNoneUntilAllAgree() {
        var limits = BlockLimits()
        limits.totalOperations = .init(perSecond: 10, burst: 1)
        limits.writeBytes = .init(perSecond: 4096, burst: 4096)
        var throttle = BlockThrottle(limits, at: 0)
        let write = BlockRequest(.write(isDurable: false), offset: 0, byteCount: 4096, tag: 0)
        let read = BlockRequest(.read, offset: 0, byteCount: 1 << 30, tag: 0)
        #expect(throttle.admit(write, at: 0) == 0)
        #expect(throttle.admit(read, at: 0) == second / 10)
        #expect(throttle.admit(BlockRequest(.flush, tag: 0), at: 0) == 0)
        // The bytes hold the write back; the operation it would have been is a read's.
        #expect(throttle.admit(write, at: second / 2) == second / 2)
        #expect(throttle.admit(read, at: second / 2) == 0)
        #expect(throttle.admit(BlockRequest(.discard, offset: 0, byteCount: 1 << 40, tag: 0), at: 6 * second / 10) == 0)
        #expect(throttle.admit(write, at: second) == 0)
    }
}

/// A clock that stands until it is moved.
private final class StandingClock: Sendable {
    private let value = Atomic<UInt64>(1)
    var now: UInt64 { value.load(ordering: .relaxed) }
    func advance(_ nanoseconds: UInt64) { value.wrappingAdd(nanoseconds, ordering: .relaxed) }
}

@Suite struct LimitedBackendTests {
    private let directory: TemporaryDirectory
    init() throws { directory = try TemporaryDirectory() }

    private func submitReads(_ queue: any BlockQueue, _ memory: ScratchMemory, _ tags: Range<Int>) throws {
        for tag in tags {
            queue.vectors(for: tag)[0] = iovec(iov_base: memory.bytes.baseAddress, iov_len: 512)
            queue.submit(BlockRequest(.read, offset: UInt64(tag) * 512, byteCount: 512, tag: tag), vectorCount: 1)
        }
        queue.commit()
    }

    /// Reaps for at least `milliseconds`, or until `count` came.
    private func reap(_ queue: any BlockQueue, _ count: Int, _ milliseconds: Int) -> [Int] {
        var tags: [Int] = []
        let end = Date().addingTimeInterval(Double(milliseconds) / 1000)
        while tags.count < count, Date() < end {
            var wait = pollfd(fd: queue.completionDescriptor, events: Int16(POLLIN), revents: 0)
            poll(&wait, 1, 10)
            queue.reap {
                #expect($0.errno == 0)
                tags.append($0.tag)
            }
        }
        return tags
    }

    @Test func requestsBeyondTheLimitWaitForTheClock() throws {
        ftruncateFile(directory["raw"], 1 << 20)
        let clock = StandingClock()
        var limits = BlockLimits()
        limits.readOperations = .init(perSecond: 1000, burst: 2)
        let backend = LimitedBackend(try openRaw(directory["raw"]), limits: limits) { clock.now }
        let queue = try backend.makeQueue(depth: 8, vectorLimit: 1)
        let memory = ScratchMemory(byteCount: 512)
        try submitReads(queue, memory, 0..<5)
        #expect(Set(reap(queue, 2, 5000)) == [0, 1])
        #expect(reap(queue, 1, 50).isEmpty)
        // A flush does not wait behind them.
        queue.submit(BlockRequest(.flush, tag: 7), vectorCount: 0)
        queue.commit()
        #expect(reap(queue, 1, 5000) == [7])
        clock.advance(2_000_000)
        #expect(Set(reap(queue, 2, 5000)) == [2, 3])
        #expect(reap(queue, 1, 50).isEmpty)
        clock.advance(1_000_000)
        #expect(reap(queue, 1, 5000) == [4])
    }

    /// The descriptor alone wakes the owner: nothing else happens in the loop, and the clock is the real one.
    @Test func timerMakesTheDescriptorReadable() throws {
        ftruncateFile(directory["raw"], 1 << 20)
        var limits = BlockLimits()
        limits.totalBytes = .init(perSecond: 51_200, burst: 512)
        let backend = LimitedBackend(try openRaw(directory["raw"]), limits: limits)
        let queue = try backend.makeQueue(depth: 32, vectorLimit: 1)
        let memory = ScratchMemory(byteCount: 512)
        let start = SystemClock.monotonicNanoseconds
        try submitReads(queue, memory, 0..<21)
        #expect(reap(queue, 21, 20_000).count == 21)
        // The first one is in the burst, twenty follow at a hundred a second.
        #expect(SystemClock.monotonicNanoseconds - start >= 200_000_000)
    }
}

func ftruncateFile(_ path: String, _ byteCount: Int) {
    let descriptor = Glibc.open(path, O_RDWR | O_CREAT, 0o600)
    ftruncate(descriptor, off_t(byteCount))
    close(descriptor)
}
