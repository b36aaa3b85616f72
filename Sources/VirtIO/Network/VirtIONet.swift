// The virtio network device (virtio 1.2 §5.1): pairs of receive and transmit queues on a tap, and a control queue.
//
// Usage: VirtIONet(taps: [TapQueue], mac: six bytes, mtu: 1500, loops: ioLoops) into a VirtIOPCIFunction; one tap queue a pair.
// With a VhostNet the kernel serves the one pair, where it can serve the driver; else it is served here.
package import HostSystem
package import MachineCore
package import NetworkBackend
import Synchronization

package final class VirtIONet: VirtIODevice {
    private struct State: Sendable {
        var configuration: NetworkConfiguration
        var features: VirtIOFeatures = []
        var events: VirtIOEvents?
    }

    package let counters = DeviceCounters()
    private let taps: [TapQueue]
    private let loops: [EventLoop]
    private let receivers: [ReceiveQueue]
    private let transmitters: [TransmitQueue]
    private let control = SynchronousQueue()
    private let kernelPair: KernelQueuePair?
    private let state: Mutex<State>

    /// - Parameters:
    ///   - taps: one per queue pair, all of one tap; more than one needs IFF_MULTI_QUEUE.
    ///   - loops: at least one; pairs are spread over them.
    ///   - vhost: for a device with one pair; with more it is not used.
    package init(taps: [TapQueue], mac: [UInt8], mtu: UInt16, loops: [EventLoop], vhost: VhostNet? = nil) throws(HostError) {
        guard mac.count == 6, !taps.isEmpty, !loops.isEmpty, taps.count == 1 || taps.allSatisfy(\.isMultiQueue) else {
            throw HostError(
                "make network device on", subject: "\(taps.count) tap queues", errno: 22,
                remedy: "give six bytes of MAC address and IFF_MULTI_QUEUE taps where there are several")
        }
        self.taps = taps
        self.loops = loops
        kernelPair = if let vhost, taps.count == 1 { KernelQueuePair(vhost, tap: taps[0]) } else { nil }
        var receivers: [ReceiveQueue] = []
        var transmitters: [TransmitQueue] = []
        for (index, tap) in taps.enumerated() {
            receivers.append(ReceiveQueue(tap: tap, loop: loops[index % loops.count], counters: counters))
            transmitters.append(TransmitQueue(tap: tap, counters: counters))
        }
        self.receivers = receivers
        self.transmitters = transmitters
        state = Mutex(
            State(configuration: NetworkConfiguration(mac: mac, pairCount: UInt16(clamping: taps.count), mtu: mtu)))
    }

    /// Pulls or plugs the cable, as the guest sees it.
    package func setLink(isUp: Bool) {
        state.withLock { state in
            state.configuration.isLinkUp = isUp
            return state.events
        }?.configurationChanged()
    }

    // MARK: device

    package var identity: VirtIOIdentity { VirtIOIdentity(id: 1, classCode: 0x02_00_00) }
    package var queueSizes: [UInt16] { Array(repeating: 256, count: 2 * taps.count) + [64] }
    package func eventLoop(forQueue index: Int) -> EventLoop { loops[(index / 2) % loops.count] }

    package var offeredFeatures: VirtIOFeatures {
        var features: VirtIOFeatures = [
            .netChecksum, .netGuestChecksum, .netGuestOffloads, .netMTU, .netMAC, .netGuestTSO4, .netGuestTSO6,
            .netHostTSO4, .netHostTSO6, .netMergeableBuffers, .netStatus, .netControlQueue, .netControlReceive,
            .netControlMAC,
        ]
        if taps.count > 1 { features.insert(.netMultiQueue) }
        return features
    }

    package func readConfiguration(offset: Int, width: AccessWidth) -> UInt64 {
        readBlock(state.withLock { $0.configuration.bytes }, offset: offset, width: width)
    }

    package func writeConfiguration(offset: Int, width: AccessWidth, value: UInt64) {}

    /// The control queue follows the pairs, and a driver without MQ knows one pair (§5.1.2).
    private func controlIndex(_ features: VirtIOFeatures) -> Int {
        features.contains(.netMultiQueue) ? 2 * taps.count : 2
    }

    package func activate(_ session: VirtIOSession) throws(HostError) {
        let configuration = state.withLock { state in
            state.features = session.features
            state.events = session.events
            return state.configuration
        }
        try taps.first?.setOffloads((configuration.offloads ?? session.features).tapOffloads)
        try attach(pairs: Int(configuration.activePairs))
        let controlIndex = controlIndex(session.features)
        if let kernelPair, try kernelPair.start(Array(session.queues.prefix(2)), features: session.features, memory: session.memory) {
            return control.start(session.queues[controlIndex])
        }
        for (pair, receiver) in receivers.enumerated() {
            let isControl = 2 * pair == controlIndex
            try receiver.start(
                isControl ? nil : session.queues[2 * pair], features: session.features, mtu: configuration.mtu)
            transmitters[pair].queue.start(isControl ? nil : session.queues[2 * pair + 1])
        }
        control.start(session.queues[controlIndex])
    }

    /// Frames are spread over attached queues only: one nobody serves must not be among them.
    private func attach(pairs: Int) throws(HostError) {
        for (index, tap) in taps.enumerated() { try tap.setAttached(index < pairs) }
    }

    package func service(queue index: Int) {
        if index == controlIndex(state.withLock { $0.features }) {
            serveControl()
        } else if receivers.indices.contains(index / 2) {
            index & 1 == 0 ? receivers[index / 2].receive() : transmitters[index / 2].transmit()
        }
    }

    /// The kernel's queues have their doorbells there; a loop that watched them too would wake for each.
    package func isServedHere(queue index: Int) -> Bool { index > 1 || kernelPair?.isRunning != true }

    /// Whether the kernel moves the frames.
    package var usesKernel: Bool { kernelPair?.isRunning == true }

    private func serveControl() {
        control.serve { chain in
            let bytes = chain.readableBytes(from: 0, limit: 64)
            let (effect, features) = state.withLock { state in
                (state.configuration.command(bytes, features: state.features), state.features)
            }
            let isDone = apply(effect, features)
            chain.store(isDone ? 0 : 1, at: 0)
            return 1
        }
    }

    private func apply(_ effect: NetworkConfiguration.Effect, _ features: VirtIOFeatures) -> Bool {
        do throws(HostError) {
            switch effect {
            case .refused: return false
            case .done: break
            case .activePairs(let pairs): try attach(pairs: pairs)
            case .offloads(let wanted): try taps.first?.setOffloads(wanted.tapOffloads)
            }
            return true
        } catch {
            counters.countError()
            return false
        }
    }

    package func stop() {
        kernelPair?.stop()
        for receiver in receivers { receiver.stop() }
        for transmitter in transmitters { transmitter.queue.stop() }
        control.stop()
    }

    package var isIdle: Bool { true }

    package var positions: [RingPosition?] {
        var all: [RingPosition?] = []
        for (receiver, transmitter) in zip(receivers, transmitters) {
            all.append(receiver.position)
            all.append(transmitter.queue.position)
        }
        if let positions = kernelPair?.positions { all = positions }
        all.append(nil)
        let index = controlIndex(state.withLock { $0.features })
        if all.indices.contains(index) { all[index] = control.position }
        return all
    }

    package func reset() {
        kernelPair?.reset()
        for receiver in receivers { receiver.reset() }
        for transmitter in transmitters { transmitter.queue.reset() }
        control.reset()
        state.withLock { state in
            state.configuration.activePairs = 1
            state.configuration.offloads = nil
        }
    }

    package func save(into writer: inout StateWriter) {
        let configuration = state.withLock { $0.configuration }
        writer.write(configuration.mac)
        writer.write(configuration.isLinkUp)
        writer.write(configuration.activePairs)
        writer.write(configuration.offloads != nil)
        writer.write(configuration.offloads?.rawValue ?? 0)
    }

    package func restore(from reader: inout StateReader) throws(DeviceStateError) {
        let mac = try reader.readBytes(limit: 6)
        let isLinkUp = try reader.readBool()
        let pairs = try reader.read(UInt16.self)
        let hasOffloads = try reader.readBool()
        let offloads = VirtIOFeatures(rawValue: try reader.read())
        guard mac.count == 6, pairs >= 1, Int(pairs) <= taps.count else {
            throw DeviceStateError(section: reader.section, reason: "uses \(pairs) queue pairs of \(taps.count)")
        }
        state.withLock { state in
            state.configuration.mac = mac
            state.configuration.isLinkUp = isLinkUp
            state.configuration.activePairs = pairs
            state.configuration.offloads = hasOffloads ? offloads : nil
        }
    }
}
