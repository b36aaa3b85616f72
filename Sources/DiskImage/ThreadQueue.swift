// A block queue on one plain thread over an image that blocks: for image formats, and for kernels and sandboxes without io_uring.
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
        let image: any BlockingImage

        init(image: any BlockingImage, depth: Int, vectorLimit: Int) throws(HostError) {
            wake = try EventDescriptor()
            event = try EventDescriptor()
            self.image = image
            state = Mutex(State(slots: RequestSlots(depth: depth, vectorLimit: vectorLimit)))
        }

        func run() {
            var isSettled = true
            while true {
                let (tags, isStopping) = state.withLock { state in
                    defer { state.waiting.removeAll() }
                    return (state.waiting, state.isStopping)
                }
                if isStopping {
                    if !isSettled { image.settle() }
                    return
                }
                for tag in tags {
                    isSettled = false
                    let completion = BlockCompletion(tag: tag, errno: perform(tag))
                    state.withLock { $0.finished.append(completion) }
                    event.signal()
                }
                if tags.isEmpty {
                    var wait = pollfd(fd: wake.rawValue, events: Int16(POLLIN), revents: 0)
                    let count = unsafe poll(&wait, 1, isSettled ? -1 : 1000)
                    if count == 0 {
                        image.settle()
                        isSettled = true
                    }
                    wake.drain()
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
            throw HostError("start", subject: "thread for an image", errno: result)
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
