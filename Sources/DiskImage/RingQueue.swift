// A block queue on io_uring (io_uring_setup(2)): submissions are batched into one system call, completions signal an eventfd.
//
// Both rings are memory shared with the kernel: heads and tails are atomics, acquire when read, release when published.
import CLinux
import Glibc
import HostSystem
import Synchronization

@safe final class RingQueue: BlockQueue, @unchecked Sendable {
    // @unchecked: BlockQueue's callers serialise; the kernel's side is reached through atomics only.
    private let descriptor: CInt
    private let image: RawImage  // keeps the descriptor open
    private let ring: OwnedDescriptor
    private let event: EventDescriptor
    private var slots: RequestSlots

    private let rings: UnsafeMutableRawPointer
    private let ringByteCount: Int
    private let entries: UnsafeMutablePointer<io_uring_sqe>
    private let entryByteCount: Int
    private let offsets: io_uring_params
    private var tail: UInt32 = 0
    private var unsubmitted: UInt32 = 0
    /// Finished without the kernel: reported with the next reap.
    private var finished: [BlockCompletion] = []

    /// nil where the kernel refuses io_uring to us: the caller has another way.
    init?(descriptor: CInt, image: RawImage, depth: Int, vectorLimit: Int) throws(HostError) {
        var parameters = io_uring_params()
        let number = unsafe apus_uring_setup(UInt32(depth), &parameters)
        if number < 0 {
            if errno == ENOSYS || errno == EPERM || errno == EACCES { return nil }
            throw HostError("set up", subject: "io_uring for \(image.name)", errno: errno)
        }
        ring = OwnedDescriptor(owning: number)
        // One mapping for both rings: every kernel since 5.4.
        guard parameters.features & (1 << 0) != 0 else { return nil }
        let ringByteCount = max(
            Int(parameters.sq_off.array) + Int(parameters.sq_entries) * 4,
            Int(parameters.cq_off.cqes) + Int(parameters.cq_entries) * MemoryLayout<io_uring_cqe>.stride)
        let entryByteCount = Int(parameters.sq_entries) * MemoryLayout<io_uring_sqe>.stride
        let flags = MAP_SHARED | MAP_POPULATE
        // SAFETY: fresh mappings of the ring's own size and offsets (io_uring_setup(2)).
        guard let rings = unsafe mmap(nil, ringByteCount, PROT_READ | PROT_WRITE, flags, number, 0),
            unsafe rings != MAP_FAILED
        else { throw HostError("map", subject: "io_uring of \(image.name)", errno: errno) }
        guard
            let mapped = unsafe mmap(nil, entryByteCount, PROT_READ | PROT_WRITE, flags, number, 0x1000_0000),
            unsafe mapped != MAP_FAILED
        else {
            let reason = errno
            unsafe munmap(rings, ringByteCount)
            throw HostError("map", subject: "io_uring entries of \(image.name)", errno: reason)
        }
        self.descriptor = descriptor
        self.image = image
        event = try EventDescriptor()
        unsafe self.rings = rings
        self.ringByteCount = ringByteCount
        unsafe entries = mapped.bindMemory(to: io_uring_sqe.self, capacity: Int(parameters.sq_entries))
        self.entryByteCount = entryByteCount
        offsets = parameters
        slots = RequestSlots(depth: depth, vectorLimit: vectorLimit)
        var eventNumber = event.rawValue
        guard unsafe apus_uring_register(number, 4, &eventNumber, 1) == 0 else {  // IORING_REGISTER_EVENTFD
            throw HostError("register eventfd with", subject: "io_uring of \(image.name)", errno: errno)
        }
    }

    deinit {
        // SAFETY: mapped in init. Closing the ring waits for nothing, but its owner is idle by contract.
        unsafe munmap(rings, ringByteCount)
        unsafe munmap(entries, entryByteCount)
    }

    var completionDescriptor: CInt { event.rawValue }

    @unsafe func vectors(for tag: Int) -> UnsafeMutableBufferPointer<iovec> { unsafe slots.vectors(for: tag) }

    func submit(_ request: BlockRequest, vectorCount: Int) {
        slots.begin(request, vectorCount: vectorCount)
        enqueue(request.tag)
    }

    /// Puts what is left of slot `tag` into the submission ring.
    private func enqueue(_ tag: Int) {
        let slot = slots.slots[tag]
        let request = slot.request
        let position = request.offset + slot.done
        // The ring has as many entries as there are slots, so it cannot be full after a commit.
        if unsubmitted >= offsets.sq_entries { commit() }
        guard unsubmitted < offsets.sq_entries else {
            finish(tag, errno: EIO)
            return
        }
        let index = tail & (offsets.sq_entries - 1)
        // SAFETY: index is below the number of entries; the vectors outlive the request, being the slot's.
        let entry = unsafe entries + Int(index)
        let vectors = unsafe slots.remainingVectors(tag)
        let address = UInt64(UInt(bitPattern: vectors.baseAddress))
        let number = UInt32(vectors.count)
        switch request.operation {
        case .read:
            unsafe apus_uring_prepare(entry, 1, descriptor, address, number, position, 0, UInt64(tag))
        case .write(let isDurable):
            let flags: UInt32 = isDurable ? 2 : 0  // RWF_DSYNC
            unsafe apus_uring_prepare(entry, 2, descriptor, address, number, position, flags, UInt64(tag))
        case .flush:
            unsafe apus_uring_prepare(entry, 3, descriptor, 0, 0, 0, 1, UInt64(tag))  // IORING_FSYNC_DATASYNC
        case .discard, .writeZeroes(mayUnmap: true):
            // fallocate: the length is in the address field, the mode in the length field.
            unsafe apus_uring_prepare(
                entry, 17, descriptor, request.byteCount, UInt32(APUS_FALLOC_PUNCH), request.offset, 0,
                UInt64(tag))
        case .writeZeroes(mayUnmap: false):
            unsafe apus_uring_prepare(
                entry, 17, descriptor, request.byteCount, UInt32(APUS_FALLOC_ZERO), request.offset, 0,
                UInt64(tag))
        }
        unsafe (rings + Int(offsets.sq_off.array)).storeBytes(of: index, toByteOffset: Int(index) * 4, as: UInt32.self)
        tail &+= 1
        unsubmitted += 1
        unsafe cell(offsets.sq_off.tail).pointee.store(tail, ordering: .releasing)
    }

    func commit() {
        while unsubmitted > 0 {
            let taken = apus_uring_enter(ring.rawValue, unsubmitted, 0, 0)
            if taken >= 0 {
                if taken == 0 { break }
                unsubmitted -= min(unsubmitted, UInt32(taken))
            } else if errno == EINTR {
                continue
            } else {
                // EAGAIN and EBUSY: the kernel is short of memory or of completion space. Try again with the next reap.
                event.signal()
                break
            }
        }
    }

    func reap(_ body: (BlockCompletion) -> Void) {
        event.drain()
        var head = unsafe cell(offsets.cq_off.head).pointee.load(ordering: .relaxed)
        while unsafe cell(offsets.cq_off.tail).pointee.load(ordering: .acquiring) != head {
            let index = Int(head & (offsets.cq_entries - 1))
            // SAFETY: index is below the number of completion entries; the kernel published it before the tail.
            let entry = unsafe (rings + Int(offsets.cq_off.cqes)).load(
                fromByteOffset: index * MemoryLayout<io_uring_cqe>.stride, as: io_uring_cqe.self)
            let tag = Int(truncatingIfNeeded: entry.user_data)
            let result = entry.res
            head &+= 1
            unsafe cell(offsets.cq_off.head).pointee.store(head, ordering: .releasing)
            if slots.slots.indices.contains(tag) { complete(tag, result: result) }
        }
        for completion in finished { body(completion) }
        finished.removeAll(keepingCapacity: true)
        commit()
    }

    private func complete(_ tag: Int, result: Int32) {
        let request = slots.slots[tag].request
        if result < 0 {
            switch (-result, request.operation) {
            case (EINTR, _), (EAGAIN, _): enqueue(tag)
            case (EOPNOTSUPP, .discard), (EOPNOTSUPP, .writeZeroes), (EINVAL, .discard), (EINVAL, .writeZeroes):
                finish(tag, errno: performAllocation(request, descriptor: descriptor))
            default: finish(tag, errno: -result)
            }
            return
        }
        switch request.operation {
        case .read, .write:
            if slots.advance(tag, by: Int(result)) {
                finish(tag, errno: 0)
            } else if result == 0 {
                finish(tag, errno: EIO)  // the image ends before the request
            } else {
                enqueue(tag)
            }
        case .flush, .discard, .writeZeroes: finish(tag, errno: 0)
        }
    }

    private func finish(_ tag: Int, errno: CInt) {
        finished.append(BlockCompletion(tag: tag, errno: errno))
    }

    /// A 32-bit field of the shared rings.
    @unsafe private func cell(_ offset: UInt32) -> UnsafeMutablePointer<Atomic<UInt32>> {
        // SAFETY: the kernel gave the offset within the mapping; Atomic<UInt32> has the layout of UInt32.
        unsafe (rings + Int(offset)).assumingMemoryBound(to: Atomic<UInt32>.self)
    }
}
