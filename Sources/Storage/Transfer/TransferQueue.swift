// A controller's way to an image: numbered slots, each of which carries one piece of work to its end, however many requests of
// the image's that takes (more pieces than one request may have, more than one range to discard).
//
// A value under the controller's lock. The thread that rings calls `start` and `commit`; the event loop that watches
// `completionDescriptor` calls `reap`.
package import DiskImage
import Glibc
package import GuestMemory
package import HostSystem
package import MachineCore

package struct TransferQueue: Sendable {
    private struct Slot: Sendable {
        var list = ScatterList()
        var bounce: BounceBuffer?
        var work = DiskWork.flush
        /// Bytes transferred, or ranges carried out.
        var done = 0
        var inFlight = 0
        var isBusy = false
    }

    /// Pieces of one request: a sector in pieces of two bytes is 256, so that a cut to whole sectors always leaves some.
    private static let vectorLimit = 512

    private let queue: any BlockQueue
    private let backend: any BlockBackend
    private let memory: GuestMemory
    private var slots: [Slot]
    package private(set) var busyCount = 0
    private var ended: [(tag: Int, errno: CInt)] = []
    private let counters: DeviceCounters

    /// - Parameter depth: slots, and requests in flight at most.
    package init(backend: any BlockBackend, depth: Int, memory: GuestMemory, counters: DeviceCounters) throws(HostError)
    {
        queue = try backend.makeQueue(depth: depth, vectorLimit: Self.vectorLimit)
        self.backend = backend
        self.memory = memory
        self.counters = counters
        slots = Array(repeating: Slot(), count: depth)
    }

    package var completionDescriptor: CInt { queue.completionDescriptor }
    package func isBusy(_ tag: Int) -> Bool { slots.indices.contains(tag) && slots[tag].isBusy }

    /// Replaces the list of free slot `tag` by what `body` builds.
    package mutating func prepare<Result>(_ tag: Int, _ body: (inout ScatterList) -> Result) -> Result {
        slots[tag].list.removeAll()
        return body(&slots[tag].list)
    }
    package func list(_ tag: Int) -> ScatterList { slots[tag].list }

    /// Starts `work` in free slot `tag`; its data is in the list prepared, or in `bounce`. The list covers the work's length.
    /// Returns an errno at once where the image can not be asked; else the end comes through `reap`.
    package mutating func start(_ work: DiskWork, tag: Int, bounce: BounceBuffer? = nil) -> CInt {
        slots[tag].work = work
        slots[tag].bounce = bounce
        slots[tag].done = 0
        let error = submitNext(tag)
        if error != 0 {
            if error > 0 { counters.countError() }
            return error
        }
        slots[tag].isBusy = true
        busyCount += 1
        return 0
    }

    /// Nothing is left to be done: an empty list of ranges.
    package static let finished: CInt = -1

    /// Starts what was submitted.
    package func commit() { queue.commit() }

    /// Takes what has ended: the slot is free again when `body` is called, and may be started anew from it.
    package mutating func reap(_ body: (inout TransferQueue, _ tag: Int, _ errno: CInt) -> Void) {
        // Moved out and back, so that its storage serves again.
        var ended = self.ended
        self.ended = []
        defer {
            ended.removeAll(keepingCapacity: true)
            self.ended = ended
        }
        queue.reap { ended.append(($0.tag, $0.errno)) }
        for (tag, errno) in ended where slots.indices.contains(tag) && slots[tag].isBusy {
            slots[tag].done += slots[tag].inFlight
            var result = errno
            if errno == 0 {
                let next = submitNext(tag)
                if next == 0 { continue }
                result = next == Self.finished ? 0 : next
            }
            slots[tag].isBusy = false
            busyCount -= 1
            if result == 0 { counters.count(slots[tag].work) } else { counters.countError() }
            body(&self, tag, result)
        }
        queue.commit()
    }

    /// Submits the next request of slot `tag`: 0, `finished`, or an errno.
    private mutating func submitNext(_ tag: Int) -> CInt {
        let done = slots[tag].done
        switch slots[tag].work {
        case .read(let offset, let byteCount):
            return submitData(.read, offset, byteCount, tag)
        case .write(let offset, let byteCount, let isDurable):
            return submitData(.write(isDurable: isDurable), offset, byteCount, tag)
        case .flush:
            guard done == 0 else { return Self.finished }
            slots[tag].inFlight = 1
            queue.submit(BlockRequest(.flush, tag: tag), vectorCount: 0)
            return 0
        case .discard(let ranges):
            return submitRange(ranges, .discard, tag)
        case .writeZeroes(let ranges, let mayUnmap):
            return submitRange(ranges, .writeZeroes(mayUnmap: mayUnmap), tag)
        }
    }

    private mutating func submitRange(_ ranges: [ByteRange], _ operation: BlockRequest.Operation, _ tag: Int) -> CInt {
        var index = slots[tag].done
        while index < ranges.count, ranges[index].byteCount == 0 { index += 1 }
        guard index < ranges.count else { return Self.finished }
        slots[tag].inFlight = index - slots[tag].done + 1
        queue.submit(
            BlockRequest(operation, offset: ranges[index].offset, byteCount: ranges[index].byteCount, tag: tag),
            vectorCount: 0)
        return 0
    }

    private mutating func submitData(
        _ operation: BlockRequest.Operation, _ offset: UInt64, _ byteCount: Int, _ tag: Int
    ) -> CInt {
        let done = slots[tag].done
        guard done < byteCount else { return Self.finished }
        let (position, overflow) = offset.addingReportingOverflow(UInt64(done))
        // The image may have become smaller since the command was checked.
        guard !overflow, position <= backend.byteCount, UInt64(byteCount - done) <= backend.byteCount - position else {
            return EIO
        }
        let vectors = unsafe queue.vectors(for: tag)
        let vectorCount: Int, count: Int
        if let bounce = slots[tag].bounce {
            guard byteCount <= bounce.byteCount, done == 0, vectors.count > 0 else { return EINVAL }
            // SAFETY: a queue has at least one vector a slot, by the guard.
            unsafe vectors[0] = bounce.vector(count: byteCount)
            (vectorCount, count) = (1, byteCount)
        } else {
            guard let filled = unsafe slots[tag].list.fill(vectors, from: done, count: byteCount - done, memory: memory)
            else { return EFAULT }
            (vectorCount, count) = filled
        }
        slots[tag].inFlight = count
        queue.submit(
            BlockRequest(operation, offset: position, byteCount: UInt64(count), tag: tag), vectorCount: vectorCount)
        return 0
    }
}
