// The control and event queues of a virtio SCSI host (virtio 1.2 §5.6.6.2, §5.6.6.3).
//
// A host cannot take back what an image is doing: a function that ends tasks is answered when those in flight for its target have
// ended by themselves, which is what FUNCTION COMPLETE promises.
import GuestMemory
import MachineCore
import Storage
import Synchronization

final class SCSIControlService: Sendable {
    private struct Waiting: Sendable {
        var head: UInt16
        /// Of the response byte.
        var response: GuestAddress
        var link: SCSITargetLink
        var resets: Bool
    }
    private struct State: Sendable {
        var control: ActiveQueue?
        var events: ActiveQueue?
        var isRunning = false
        var chain = DescriptorChain()
        var waiting: [Waiting] = []
    }
    /// Types of control requests, and subtypes of task management.
    private enum Request {
        static let taskManagement: UInt32 = 0
        static let query: UInt32 = 1
        static let subscribe: UInt32 = 2
        static let abortTask: UInt32 = 0
        static let abortTaskSet: UInt32 = 1
        static let clearTaskSet: UInt32 = 3
        static let nexusReset: UInt32 = 4
        static let logicalUnitReset: UInt32 = 5
        static let queryTask: UInt32 = 6
        static let queryTaskSet: UInt32 = 7
    }

    private let links: [SCSITargetLink]
    private let state = Mutex(State())
    private let hasWaiting = Atomic<Bool>(false)

    init(_ links: [SCSITargetLink]) { self.links = links }

    var isIdle: Bool { state.withLock { $0.waiting.isEmpty } }
    var positions: [RingPosition?] { state.withLock { [$0.control?.ring.position, $0.events?.ring.position] } }

    func start(control: ActiveQueue?, events: ActiveQueue?) {
        state.withLock { state in
            state.control = control
            state.events = events
            state.isRunning = true
        }
    }

    func stop() { state.withLock { $0.isRunning = false } }

    func reset() {
        state.withLock { $0 = State() }
        hasWaiting.store(false, ordering: .sequentiallyConsistent)
    }

    /// The driver rang the control queue.
    func serve() {
        state.withLock { state in
            guard state.isRunning, var active = state.control else { return }
            do throws(QueueFault) {
                repeat {
                    try active.ring.suppressNotifications()
                    while try active.ring.pop(into: &state.chain) { try begin(&active, &state) }
                    try answerWaiting(&active, &state)
                    if try active.ring.publish() { active.link.interrupt() }
                } while try active.ring.allowNotifications()
            } catch {
                state.isRunning = false
                active.link.events.guestFault(error)
            }
            state.control = active
        }
    }

    /// Requests ended: functions that waited for them may be answered.
    func requestsEnded() {
        guard hasWaiting.load(ordering: .sequentiallyConsistent) else { return }
        state.withLock { state in
            guard var active = state.control else { return }
            do throws(QueueFault) {
                try answerWaiting(&active, &state)
                if try active.ring.publish() { active.link.interrupt() }
            } catch {
                state.isRunning = false
                active.link.events.guestFault(error)
            }
            state.control = active
        }
    }

    private func begin(_ active: inout ActiveQueue, _ state: inout State) throws(QueueFault) {
        let bytes = state.chain.readableBytes(from: 0, limit: 24)
        let word = { (offset: Int) -> UInt32 in
            (0..<4).reduce(0) {
                $0 | (bytes.indices.contains(offset + $1) ? UInt32(bytes[offset + $1]) << UInt32(8 * $1) : 0)
            }
        }
        let size = state.chain.writableByteCount
        switch word(0) {
        case Request.taskManagement where bytes.count >= 24 && size >= 1:
            try manage(word(4), SCSIAddress(bytes, at: 8), &active, &state)
        case Request.query where size >= 5, Request.subscribe where size >= 5:
            // No asynchronous notification is offered: event_actual is empty.
            state.chain.write([0, 0, 0, 0, SCSIResponse.ok], at: 0)
            try active.ring.push(head: state.chain.head, byteCount: 5)
        default: try active.ring.push(head: state.chain.head, byteCount: 0)
        }
    }

    private func manage(
        _ function: UInt32, _ address: SCSIAddress?, _ active: inout ActiveQueue, _ state: inout State
    ) throws(QueueFault) {
        guard let address, let link = links.first(where: { $0.number == address.target }) else {
            return try answer(SCSIResponse.badTarget, &active, state)
        }
        guard address.lun == 0 || function == Request.nexusReset else {
            return try answer(SCSIResponse.incorrectLUN, &active, state)
        }
        switch function {
        case Request.abortTask, Request.abortTaskSet, Request.clearTaskSet, Request.nexusReset,
            Request.logicalUnitReset:
            guard let first = state.chain.writable.first else {
                return try answer(SCSIResponse.functionRejected, &active, state)
            }
            state.waiting.append(
                Waiting(
                    head: state.chain.head, response: first.address, link: link,
                    resets: function == Request.nexusReset || function == Request.logicalUnitReset))
            hasWaiting.store(true, ordering: .sequentiallyConsistent)
        case Request.queryTask, Request.queryTaskSet:
            let isBusy = link.inFlight.load(ordering: .sequentiallyConsistent) > 0
            try answer(isBusy ? SCSIResponse.functionSucceeded : SCSIResponse.ok, &active, state)
        default: try answer(SCSIResponse.functionRejected, &active, state)
        }
    }

    private func answer(_ code: UInt8, _ active: inout ActiveQueue, _ state: borrowing State) throws(QueueFault) {
        state.chain.store(code, at: 0)
        try active.ring.push(head: state.chain.head, byteCount: 1)
    }

    private func answerWaiting(_ active: inout ActiveQueue, _ state: inout State) throws(QueueFault) {
        var index = 0
        while index < state.waiting.count {
            let waiting = state.waiting[index]
            guard waiting.link.inFlight.load(ordering: .sequentiallyConsistent) == 0 else {
                index += 1
                continue
            }
            state.waiting.remove(at: index)
            if waiting.resets { waiting.link.target.reset() }
            // The range was checked when the chain was taken; RAM does not go away.
            try? active.ring.memory.store(SCSIResponse.ok, at: waiting.response)
            try active.ring.push(head: waiting.head, byteCount: 1)
        }
        hasWaiting.store(!state.waiting.isEmpty, ordering: .sequentiallyConsistent)
    }

    /// Tells the driver that a unit's parameters changed (CAPACITY DATA HAS CHANGED), where it gave a buffer for it.
    func capacityChanged(target: UInt8) {
        state.withLock { state in
            guard state.isRunning, var active = state.events else { return }
            do throws(QueueFault) {
                if try active.ring.pop(into: &state.chain) {
                    let event = (0..<4).map { UInt8(truncatingIfNeeded: SCSIEvent.parameterChange >> UInt32(8 * $0)) }
                    // The reason is the additional sense code and its qualifier: 2Ah, 09h.
                    let count = state.chain.write(
                        event + SCSIAddress.bytes(target: target, lun: 0) + [0x2A, 0x09, 0, 0], at: 0)
                    try active.ring.push(head: state.chain.head, byteCount: UInt32(count))
                    if try active.ring.publish() { active.link.interrupt() }
                }
            } catch {
                state.isRunning = false
                active.link.events.guestFault(error)
            }
            state.events = active
        }
    }
}
