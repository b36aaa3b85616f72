// The contract between a transport and a device.
//
// Life: activate -> service* -> stop -> (isIdle) -> reset or activate again. The transport serialises activate, stop and
// reset; service runs on the queue's event loop and may overlap with stop, so a device locks what both touch.
package import GuestMemory
package import HostSystem
package import MachineCore

/// What a device is, for the transport's header.
package struct VirtIOIdentity: Sendable {
    /// Virtio device id (virtio 1.2 §5).
    package var id: UInt16
    /// PCI class code.
    package var classCode: UInt32

    package init(id: UInt16, classCode: UInt32) {
        self.id = id
        self.classCode = classCode
    }
}

/// What a driver set up, for the time between DRIVER_OK and stop.
package struct VirtIOSession: Sendable {
    package let memory: GuestMemory
    package let features: VirtIOFeatures
    /// By queue index; nil where the driver left the queue disabled.
    package let queues: [ActiveQueue?]
    package let events: VirtIOEvents
}

/// A queue that the driver enabled.
package struct ActiveQueue: Sendable {
    package var ring: SplitQueue
    package let link: QueueLink
}

/// A virtio device, apart from how the guest reaches it.
package protocol VirtIODevice: AnyObject, Sendable {
    var identity: VirtIOIdentity { get }
    /// The device's own features; the transport adds the ring's and VERSION_1.
    var offeredFeatures: VirtIOFeatures { get }
    /// Largest size of each queue, a power of two.
    var queueSizes: [UInt16] { get }
    /// The loop that serves a queue.
    func eventLoop(forQueue index: Int) -> EventLoop
    /// Reads device configuration; beyond its end, zero.
    func readConfiguration(offset: Int, width: AccessWidth) -> UInt64
    func writeConfiguration(offset: Int, width: AccessWidth, value: UInt64)
    /// The driver is ready. A host fault here leaves the device in NEEDS_RESET.
    func activate(_ session: VirtIOSession) throws(HostError)
    /// The driver rang, or may have: on the queue's loop, the doorbell taken.
    func service(queue index: Int)
    /// Whether the loop waits for this queue's doorbell, asked after `activate`. False: somebody else (vhost) does.
    func isServedHere(queue index: Int) -> Bool
    /// Takes no new chain from now on; requests in flight still finish through their rings. Returns at once.
    func stop()
    /// Whether nothing is in flight after `stop`.
    var isIdle: Bool { get }
    /// How far each queue came, once idle: in `queueSizes` order, nil where not enabled.
    var positions: [RingPosition?] { get }
    /// Back to power on. Only when idle.
    func reset()
    func save(into writer: inout StateWriter)
    func restore(from reader: inout StateReader) throws(DeviceStateError)
}

extension VirtIODevice {
    package func isServedHere(queue index: Int) -> Bool { true }
}

/// Reads a little-endian field out of a configuration block; beyond its end, zero.
func readBlock(_ bytes: [UInt8], offset: Int, width: AccessWidth) -> UInt64 {
    var value: UInt64 = 0
    for index in 0..<width.byteCount where offset >= 0 && offset + index < bytes.count {
        value |= UInt64(bytes[offset + index]) << UInt64(8 * index)
    }
    return value
}
