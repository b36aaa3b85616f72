// One queue of a block device: takes requests off the ring, hands them to the image, returns them as they finish.
//
// The lock says which thread serves the queue: its event loop, for a moment the transport. Requests in flight hold a slot;
// a stopped queue still returns what was in flight, into a ring whose memory the driver keeps until the reset is done.
import DiskImage
import GuestMemory
import HostSystem
import MachineCore
import Synchronization

final class BlockQueueService: Sendable {
    private struct Slot: Sendable {
        var head: UInt16 = 0
        /// Where the status byte goes, and what the used element says.
        var status = GuestAddress(0)
        var writtenByteCount: UInt32 = 0
        var byteCount = 0
        var isRead = false
        /// Ranges of a discard still to do.
        var ranges: [BlockCommand.Range] = []
        var rangeOperation = RangeOperation.none
    }
    private enum RangeOperation: Sendable { case none, discard, writeZeroes }
    private struct State: Sendable {
        var active: ActiveQueue?
        var features: VirtIOFeatures = []
        var isRunning = false
        var chain = DescriptorChain()
        var slots: [Slot]
        var free: [Int]
    }

    private static let budget = 256

    private let image: any BlockQueue
    private let serial: [UInt8]
    private let sectorCount: @Sendable () -> UInt64
    private let isReadOnly: Bool
    private let counters: DeviceCounters
    private let state: Mutex<State>
    private let inFlight = Atomic<Int>(0)

    init(
        image: any BlockQueue, depth: Int, serial: [UInt8], isReadOnly: Bool, counters: DeviceCounters,
        sectorCount: @escaping @Sendable () -> UInt64
    ) {
        self.image = image
        self.serial = serial
        self.isReadOnly = isReadOnly
        self.counters = counters
        self.sectorCount = sectorCount
        state = Mutex(
            State(slots: Array(repeating: Slot(), count: depth), free: Array((0..<depth).reversed())))
    }

    var completionDescriptor: CInt { image.completionDescriptor }
    var isIdle: Bool { inFlight.load(ordering: .acquiring) == 0 }
    var position: RingPosition? { state.withLock { $0.active?.ring.position } }

    func start(_ queue: ActiveQueue?, features: VirtIOFeatures) {
        state.withLock { state in
            state.active = queue
            state.features = features
            state.isRunning = queue != nil
        }
    }

    func stop() { state.withLock { $0.isRunning = false } }

    func reset() {
        state.withLock { state in
            state.active = nil
            state.isRunning = false
        }
    }

    // MARK: the ring

    /// The driver rang.
    func serve() {
        state.withLock { state in
            guard state.isRunning, var active = state.active else { return }
            do throws(QueueFault) {
                try take(&active, &state)
            } catch {
                state.isRunning = false
                active.link.events.guestFault(error)
            }
            state.active = active
        }
    }

    /// The image finished requests.
    func complete() {
        state.withLock { state in
            guard var active = state.active else { return }
            do throws(QueueFault) {
                try reap(&active, &state)
                if try active.ring.publish() { active.link.interrupt() }
                // Slots are free again: the driver may have been left waiting for one.
                if state.isRunning { try take(&active, &state) }
            } catch {
                state.isRunning = false
                active.link.events.guestFault(error)
            }
            state.active = active
        }
    }

    private func take(_ active: inout ActiveQueue, _ state: inout State) throws(QueueFault) {
        var taken = 0
        // However the loop ends, what was submitted starts, and what was answered at once is shown.
        defer { image.commit() }
        repeat {
            try active.ring.suppressNotifications()
            while taken < Self.budget, let tag = state.free.last, try active.ring.pop(into: &state.chain) {
                taken += 1
                try begin(tag, &active, &state)
            }
            if try active.ring.publish() { active.link.interrupt() }
            if state.free.isEmpty { return }  // `complete` goes on
            if taken == Self.budget {
                active.link.signal()
                return
            }
        } while try active.ring.allowNotifications()
    }

    private func begin(_ tag: Int, _ active: inout ActiveQueue, _ state: inout State) throws(QueueFault) {
        guard
            let command = BlockCommand(
                state.chain, sectorCount: sectorCount(), isReadOnly: isReadOnly, features: state.features)
        else {
            // No room for an answer: the buffer goes back empty, as from hardware that cannot decode it.
            counters.countError()
            try active.ring.push(head: state.chain.head, byteCount: 0)
            return
        }
        switch command {
        case .refuse(let status):
            counters.countError()
            try answer(status, &active, state.chain, written: 1)
        case .identify:
            let count = state.chain.write(serial, at: 0)
            // With less than 20 bytes of room the last of them was the status byte's: it is written after.
            try answer(.ok, &active, state.chain, written: UInt32(count) + 1)
        case .read(let offset, let byteCount):
            let vectors = unsafe state.chain.writableVectors(
                from: 0, count: byteCount, into: image.vectors(for: tag))
            try submit(.read, offset, byteCount, vectors, tag, &active, &state)
        case .write(let offset, let byteCount):
            let vectors = unsafe state.chain.readableVectors(
                from: BlockCommand.headerByteCount, count: byteCount, into: image.vectors(for: tag))
            // Without FLUSH a driver takes every write for durable (§5.2.5.2).
            let isDurable = !state.features.contains(.blockFlush)
            try submit(.write(isDurable: isDurable), offset, byteCount, vectors, tag, &active, &state)
        case .flush:
            try submit(.flush, 0, 0, 0, tag, &active, &state)
        case .discard(let ranges):
            try submit(ranges, .discard, tag, &active, &state)
        case .writeZeroes(let ranges):
            try submit(ranges, .writeZeroes, tag, &active, &state)
        }
    }

    private func submit(
        _ operation: BlockRequest.Operation, _ offset: UInt64, _ byteCount: Int, _ vectors: Int?, _ tag: Int,
        _ active: inout ActiveQueue, _ state: inout State
    ) throws(QueueFault) {
        guard let vectors else {
            // More buffers than seg_max: the driver was told.
            counters.countError()
            return try answer(.ioError, &active, state.chain, written: 1)
        }
        occupy(tag, &state)
        state.slots[tag].byteCount = byteCount
        state.slots[tag].isRead = operation == .read
        image.submit(
            BlockRequest(operation, offset: offset, byteCount: UInt64(byteCount), tag: tag), vectorCount: vectors)
    }

    private func submit(
        _ ranges: [BlockCommand.Range], _ operation: RangeOperation, _ tag: Int, _ active: inout ActiveQueue,
        _ state: inout State
    ) throws(QueueFault) {
        guard !ranges.isEmpty else { return try answer(.ok, &active, state.chain, written: 1) }
        occupy(tag, &state)
        state.slots[tag].ranges = ranges
        state.slots[tag].rangeOperation = operation
        submitNextRange(tag, &state)
    }

    private func submitNextRange(_ tag: Int, _ state: inout State) {
        guard let range = state.slots[tag].ranges.popLast() else { return }
        let isDiscard = state.slots[tag].rangeOperation == .discard
        image.submit(
            BlockRequest(
                isDiscard ? .discard : .writeZeroes(mayUnmap: range.mayUnmap), offset: range.offset,
                byteCount: range.byteCount, tag: tag), vectorCount: 0)
    }

    /// Takes slot `tag`, the last free one, for the chain at hand.
    private func occupy(_ tag: Int, _ state: inout State) {
        state.free.removeLast()
        inFlight.wrappingAdd(1, ordering: .acquiringAndReleasing)
        let last = state.chain.writable.last
        state.slots[tag] = Slot(
            head: state.chain.head,
            status: GuestAddress((last?.address.rawValue ?? 0) &+ UInt64((last?.byteCount ?? 1) - 1)),
            writtenByteCount: UInt32(clamping: state.chain.writableByteCount))
    }

    private func reap(_ active: inout ActiveQueue, _ state: inout State) throws(QueueFault) {
        var fault: QueueFault?
        image.reap { completion in
            let tag = completion.tag
            guard state.slots.indices.contains(tag) else { return }
            if completion.errno == 0, !state.slots[tag].ranges.isEmpty {
                submitNextRange(tag, &state)
                return
            }
            do throws(QueueFault) {
                try finish(tag, errno: completion.errno, &active, &state)
            } catch {
                fault = error
            }
            state.free.append(tag)
            inFlight.wrappingSubtract(1, ordering: .acquiringAndReleasing)
        }
        image.commit()
        if let fault { throw fault }
    }

    private func finish(
        _ tag: Int, errno: CInt, _ active: inout ActiveQueue, _ state: inout State
    ) throws(QueueFault) {
        let slot = state.slots[tag]
        if errno != 0 {
            counters.countError()
        } else if slot.rangeOperation != .none {
            counters.countWrite(bytes: 0)
        } else if slot.byteCount == 0 {
            counters.countFlush()
        } else if slot.isRead {
            counters.countRead(bytes: slot.byteCount)
        } else {
            counters.countWrite(bytes: slot.byteCount)
        }
        let status: BlockStatus = errno == 0 ? .ok : errno == 95 ? .unsupported : .ioError  // EOPNOTSUPP
        // The range was checked when the chain was taken; RAM does not go away.
        try? active.ring.memory.store(status.rawValue, at: slot.status)
        try active.ring.push(head: slot.head, byteCount: slot.writtenByteCount)
    }

    private func answer(
        _ status: BlockStatus, _ active: inout ActiveQueue, _ chain: borrowing DescriptorChain, written: UInt32
    ) throws(QueueFault) {
        chain.store(status.rawValue, at: chain.writableByteCount - 1)
        try active.ring.push(head: chain.head, byteCount: written)
    }
}
