// The virtio block device (virtio 1.2 §5.2): several queues, flush, discard, write zeroes, serial number.
//
// Usage: VirtIOBlock(backend: image, serial: "volume id", queueCount: vcpus, loops: ioLoops) into a VirtIOPCIFunction.
package import DiskImage
package import HostSystem
package import MachineCore
import Synchronization

package final class VirtIOBlock: VirtIODevice {
    private static let queueDepth = 256

    package let counters = DeviceCounters()
    private let backend: any BlockBackend
    private let services: [BlockQueueService]
    private let loops: [EventLoop]
    private let configuration: Mutex<BlockConfiguration>
    private let events = Mutex<VirtIOEvents?>(nil)

    /// - Parameters:
    ///   - serial: what the guest reads as the disk's serial number; its first 20 bytes count.
    ///   - queueCount: at least 1; one per vCPU is what guests use.
    ///   - loops: at least one; queues are spread over them.
    package init(
        backend: any BlockBackend, serial: String, queueCount: Int, loops: [EventLoop]
    ) throws(HostError) {
        precondition(queueCount > 0 && !loops.isEmpty, "a block device has a queue and a loop")
        self.backend = backend
        self.loops = loops
        let configuration = BlockConfiguration(backend, queueCount: queueCount)
        self.configuration = Mutex(configuration)
        var serialBytes = Array(serial.utf8.prefix(20))
        serialBytes += [UInt8](repeating: 0, count: 20 - serialBytes.count)
        var services: [BlockQueueService] = []
        for _ in 0..<queueCount {
            let image = try backend.makeQueue(
                depth: Self.queueDepth, vectorLimit: BlockConfiguration.segmentMaximum + 2)
            services.append(
                BlockQueueService(
                    image: image, depth: Self.queueDepth, serial: serialBytes, isReadOnly: backend.isReadOnly,
                    counters: counters, sectorCount: { backend.byteCount / 512 }))
        }
        self.services = services
        for (index, service) in services.enumerated() {
            try loops[index % loops.count].add(service.completionDescriptor, for: .readable) { [weak service] _ in
                service?.complete()
            }
        }
    }

    deinit {
        for (index, service) in services.enumerated() {
            loops[index % loops.count].remove(service.completionDescriptor)
        }
    }

    /// The image was grown: shows the new capacity to the driver.
    package func capacityChanged() {
        configuration.withLock { [backend] in $0.sectorCount = backend.byteCount / 512 }
        events.withLock { $0 }?.configurationChanged()
    }

    // MARK: device

    package var identity: VirtIOIdentity { VirtIOIdentity(id: 2, classCode: 0x01_00_00) }
    package var queueSizes: [UInt16] { Array(repeating: UInt16(Self.queueDepth), count: services.count) }
    package func eventLoop(forQueue index: Int) -> EventLoop { loops[index % loops.count] }

    package var offeredFeatures: VirtIOFeatures {
        var features: VirtIOFeatures = [
            .blockSegmentMaximum, .blockGeometry, .blockSize, .blockFlush, .blockTopology,
        ]
        if services.count > 1 { features.insert(.blockMultiQueue) }
        if backend.isReadOnly {
            features.insert(.blockReadOnly)
        } else {
            features.formUnion([.blockDiscard, .blockWriteZeroes])
        }
        return features
    }

    package func readConfiguration(offset: Int, width: AccessWidth) -> UInt64 {
        readBlock(configuration.withLock { $0 }.bytes, offset: offset, width: width)
    }

    /// Nothing is writable: CONFIG_WCE is not offered.
    package func writeConfiguration(offset: Int, width: AccessWidth, value: UInt64) {}

    package func activate(_ session: VirtIOSession) throws(HostError) {
        events.withLock { $0 = session.events }
        for (service, queue) in zip(services, session.queues) { service.start(queue, features: session.features) }
    }

    package func service(queue index: Int) {
        if services.indices.contains(index) { services[index].serve() }
    }

    package func stop() {
        for service in services { service.stop() }
    }

    package var isIdle: Bool { services.allSatisfy(\.isIdle) }
    package var positions: [RingPosition?] { services.map(\.position) }

    package func reset() {
        for service in services { service.reset() }
    }

    /// Everything but queue positions, which the transport keeps, follows from the image. The capacity is written so that
    /// a guest is not continued on a disk that shrank.
    package func save(into writer: inout StateWriter) {
        writer.write(configuration.withLock { $0.sectorCount })
    }

    package func restore(from reader: inout StateReader) throws(DeviceStateError) {
        let saved = try reader.read(UInt64.self)
        let present = configuration.withLock { $0.sectorCount }
        guard saved <= present else {
            throw DeviceStateError(
                section: reader.section, reason: "the disk had \(saved) sectors and has \(present) now")
        }
    }
}
