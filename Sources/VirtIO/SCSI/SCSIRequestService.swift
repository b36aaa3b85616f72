// One request queue of a virtio SCSI host (virtio 1.2 §5.6.6.1): chains in, commands to their target, work to the target's image,
// responses back.
//
// The queue's event loop calls `serve` when the driver rings and `complete` when an image finished. A command's decision is made
// under the target's lock; its I/O runs in slots of this queue's own.
import DiskImage
import GuestMemory
import HostSystem
import MachineCore
import Storage
import Synchronization

/// A target on this host, and what is in flight for it through any queue.
final class SCSITargetLink: Sendable {
    let number: UInt8
    let target: SCSITarget
    let inFlight = Atomic<Int>(0)

    init(number: UInt8, target: SCSITarget) {
        self.number = number
        self.target = target
    }
}

final class SCSIRequestService: Sendable {
    private struct Slot: Sendable {
        var head: UInt16 = 0
        var link = 0
        var work = DiskWork.flush
        /// Where the response goes.
        var response = ScatterList()
        /// Bytes that the driver reads when it succeeds, and those of its data that were not needed.
        var dataInByteCount = 0
        var residual = 0
    }
    private struct State: Sendable {
        var active: ActiveQueue?
        var isRunning = false
        var chain = DescriptorChain()
        var slots: [Slot]
        var free: [Int]
        /// By target.
        var transfers: [TransferQueue]
        var senseByteCount = 0
        var blockByteCount = 0
    }

    static let depth = 256
    private static let budget = 256
    /// Header before the command block: address, id, task attribute, priority, CRN.
    private static let headerByteCount = 19
    private static let responseByteCount = 12

    private let links: [SCSITargetLink]
    private let counters: DeviceCounters
    private let state: Mutex<State>
    private let inFlight = Atomic<Int>(0)
    let completionDescriptors: [CInt]

    init(_ links: [SCSITargetLink], memory: GuestMemory, counters: DeviceCounters) throws(HostError) {
        self.links = links
        self.counters = counters
        var transfers: [TransferQueue] = []
        for link in links {
            transfers.append(
                try TransferQueue(
                    backend: link.target.backend, depth: Self.depth, memory: memory, counters: link.target.counters))
        }
        completionDescriptors = transfers.map(\.completionDescriptor)
        state = Mutex(
            State(
                slots: Array(repeating: Slot(), count: Self.depth), free: Array((0..<Self.depth).reversed()),
                transfers: transfers))
    }

    var isIdle: Bool { inFlight.load(ordering: .acquiring) == 0 }
    var position: RingPosition? { state.withLock { $0.active?.ring.position } }

    func start(_ queue: ActiveQueue?, senseByteCount: Int, blockByteCount: Int) {
        state.withLock { state in
            state.active = queue
            state.isRunning = queue != nil
            state.senseByteCount = senseByteCount
            state.blockByteCount = blockByteCount
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

    /// The image of target `link` finished requests.
    func complete(_ link: Int) {
        state.withLock { state in
            guard state.transfers.indices.contains(link) else { return }
            var ended: [(Int, CInt)] = []
            state.transfers[link].reap { _, tag, errno in ended.append((tag, errno)) }
            var active = state.active
            for (tag, errno) in ended { finish(tag, errno: errno, &active, &state) }
            guard var running = active else { return }
            do throws(QueueFault) {
                if try running.ring.publish() { running.link.interrupt() }
                if state.isRunning { try take(&running, &state) }
            } catch {
                state.isRunning = false
                running.link.events.guestFault(error)
            }
            state.active = running
        }
    }

    private func take(_ active: inout ActiveQueue, _ state: inout State) throws(QueueFault) {
        var taken = 0
        // However the loop ends, what was submitted starts.
        defer { for index in state.transfers.indices { state.transfers[index].commit() } }
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

    // MARK: a command

    private func begin(_ tag: Int, _ active: inout ActiveQueue, _ state: inout State) throws(QueueFault) {
        let header = Self.headerByteCount + state.blockByteCount, answer = Self.responseByteCount + state.senseByteCount
        guard state.chain.readableByteCount >= header, state.chain.writableByteCount >= answer else {
            // No room for an answer: the buffer goes back empty, as from hardware that cannot decode it.
            counters.countError()
            return try active.ring.push(head: state.chain.head, byteCount: 0)
        }
        let bytes = state.chain.readableBytes(from: 0, limit: header)
        let room = state.chain.writableByteCount - answer, given = state.chain.readableByteCount - header
        guard let address = SCSIAddress(bytes, at: 0),
            let index = links.firstIndex(where: { $0.number == address.target })
        else {
            return try respond(SCSIResponse.badTarget, residual: room + given, &active, state)
        }
        let target = links[index].target, block = CommandBlock(Array(bytes[Self.headerByteCount...]))
        let wanted = target.parameterByteCount(of: block, lun: address.lun)
        guard wanted <= given else { return try respond(SCSIResponse.overrun, residual: room + given, &active, state) }
        let parameters = wanted > 0 ? state.chain.readableBytes(from: header, limit: wanted) : []
        switch target.perform(block, lun: address.lun, parameters: parameters) {
        case .good: try respond(SCSIResponse.ok, residual: room + given - wanted, &active, state)
        case .failed(let sense):
            if address.lun == 0 { target.clearSense() }
            try respond(SCSIResponse.ok, sense: sense, residual: room + given, &active, state)
        case .data(let data):
            let count = state.chain.write(Array(data.prefix(room)), at: answer)
            try respond(SCSIResponse.ok, residual: room + given - count, dataIn: count, &active, state)
        case .work(let work):
            try start(work, tag, index, header: header, answer: answer, parameters: wanted, &active, &state)
        }
    }

    private func start(
        _ work: DiskWork, _ tag: Int, _ index: Int, header: Int, answer: Int, parameters: Int,
        _ active: inout ActiveQueue, _ state: inout State
    ) throws(QueueFault) {
        let room = state.chain.writableByteCount - answer, given = state.chain.readableByteCount - header
        let memory = active.ring.memory
        var dataIn = 0, used = parameters, isCovered = true
        switch work {
        case .read(_, let byteCount):
            (dataIn, used) = (byteCount, byteCount)
            isCovered = byteCount <= room
            if isCovered {
                isCovered = collect(state.chain.writable, skip: answer, byteCount, index, tag, &state, memory)
            }
        case .write(_, let byteCount, _):
            used = byteCount
            isCovered = byteCount <= given
            if isCovered {
                isCovered = collect(state.chain.readable, skip: header, byteCount, index, tag, &state, memory)
            }
        case .flush, .discard, .writeZeroes: break
        }
        guard isCovered else { return try respond(SCSIResponse.overrun, residual: room + given, &active, state) }
        let errno = state.transfers[index].start(work, tag: tag)
        guard errno == 0 else {
            let sense = errno == TransferQueue.finished ? nil : links[index].target.end(of: work, errno: errno)
            return try respond(
                SCSIResponse.ok, sense: sense, residual: room + given - (sense == nil ? used : 0), &active, state)
        }
        state.free.removeLast()
        inFlight.wrappingAdd(1, ordering: .acquiringAndReleasing)
        links[index].inFlight.wrappingAdd(1, ordering: .sequentiallyConsistent)
        state.slots[tag].head = state.chain.head
        state.slots[tag].link = index
        state.slots[tag].work = work
        state.slots[tag].dataInByteCount = dataIn
        state.slots[tag].residual = room + given - used
        state.slots[tag].response.removeAll()
        var rest = answer
        for segment in state.chain.writable where rest > 0 {
            let piece = min(rest, segment.byteCount)
            _ = state.slots[tag].response.append(segment.address, piece, memory: memory)
            rest -= piece
        }
    }

    /// Puts `count` bytes of `segments` after `skip` into the transfer's list. False where they are not all RAM.
    private func collect(
        _ segments: ArraySlice<DescriptorChain.Segment>, skip: Int, _ count: Int, _ index: Int, _ tag: Int,
        _ state: inout State,
        _ memory: GuestMemory
    ) -> Bool {
        state.transfers[index].prepare(tag) { list in
            var skip = skip
            for segment in segments where list.byteCount < count {
                if skip >= segment.byteCount {
                    skip -= segment.byteCount
                    continue
                }
                let piece = min(segment.byteCount - skip, count - list.byteCount)
                guard let address = segment.address.advanced(by: UInt64(skip)),
                    list.append(address, piece, memory: memory)
                else { return false }
                skip = 0
            }
            return list.byteCount == count
        }
    }

    // MARK: its end

    private func response(_ code: UInt8, _ sense: SenseData?, residual: Int, senseByteCount: Int) -> [UInt8] {
        let senseBytes = Array((sense?.bytes ?? []).prefix(senseByteCount))
        var bytes: [UInt8] = []
        for number in [UInt32(senseBytes.count), UInt32(clamping: residual)] {
            for index in 0..<4 { bytes.append(UInt8(truncatingIfNeeded: number >> UInt32(8 * index))) }
        }
        // Status qualifier, status (02h: CHECK CONDITION), response.
        return bytes + [0, 0, sense != nil ? 0x02 : 0x00, code] + senseBytes
    }

    /// Ends the chain at hand.
    private func respond(
        _ code: UInt8, sense: SenseData? = nil, residual: Int, dataIn: Int = 0, _ active: inout ActiveQueue,
        _ state: borrowing State
    ) throws(QueueFault) {
        if code != SCSIResponse.ok || sense != nil { counters.countError() }
        let bytes = response(code, sense, residual: residual, senseByteCount: state.senseByteCount)
        state.chain.write(bytes, at: 0)
        let written = dataIn > 0 ? Self.responseByteCount + state.senseByteCount + dataIn : bytes.count
        try active.ring.push(head: state.chain.head, byteCount: UInt32(clamping: written))
    }

    private func finish(_ tag: Int, errno: CInt, _ active: inout ActiveQueue?, _ state: inout State) {
        let slot = state.slots[tag], link = links[slot.link]
        let sense = link.target.end(of: slot.work, errno: errno)
        state.free.append(tag)
        count(slot.work, hasFailed: sense != nil)
        if var running = active {
            let residual = sense == nil ? slot.residual : slot.residual + slot.dataInByteCount
            let bytes = response(SCSIResponse.ok, sense, residual: residual, senseByteCount: state.senseByteCount)
            slot.response.write(bytes, memory: running.ring.memory)
            let dataIn = sense == nil ? slot.dataInByteCount : 0
            let written = dataIn > 0 ? Self.responseByteCount + state.senseByteCount + dataIn : bytes.count
            do throws(QueueFault) {
                try running.ring.push(head: slot.head, byteCount: UInt32(clamping: written))
            } catch {
                state.isRunning = false
                running.link.events.guestFault(error)
            }
            active = running
        }
        link.inFlight.wrappingSubtract(1, ordering: .sequentiallyConsistent)
        inFlight.wrappingSubtract(1, ordering: .acquiringAndReleasing)
    }

    private func count(_ work: DiskWork, hasFailed: Bool) {
        if hasFailed { return counters.countError() }
        switch work {
        case .read(_, let byteCount): counters.countRead(bytes: byteCount)
        case .write(_, let byteCount, _): counters.countWrite(bytes: byteCount)
        case .flush: counters.countFlush()
        case .discard, .writeZeroes: counters.countWrite(bytes: 0)
        }
    }
}
