// From the guest to the tap: each chain is one frame with its header, written as it lies (virtio 1.2 §5.1.6.2).
import Glibc
import MachineCore
import NetworkBackend

@safe final class TransmitQueue: @unchecked Sendable {
    // @unchecked: `vectors` is used within `queue.serve`, under that queue's lock.
    private let tap: TapQueue
    private let counters: DeviceCounters
    private let vectors: UnsafeMutableBufferPointer<iovec>
    let queue = SynchronousQueue()

    init(tap: TapQueue, counters: DeviceCounters) {
        self.tap = tap
        self.counters = counters
        unsafe vectors = .allocate(capacity: SplitQueue.maximumSegments)
    }

    deinit {
        // SAFETY: allocated in init; iovec is trivial.
        unsafe vectors.deallocate()
    }

    func transmit() {
        queue.serve { chain in
            send(chain)
            return 0
        }
    }

    private func send(_ chain: borrowing DescriptorChain) {
        let count = chain.readableByteCount
        guard count > TapQueue.headerByteCount,
            let used = unsafe chain.readableVectors(from: 0, count: count, into: vectors)
        else {
            counters.countError()
            return
        }
        // SAFETY: `used` vectors were filled above with checked guest memory. The kernel checks the header itself.
        switch unsafe tap.write(from: UnsafeMutableBufferPointer(rebasing: vectors[..<used])) {
        case .bytes: counters.countWrite(bytes: count - TapQueue.headerByteCount)
        // A full or downed interface loses frames, as a cable does.
        case .wouldBlock: counters.countWriteDrop()
        case .failed(let reason): reason == EIO ? counters.countWriteDrop() : counters.countError()
        }
    }
}
