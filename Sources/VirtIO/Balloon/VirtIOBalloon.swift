// The virtio memory balloon (virtio 1.2 §5.5): pages the guest gives up go back to the host by punching holes in the memory
// file. Queues: inflate, deflate, statistics.
//
// Usage: VirtIOBalloon(loop: ioLoop) into a VirtIOPCIFunction; setTarget(pages:), actualPages, requestStatistics().
import Glibc
import GuestMemory
package import HostSystem
package import MachineCore
import Synchronization

package final class VirtIOBalloon: VirtIODevice {
    private struct State: Sendable {
        var targetPages: UInt32 = 0
        var actualPages: UInt32 = 0
        var memory: GuestMemory?
        var events: VirtIOEvents?
        var statistics: BalloonStatistics?
        /// The statistics queue; its buffer stays with us until new numbers are wanted.
        var statisticsQueue: ActiveQueue?
        var heldHead: UInt16?
        var isRunning = false
        var chain = DescriptorChain()
    }

    private static let pageByteCount: UInt64 = 4096
    /// Page numbers looked at in one request: Linux sends 256.
    private static let pageLimit = 1024

    package let counters = DeviceCounters()
    private let loop: EventLoop
    private let inflate = SynchronousQueue()
    private let deflate = SynchronousQueue()
    private let state = Mutex(State())

    package init(loop: EventLoop) {
        self.loop = loop
    }

    /// Asks the guest to give up `pages` pages of 4 KiB in all.
    package func setTarget(pages: UInt32) {
        state.withLock { state in
            state.targetPages = pages
            return state.events
        }?.configurationChanged()
    }

    /// Pages of 4 KiB the driver says it gave up.
    package var actualPages: UInt32 { state.withLock { $0.actualPages } }
    package var targetPages: UInt32 { state.withLock { $0.targetPages } }
    /// What the driver last said.
    package var statistics: BalloonStatistics? { state.withLock { $0.statistics } }

    /// Asks for new statistics: they come later, or never.
    package func requestStatistics() {
        state.withLock { state in
            guard state.isRunning, var active = state.statisticsQueue, let head = state.heldHead else { return }
            state.heldHead = nil
            do throws(QueueFault) {
                try active.ring.push(head: head, byteCount: 0)
                if try active.ring.publish() { active.link.interrupt() }
            } catch {
                active.link.events.guestFault(error)
            }
            state.statisticsQueue = active
        }
    }

    // MARK: device

    package var identity: VirtIOIdentity { VirtIOIdentity(id: 5, classCode: 0x00_FF_00) }
    /// Statistics, and deflate on out-of-memory.
    package var offeredFeatures: VirtIOFeatures { [.device(1), .device(2)] }
    package var queueSizes: [UInt16] { [128, 128, 16] }
    package func eventLoop(forQueue index: Int) -> EventLoop { loop }

    package func readConfiguration(offset: Int, width: AccessWidth) -> UInt64 {
        var writer = StateWriter()
        state.withLock { state in
            writer.write(state.targetPages)
            writer.write(state.actualPages)
        }
        return readBlock(writer.bytes, offset: offset, width: width)
    }

    package func writeConfiguration(offset: Int, width: AccessWidth, value: UInt64) {
        guard offset == 4, width == .doubleWord else { return }
        state.withLock { $0.actualPages = UInt32(truncatingIfNeeded: value) }
    }

    package func activate(_ session: VirtIOSession) throws(HostError) {
        inflate.start(session.queues[0])
        deflate.start(session.queues[1])
        state.withLock { state in
            state.memory = session.memory
            state.events = session.events
            state.statisticsQueue = session.queues[2]
            state.heldHead = nil
            state.isRunning = true
        }
    }

    package func service(queue index: Int) {
        switch index {
        case 0:
            guard let memory = state.withLock({ $0.memory }) else { return }
            inflate.serve { chain in
                giveUp(chain.readableBytes(from: 0, limit: 4 * Self.pageLimit), memory)
                return 0
            }
        // Pages come back by being touched.
        case 1: deflate.serve { _ in 0 }
        case 2: takeStatistics()
        default: break
        }
    }

    /// Frees the pages named in `bytes`, neighbours together.
    private func giveUp(_ bytes: [UInt8], _ memory: GuestMemory) {
        var runStart: UInt64 = 0
        var runCount: UInt64 = 0
        for offset in stride(from: 0, to: bytes.count - 3, by: 4) {
            let page = readBlock(bytes, offset: offset, width: .doubleWord)
            if runCount > 0, page == runStart + runCount {
                runCount += 1
            } else if runCount > 0, page &+ 1 == runStart {
                runStart = page
                runCount += 1
            } else {
                punch(runStart, runCount, memory)
                runStart = page
                runCount = 1
            }
        }
        punch(runStart, runCount, memory)
    }

    private func punch(_ page: UInt64, _ count: UInt64, _ memory: GuestMemory) {
        guard count > 0 else { return }
        let base = page * Self.pageByteCount
        let length = count * Self.pageByteCount
        // What is no RAM is the guest's own loss.
        let isGivenUp = (try? memory.giveUp(at: GuestAddress(base), byteCount: length)) ?? false
        if isGivenUp { counters.countWrite(bytes: Int(length)) } else { counters.countError() }
    }

    private func takeStatistics() {
        state.withLock { state in
            guard state.isRunning, var active = state.statisticsQueue else { return }
            do throws(QueueFault) {
                while try active.ring.pop(into: &state.chain) {
                    state.statistics = BalloonStatistics(state.chain.readableBytes(from: 0, limit: 400))
                    // A driver has one buffer; one that offers more gets the older back.
                    if let held = state.heldHead { try active.ring.push(head: held, byteCount: 0) }
                    state.heldHead = state.chain.head
                }
                _ = try active.ring.publish()
                if try active.ring.allowNotifications() { active.link.signal() }
            } catch {
                state.isRunning = false
                active.link.events.guestFault(error)
            }
            state.statisticsQueue = active
        }
    }

    package func stop() {
        inflate.stop()
        deflate.stop()
        state.withLock { state in
            state.isRunning = false
            // The held buffer is taken again when the queue goes on.
            if state.heldHead != nil { state.statisticsQueue?.ring.rewind(1) }
            state.heldHead = nil
        }
    }

    package var isIdle: Bool { true }
    package var positions: [RingPosition?] {
        [inflate.position, deflate.position, state.withLock { $0.statisticsQueue?.ring.position }]
    }

    package func reset() {
        inflate.reset()
        deflate.reset()
        state.withLock { state in
            state.statisticsQueue = nil
            state.statistics = nil
            state.actualPages = 0
        }
    }

    package func save(into writer: inout StateWriter) {
        state.withLock { state in
            writer.write(state.targetPages)
            writer.write(state.actualPages)
        }
    }

    package func restore(from reader: inout StateReader) throws(DeviceStateError) {
        let target = try reader.read(UInt32.self)
        let actual = try reader.read(UInt32.self)
        state.withLock { state in
            state.targetPages = target
            state.actualPages = actual
        }
    }
}
