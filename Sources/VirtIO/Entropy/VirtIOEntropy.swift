// The virtio entropy device (virtio 1.2 §5.4): one queue of buffers, filled from the host's generator.
//
// Usage: VirtIOEntropy(loop: ioLoop) into a VirtIOPCIFunction.
import Glibc
package import HostSystem
package import MachineCore

package final class VirtIOEntropy: VirtIODevice {
    /// Bytes given for one request: bounds the time on the loop; the driver asks again.
    private static let requestLimit = 1024

    package let counters = DeviceCounters()
    private let loop: EventLoop
    private let queue = SynchronousQueue()

    package init(loop: EventLoop) {
        self.loop = loop
    }

    package var identity: VirtIOIdentity { VirtIOIdentity(id: 4, classCode: 0x00_FF_00) }
    package var offeredFeatures: VirtIOFeatures { [] }
    package var queueSizes: [UInt16] { [64] }
    package func eventLoop(forQueue index: Int) -> EventLoop { loop }
    package func readConfiguration(offset: Int, width: AccessWidth) -> UInt64 { 0 }
    package func writeConfiguration(offset: Int, width: AccessWidth, value: UInt64) {}

    package func activate(_ session: VirtIOSession) throws(HostError) {
        queue.start(session.queues.first ?? nil)
    }

    package func service(queue index: Int) {
        queue.serve { chain in
            let count = min(chain.writableByteCount, Self.requestLimit)
            var bytes = [UInt8](repeating: 0, count: count)
            for start in stride(from: 0, to: count, by: 256) {
                // SAFETY: start + length <= count; getentropy (getrandom underneath) takes at most 256 bytes.
                let result = unsafe bytes.withUnsafeMutableBytes { buffer in
                    guard let base = buffer.baseAddress else { return CInt(-1) }
                    return unsafe getentropy(base + start, min(256, count - start))
                }
                guard result == 0 else {
                    counters.countError()
                    return 0
                }
            }
            counters.countRead(bytes: count)
            return UInt32(chain.write(bytes, at: 0))
        }
    }

    package func stop() { queue.stop() }
    package var isIdle: Bool { true }
    package var positions: [RingPosition?] { [queue.position] }
    package func reset() { queue.reset() }
    package func save(into writer: inout StateWriter) {}
    package func restore(from reader: inout StateReader) throws(DeviceStateError) {}
}
