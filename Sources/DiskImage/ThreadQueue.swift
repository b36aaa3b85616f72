// A block queue on one plain thread with preadv and pwritev: for kernels and sandboxes without io_uring.
import CLinux
import Glibc
import HostSystem
import Synchronization

@safe final class ThreadQueue: BlockQueue, @unchecked Sendable {
    // @unchecked: BlockQueue's callers serialise `pending`; the worker's side is behind its mutex.

    /// What the thread shares with the queue; it outlives the queue until the thread ends.
    private final class Worker: Sendable {
        struct State: ~Copyable, Sendable {
            var slots: RequestSlots
            var waiting: [Int] = []
            var finished: [BlockCompletion] = []
            var isStopping = false
        }
        let state: Mutex<State>
        let wake: EventDescriptor
        let event: EventDescriptor
        let descriptor: CInt
        let image: RawImage  // keeps the descriptor open

        init(descriptor: CInt, image: RawImage, depth: Int, vectorLimit: Int) throws(HostError) {
            wake = try EventDescriptor()
            event = try EventDescriptor()
            self.descriptor = descriptor
            self.image = image
            state = Mutex(State(slots: RequestSlots(depth: depth, vectorLimit: vectorLimit)))
        }

        func run() {
            while true {
                let (tags, isStopping) = state.withLock { state in
                    defer { state.waiting.removeAll() }
                    return (state.waiting, state.isStopping)
                }
                if isStopping { return }
                for tag in tags {
                    let completion = BlockCompletion(tag: tag, errno: perform(tag))
                    state.withLock { $0.finished.append(completion) }
                    event.signal()
                }
                if tags.isEmpty {
                    var wait = pollfd(fd: wake.rawValue, events: Int16(POLLIN), revents: 0)
                    _ = unsafe poll(&wait, 1, -1)
                    wake.drain()
                }
            }
        }

        /// Carries out slot `tag` to its end; returns 0 or an errno.
        private func perform(_ tag: Int) -> CInt {
            while true {
                // The slot belongs to this thread until it is finished, so what it points at may be used unlocked.
                let (request, done, first, count) = state.withLock { state -> (BlockRequest, UInt64, UInt, Int) in
                    let slot = state.slots.slots[tag]
                    let vectors = unsafe state.slots.remainingVectors(tag)
                    return (slot.request, slot.done, UInt(bitPattern: vectors.baseAddress), vectors.count)
                }
                let vectors = unsafe UnsafePointer<iovec>(bitPattern: first)
                let position = Int64(clamping: request.offset + done)
                let result: Int
                // SAFETY: the vectors are the slot's and stay where they are until the queue goes.
                switch request.operation {
                case .read:
                    result = unsafe preadv(descriptor, vectors, CInt(count), off_t(position))
                case .write(let isDurable):
                    result = unsafe apus_pwritev(descriptor, vectors, CInt(count), position, isDurable ? 1 : 0)
                case .flush, .discard, .writeZeroes: return performAllocation(request, descriptor: descriptor)
                }
                if result < 0 {
                    if errno == EINTR { continue }
                    return errno
                }
                if state.withLock({ $0.slots.advance(tag, by: result) }) { return 0 }
                if result == 0 { return EIO }  // the image ends before the request
            }
        }
    }

    private let worker: Worker
    private var pending: [Int] = []

    init(descriptor: CInt, image: RawImage, depth: Int, vectorLimit: Int) throws(HostError) {
        worker = try Worker(descriptor: descriptor, image: image, depth: depth, vectorLimit: vectorLimit)
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
        guard result == 0 else {
            unsafe box.release()
            throw HostError("start", subject: "thread for image \(image.name)", errno: result)
        }
        pthread_detach(thread)
    }

    deinit {
        worker.state.withLock { $0.isStopping = true }
        worker.wake.signal()
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
        worker.state.withLock { [pending] in $0.waiting.append(contentsOf: pending) }
        pending.removeAll(keepingCapacity: true)
        worker.wake.signal()
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
