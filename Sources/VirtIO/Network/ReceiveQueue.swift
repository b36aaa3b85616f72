// From the tap to the guest: one frame a read, into as many of the driver's buffers as it needs (virtio 1.2 §5.1.6.3).
//
// Buffers are taken off the ring before the frame is read, so that the kernel copies straight into them; what is left over
// waits for the next frame, and goes back to the ring when the queue stops. The tap is watched only while there are buffers.
import Glibc
import GuestMemory
import HostSystem
import MachineCore
import NetworkBackend
import Synchronization

@safe final class ReceiveQueue: @unchecked Sendable {
    // @unchecked: `vectors` is used with the lock held only.
    private struct State: Sendable {
        var active: ActiveQueue?
        var isRunning = false
        var isMergeable = false
        /// Room that must be there before a frame is read.
        var frameByteCount = 0
        var waiting: [DescriptorChain] = []
        var spare: [DescriptorChain] = []
        var waitingByteCount = 0
        var isWatched = false
    }
    private enum Outcome { case drained, starved, more }

    private static let budget = 128

    private let tap: TapQueue
    private let loop: EventLoop
    private let counters: DeviceCounters
    private let vectors: UnsafeMutableBufferPointer<iovec>
    private let state = Mutex(State())

    init(tap: TapQueue, loop: EventLoop, counters: DeviceCounters) {
        self.tap = tap
        self.loop = loop
        self.counters = counters
        unsafe vectors = .allocate(capacity: SplitQueue.maximumSegments)
    }

    deinit {
        // SAFETY: allocated in init; iovec is trivial.
        unsafe vectors.deallocate()
    }

    func start(_ queue: ActiveQueue?, features: VirtIOFeatures, mtu: UInt16) throws(HostError) {
        let takesLarge = !features.isDisjoint(with: [.netGuestTSO4, .netGuestTSO6])
        state.withLock { state in
            state.active = queue
            state.isRunning = queue != nil
            state.isMergeable = features.contains(.netMergeableBuffers)
            // Ethernet header and a VLAN tag; with segmentation left to the guest, the largest IP packet.
            state.frameByteCount = TapQueue.headerByteCount + (takesLarge ? 65535 + 18 : Int(mtu) + 18)
            state.isWatched = queue != nil
        }
        if queue != nil {
            try loop.add(tap.rawValue, for: .readable) { [weak self] _ in self?.receive() }
        }
    }

    func stop() {
        loop.remove(tap.rawValue)
        state.withLock { state in
            state.isRunning = false
            state.isWatched = false
            state.active?.ring.rewind(state.waiting.count)
            state.waiting.removeAll()
            state.waitingByteCount = 0
        }
    }

    func reset() {
        stop()
        state.withLock { $0.active = nil }
    }

    var position: RingPosition? { state.withLock { $0.active?.ring.position } }

    /// Frames may wait, or the driver gave buffers.
    func receive() {
        state.withLock { state in
            guard state.isRunning, var active = state.active else { return }
            do throws(QueueFault) {
                switch try receive(&active, &state) {
                case .drained: watch(true, &state)
                case .starved: watch(false, &state)
                case .more:
                    watch(true, &state)
                    active.link.signal()
                }
            } catch {
                state.isRunning = false
                watch(false, &state)
                active.link.events.guestFault(error)
            }
            state.active = active
        }
    }

    /// A level-triggered tap without buffers for its frames would keep the loop spinning.
    private func watch(_ isWatched: Bool, _ state: inout State) {
        guard state.isWatched != isWatched else { return }
        state.isWatched = isWatched
        // Fails only where `stop` has removed the tap already.
        try? loop.modify(tap.rawValue, for: isWatched ? .readable : [])
    }

    private func receive(_ active: inout ActiveQueue, _ state: inout State) throws(QueueFault) -> Outcome {
        var outcome = Outcome.more
        for _ in 0..<Self.budget {
            guard try collect(&active, &state) else {
                outcome = .starved
                break
            }
            var used = 0
            for chain in state.waiting {
                let room = unsafe UnsafeMutableBufferPointer(rebasing: vectors[used...])
                guard let count = unsafe chain.writableVectors(from: 0, count: chain.writableByteCount, into: room)
                else { break }
                used += count
                if !state.isMergeable { break }
            }
            // SAFETY: `used` vectors were filled above with checked guest memory.
            let transfer = unsafe tap.read(into: UnsafeMutableBufferPointer(rebasing: vectors[..<used]))
            guard case .bytes(let count) = transfer else {
                if case .failed = transfer { counters.countReadDrop() }
                outcome = .drained
                break
            }
            try deliver(count, &active, &state)
        }
        if try active.ring.publish() { active.link.interrupt() }
        return outcome
    }

    /// Takes buffers until a frame fits. False where the driver has not given enough; it will ring for more.
    private func collect(_ active: inout ActiveQueue, _ state: inout State) throws(QueueFault) -> Bool {
        while state.isMergeable ? state.waitingByteCount < state.frameByteCount : state.waiting.isEmpty {
            // The whole ring is in hand: a driver with small rings gets frames cut rather than none.
            if state.waiting.count >= Int(active.ring.size) { return true }
            var chain = state.spare.popLast() ?? DescriptorChain()
            if try active.ring.pop(into: &chain) {
                state.waitingByteCount += chain.writableByteCount
                state.waiting.append(chain)
            } else {
                state.spare.append(chain)
                if try !active.ring.allowNotifications() { return false }
            }
        }
        return true
    }

    /// Returns the buffers that `byteCount` bytes filled.
    private func deliver(
        _ byteCount: Int, _ active: inout ActiveQueue, _ state: inout State
    ) throws(QueueFault) {
        var rest = byteCount
        var filled = 0
        while filled < state.waiting.count, rest > 0 || filled == 0 {
            let part = min(rest, state.waiting[filled].writableByteCount)
            try active.ring.push(head: state.waiting[filled].head, byteCount: UInt32(clamping: part))
            rest -= part
            filled += 1
            if !state.isMergeable { break }
        }
        if rest > 0 { counters.countReadDrop() }
        // num_buffers; 1 where buffers are not merged (§5.1.6.4.1).
        state.waiting[0].write([UInt8(truncatingIfNeeded: filled), UInt8(truncatingIfNeeded: filled >> 8)], at: 10)
        for chain in state.waiting[..<filled] {
            state.waitingByteCount -= chain.writableByteCount
            state.spare.append(chain)
        }
        state.waiting.removeFirst(filled)
        counters.countRead(bytes: byteCount - TapQueue.headerByteCount)
    }
}
