// A disk with limits: requests beyond them wait in their queue until the buckets have filled again. The buckets are the disk's,
// shared by all of its queues.
import CLinux
import Glibc
package import HostSystem
import Synchronization

/// Usage: LimitedBackend(image, limits: limits) in place of the image.
package final class LimitedBackend: BlockBackend {
    private let base: any BlockBackend
    private let throttle: Mutex<BlockThrottle>
    private let now: @Sendable () -> UInt64

    /// - Parameter now: nanoseconds of a clock that does not go back.
    package init(
        _ base: any BlockBackend, limits: BlockLimits,
        now: @escaping @Sendable () -> UInt64 = { SystemClock.monotonicNanoseconds }
    ) {
        self.base = base
        self.now = now
        throttle = Mutex(BlockThrottle(limits, at: now()))
    }

    package var byteCount: UInt64 { base.byteCount }
    package var isReadOnly: Bool { base.isReadOnly }
    package var logicalBlockByteCount: UInt32 { base.logicalBlockByteCount }
    package var physicalBlockByteCount: UInt32 { base.physicalBlockByteCount }

    /// Other limits from now on, with full buckets. Requests that wait notice when their time has come.
    package func setLimits(_ limits: BlockLimits) { throttle.withLock { $0 = BlockThrottle(limits, at: now()) } }

    package func makeQueue(depth: Int, vectorLimit: Int) throws(HostError) -> any BlockQueue {
        try LimitedQueue(
            base: base.makeQueue(depth: depth, vectorLimit: vectorLimit),
            admit: { [self] request in throttle.withLock { $0.admit(request, at: now()) } })
    }
}

/// A queue that passes requests on as they are admitted, in their order but for flushes.
final class LimitedQueue: BlockQueue, @unchecked Sendable {
    // @unchecked: BlockQueue's callers serialise.
    private let base: any BlockQueue
    private let admit: @Sendable (BlockRequest) -> UInt64
    private let timer: TimerDescriptor
    /// Readable when the base's completions wait or the timer has fired.
    private let either: OwnedDescriptor
    private var held: [(request: BlockRequest, vectorCount: Int)] = []
    /// Where in `held` the next one is: taking from the front of an array costs all that follow.
    private var next = 0

    init(base: any BlockQueue, admit: @escaping @Sendable (BlockRequest) -> UInt64) throws(HostError) {
        self.base = base
        self.admit = admit
        timer = try TimerDescriptor()
        let number = epoll_create1(CInt(EPOLL_CLOEXEC))
        guard number >= 0 else { throw HostError("create", subject: "epoll for a disk with limits", errno: errno) }
        either = OwnedDescriptor(owning: number)
        for descriptor in [base.completionDescriptor, timer.rawValue] {
            var event = unsafe epoll_event()
            unsafe event.events = EPOLLIN.rawValue
            // SAFETY: reads a local.
            guard unsafe epoll_ctl(number, EPOLL_CTL_ADD, descriptor, &event) == 0 else {
                throw HostError("watch", subject: "a disk with limits", errno: errno)
            }
        }
    }

    var completionDescriptor: CInt { either.rawValue }

    @unsafe func vectors(for tag: Int) -> UnsafeMutableBufferPointer<iovec> { unsafe base.vectors(for: tag) }

    func submit(_ request: BlockRequest, vectorCount: Int) {
        let mayPass = held.isEmpty || request.operation == .flush
        let wait = mayPass ? admit(request) : 0
        if mayPass, wait == 0 {
            base.submit(request, vectorCount: vectorCount)
        } else {
            if held.isEmpty { timer.set(to: SystemClock.monotonicNanoseconds &+ wait) }
            held.append((request, vectorCount))
        }
    }

    func commit() { base.commit() }

    func reap(_ body: (BlockCompletion) -> Void) {
        timer.drain()
        base.reap(body)
        release()
    }

    /// Passes on what may go now; sets the timer for the next one.
    private func release() {
        guard !held.isEmpty else { return }
        var wait: UInt64 = 0
        while next < held.count {
            wait = admit(held[next].request)
            if wait > 0 { break }
            base.submit(held[next].request, vectorCount: held[next].vectorCount)
            next += 1
        }
        base.commit()
        if next == held.count {
            held.removeAll(keepingCapacity: true)
            next = 0
        } else {
            timer.set(to: SystemClock.monotonicNanoseconds &+ wait)
        }
    }
}
