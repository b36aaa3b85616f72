// A block queue on plain threads over an image that blocks: for image formats, and for kernels and sandboxes without io_uring.
//
// It begins with one thread; where requests wait while all threads are busy it starts another, so that a slow disk sees several
// requests at once.
import CLinux
import Glibc
import HostSystem
import Synchronization

@safe final class ThreadQueue: BlockQueue, @unchecked Sendable {
    // @unchecked: BlockQueue's callers serialise `pending`; the threads' side is behind its mutex.

    /// Threads of one queue at most.
    static let threadLimit = 4

    /// What the threads share with the queue; it outlives the queue until the last of them ends.
    private final class Worker: Sendable {
        struct State: ~Copyable, Sendable {
            var slots: RequestSlots
            /// In their order; those before `next` are taken.
            var waiting: [Int] = []
            var next = 0
            var finished: [BlockCompletion] = []
            var threadCount = 0
            var busyCount = 0
            var isSettled = true
            var isStopping = false

            mutating func take() -> Int? {
                guard next < waiting.count else { return nil }
                next += 1
                let tag = waiting[next - 1]
                if next == waiting.count {
                    waiting.removeAll(keepingCapacity: true)
                    next = 0
                }
                return tag
            }
        }
        private enum Step: Sendable { case perform(Int), wait(isSettled: Bool), end(isLast: Bool) }

        let state: Mutex<State>
        /// Counts requests that wait.
        let semaphore: Semaphore
        let event: EventDescriptor
        let image: any BlockingImage

        init(image: any BlockingImage, depth: Int, vectorLimit: Int) throws(HostError) {
            semaphore = Semaphore()
            event = try EventDescriptor()
            self.image = image
            state = Mutex(State(slots: RequestSlots(depth: depth, vectorLimit: vectorLimit)))
        }

        func run() {
            while true {
                let step = state.withLock { state -> Step in
                    if let tag = state.take() {
                        state.busyCount += 1
                        state.isSettled = false
                        return .perform(tag)
                    }
                    if state.isStopping {
                        state.threadCount -= 1
                        return .end(isLast: state.threadCount == 0)
                    }
                    return .wait(isSettled: state.isSettled || state.busyCount > 0)
                }
                switch step {
                case .perform(let tag):
                    let completion = BlockCompletion(tag: tag, errno: perform(tag))
                    state.withLock { state in
                        state.busyCount -= 1
                        state.finished.append(completion)
                    }
                    event.signal()
                case .wait(let isSettled):
                    if !semaphore.wait(seconds: isSettled ? nil : 1) {
                        // What another thread changes now is settled after it.
                        state.withLock { $0.isSettled = $0.busyCount == 0 }
                        image.settle()
                    }
                case .end(let isLast):
                    if isLast { image.settle() }
                    return
                }
            }
        }

        /// Carries out slot `tag` to its end; returns 0 or an errno.
        private func perform(_ tag: Int) -> CInt {
            // The slot belongs to this thread until it is finished, so what it points at may be used unlocked.
            let (request, vectors) = state.withLock { state -> (BlockRequest, TransferVectors) in
                // SAFETY: the memory is the request's until it is finished.
                unsafe (state.slots.slots[tag].request, TransferVectors(state.slots.remainingVectors(tag)))
            }
            return image.perform(request, vectors: vectors)
        }
    }

    private let worker: Worker
    private var pending: [Int] = []

    init(image: any BlockingImage, depth: Int, vectorLimit: Int) throws(HostError) {
        worker = try Worker(image: image, depth: depth, vectorLimit: vectorLimit)
        let result = startThread()
        guard result == 0 else {
            throw HostError("start", subject: "thread for an image", errno: result)
        }
    }

    /// Returns 0 or an errno.
    private func startThread() -> CInt {
        worker.state.withLock { $0.threadCount += 1 }
        var thread = pthread_t()
        let box = unsafe Unmanaged.passRetained(worker)
        // SAFETY: the thread takes over the reference that passRetained made.
        let result = unsafe pthread_create(
            &thread, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                let worker = unsafe Unmanaged<Worker>.fromOpaque(argument).takeRetainedValue()
                apus_name_block_thread()
                worker.run()
                return nil
            }, box.toOpaque())
        if result == 0 {
            pthread_detach(thread)
        } else {
            unsafe box.release()
            worker.state.withLock { $0.threadCount -= 1 }
        }
        return result
    }

    deinit {
        let count = worker.state.withLock { state in
            state.isStopping = true
            return state.threadCount
        }
        for _ in 0..<count { worker.semaphore.post() }
    }

    var completionDescriptor: CInt { worker.event.rawValue }

    @unsafe func vectors(for tag: Int) -> UnsafeMutableBufferPointer<iovec> {
        let (base, count) = worker.state.withLock { state -> (UInt, Int) in
            let vectors = unsafe state.slots.vectors(for: tag)
            return (UInt(bitPattern: vectors.baseAddress), vectors.count)
        }
        // SAFETY: the arena does not move; the slot is the caller's until it submits.
        return unsafe UnsafeMutableBufferPointer(start: UnsafeMutablePointer(bitPattern: base), count: count)
    }

    func submit(_ request: BlockRequest, vectorCount: Int) {
        worker.state.withLock { $0.slots.begin(request, vectorCount: vectorCount) }
        pending.append(request.tag)
    }

    func commit() {
        guard !pending.isEmpty else { return }
        let needsThread = worker.state.withLock { [pending] state in
            state.waiting.append(contentsOf: pending)
            let waiting = state.waiting.count - state.next
            return waiting > state.threadCount - state.busyCount
                && state.threadCount < min(Self.threadLimit, state.slots.depth)
        }
        for _ in pending { worker.semaphore.post() }
        pending.removeAll(keepingCapacity: true)
        // Without another thread the requests wait longer, no more.
        if needsThread { _ = startThread() }
    }

    func reap(_ body: (BlockCompletion) -> Void) {
        worker.event.drain()
        let finished = worker.state.withLock { state in
            defer { state.finished.removeAll() }
            return state.finished
        }
        for completion in finished { body(completion) }
    }
}

/// A counting semaphore (sem_overview(7)): each post wakes one thread.
@safe final class Semaphore: @unchecked Sendable {
    // @unchecked: a POSIX semaphore is made for many threads. It stays at one address.
    private let semaphore: UnsafeMutablePointer<sem_t>

    init() {
        unsafe semaphore = .allocate(capacity: 1)
        // SAFETY: fresh memory of the right type; 0 is a valid value.
        unsafe sem_init(semaphore, 0, 0)
    }

    deinit {
        // SAFETY: made in init; whoever waits holds a reference.
        unsafe sem_destroy(semaphore)
        unsafe semaphore.deallocate()
    }

    func post() { unsafe _ = sem_post(semaphore) }

    /// False after `seconds` without a post; nil: waits for one.
    func wait(seconds: Int?) -> Bool {
        guard let seconds else {
            while unsafe sem_wait(semaphore) != 0, errno == EINTR {}
            return true
        }
        var time = timespec()
        unsafe clock_gettime(CLOCK_REALTIME, &time)
        time.tv_sec += seconds
        while unsafe sem_timedwait(semaphore, &time) != 0 {
            if errno != EINTR { return false }
        }
        return true
    }
}
