// A pair of queues that the kernel serves: VhostNet with this device's rings, memory and interrupts.
import GuestMemory
import HostSystem
import NetworkBackend
import Synchronization

final class KernelQueuePair: Sendable {
    /// What the kernel must know where the driver accepted it: merged buffers, indirect descriptors, event indices, version 1.
    private static let shared: UInt64 = 1 << 15 | 1 << 28 | 1 << 29 | 1 << 32

    private struct State: Sendable {
        /// Receive and transmit, while the kernel has them and after.
        var queues: [SplitQueue] = []
        var isRunning = false
        var positions: [RingPosition] = []
    }
    private let vhost: VhostNet
    private let tap: TapQueue
    private let state = Mutex(State())

    init(_ vhost: VhostNet, tap: TapQueue) {
        self.vhost = vhost
        self.tap = tap
    }

    /// Hands the queues to the kernel. False where it cannot serve this driver: without message interrupts, or with a feature
    /// that it does not know. Then this process does.
    func start(_ queues: [ActiveQueue?], features: VirtIOFeatures, memory: GuestMemory) throws(HostError) -> Bool {
        state.withLock { $0 = State() }
        let wanted = features.rawValue & Self.shared
        guard wanted & ~vhost.features == 0, queues.count == 2 else { return false }
        var rings: [VhostRing] = []
        for queue in queues {
            guard let queue, let call = queue.link.callDescriptor, let ring = Self.ring(queue, call: call, memory)
            else { return false }
            rings.append(ring)
        }
        let regions = memory.regions.map { region in
            // SAFETY: only the number is passed on; the mapping lives as long as `memory`, which the transport holds.
            VhostRegion(
                guestAddress: region.base.rawValue, byteCount: region.byteCount,
                hostAddress: unsafe UInt64(UInt(bitPattern: memory.hostAddress(of: region))))
        }
        try vhost.start(rings, features: wanted, regions: regions, tap: tap)
        state.withLock { state in
            state.queues = queues.compactMap { $0?.ring }
            state.isRunning = true
            state.positions = []
        }
        return true
    }

    private static func ring(_ queue: ActiveQueue, call: CInt, _ memory: GuestMemory) -> VhostRing? {
        let count = UInt64(queue.ring.size), addresses = queue.ring.addresses
        func host(_ address: GuestAddress, _ byteCount: UInt64) -> UInt64? {
            // SAFETY: a checked range, whose number alone is passed on.
            guard let range = try? unsafe memory.hostRange(at: address, byteCount: byteCount) else { return nil }
            return unsafe UInt64(UInt(bitPattern: range.start))
        }
        guard let descriptors = host(addresses.descriptorTable, 16 * count),
            let available = host(addresses.availableRing, 6 + 2 * count),
            let used = host(addresses.usedRing, 6 + 8 * count)
        else { return nil }
        return VhostRing(
            size: queue.ring.size, position: queue.ring.position.nextAvailable, descriptorTable: descriptors,
            availableRing: available,
            usedRing: used, kick: queue.link.kickDescriptor, call: call)
    }

    /// Takes the queues back, with nothing in flight.
    func stop() {
        state.withLock { state in
            guard state.isRunning else { return }
            state.isRunning = false
            let available = vhost.stop()
            state.positions = zip(state.queues, available).map { queue, next in
                // The kernel has published all it used: the index in the ring is its own.
                let used = GuestAddress(queue.addresses.usedRing.rawValue &+ 2)
                return RingPosition(nextAvailable: next, nextUsed: (try? queue.memory.loadAcquire(at: used)) ?? next)
            }
        }
    }

    var isRunning: Bool { state.withLock { $0.isRunning } }

    /// Where the queues stood when they were taken back; nil where the kernel did not have them.
    var positions: [RingPosition]? { state.withLock { $0.positions.isEmpty ? nil : $0.positions } }

    func reset() {
        stop()
        state.withLock { $0 = State() }
    }
}
