// The virtio SCSI host (virtio 1.2 §5.6): up to 256 targets of one logical unit each, disks and CDs, behind a control queue, an event
// queue and any number of request queues.
//
//     let scsi = try VirtIOSCSI(targets: [0: SCSITarget(disk: image, identity: identity), 1: SCSITarget(optical: iso, identity: other)],
//                               memory: memory, queueCount: vcpus, loops: ioLoops)
//     let function = try VirtIOPCIFunction(scsi, name: "scsi@00:06.0", memory: memory, interrupts: machine, doorbells: machine)
package import GuestMemory
package import HostSystem
package import MachineCore
package import Storage
import Synchronization

package final class VirtIOSCSI: VirtIODevice {
    private static let controlQueueCount = 2

    package let counters = DeviceCounters()
    private let links: [SCSITargetLink]
    private let control: SCSIControlService
    private let services: [SCSIRequestService]
    private let loops: [EventLoop]
    private let configuration: Mutex<SCSIConfiguration>
    private let features = Mutex<VirtIOFeatures>([])

    /// - Parameters:
    ///   - targets: by number, as guests see them ("channel 0, id n, lun 0").
    ///   - queueCount: request queues, at least 1; one per vCPU is what guests use.
    ///   - loops: at least one; queues are spread over them.
    package init(
        targets: [UInt8: SCSITarget], memory: GuestMemory, queueCount: Int, loops: [EventLoop]
    ) throws(HostError) {
        precondition(queueCount > 0 && !loops.isEmpty, "a SCSI host has a request queue and a loop")
        self.loops = loops
        links = targets.keys.sorted().compactMap { number in
            targets[number].map { SCSITargetLink(number: number, target: $0) }
        }
        configuration = Mutex(SCSIConfiguration(requestQueueCount: queueCount, lastTarget: links.last?.number ?? 0))
        control = SCSIControlService(links)
        var services: [SCSIRequestService] = []
        for _ in 0..<queueCount { services.append(try SCSIRequestService(links, memory: memory, counters: counters)) }
        self.services = services
        for (index, service) in services.enumerated() {
            for (link, descriptor) in service.completionDescriptors.enumerated() {
                try loops[index % loops.count].add(descriptor, for: .readable) { [weak service, control] _ in
                    service?.complete(link)
                    control.requestsEnded()
                }
            }
        }
    }

    deinit {
        for (index, service) in services.enumerated() {
            for descriptor in service.completionDescriptors { loops[index % loops.count].remove(descriptor) }
        }
    }

    /// The image of a target was grown: the next command says so, and an event where the driver takes them.
    package func capacityChanged(target number: UInt8) {
        guard let link = links.first(where: { $0.number == number }), link.target.capacityChanged() else { return }
        if features.withLock({ $0.contains(.scsiChange) }) { control.capacityChanged(target: number) }
    }

    /// What a target did.
    package func counters(target number: UInt8) -> DeviceCounters? {
        links.first { $0.number == number }?.target.counters
    }

    // MARK: device

    package var identity: VirtIOIdentity { VirtIOIdentity(id: 8, classCode: 0x01_00_00) }
    package var queueSizes: [UInt16] {
        [64, 16] + Array(repeating: UInt16(SCSIRequestService.depth), count: services.count)
    }
    package func eventLoop(forQueue index: Int) -> EventLoop {
        loops[max(0, index - Self.controlQueueCount) % loops.count]
    }
    package var offeredFeatures: VirtIOFeatures { [.scsiChange] }

    package func readConfiguration(offset: Int, width: AccessWidth) -> UInt64 {
        readBlock(configuration.withLock { $0 }.bytes, offset: offset, width: width)
    }

    package func writeConfiguration(offset: Int, width: AccessWidth, value: UInt64) {
        configuration.withLock { $0.write(offset: offset, width: width, value: value) }
    }

    package func activate(_ session: VirtIOSession) throws(HostError) {
        features.withLock { $0 = session.features }
        let sizes = configuration.withLock { $0 }
        let queue = { (index: Int) in session.queues.indices.contains(index) ? session.queues[index] : nil }
        control.start(control: queue(0), events: queue(1))
        for (index, service) in services.enumerated() {
            service.start(
                queue(index + Self.controlQueueCount), senseByteCount: Int(sizes.senseByteCount),
                blockByteCount: Int(sizes.blockByteCount))
        }
    }

    package func service(queue index: Int) {
        switch index {
        case 0: control.serve()
        case 1: break  // event buffers stay in the ring until something happens
        default:
            if services.indices.contains(index - Self.controlQueueCount) {
                services[index - Self.controlQueueCount].serve()
            }
        }
    }

    package func stop() {
        control.stop()
        for service in services { service.stop() }
    }

    package var isIdle: Bool { services.allSatisfy(\.isIdle) && control.isIdle }
    package var positions: [RingPosition?] { control.positions + services.map(\.position) }

    package func reset() {
        control.reset()
        for service in services { service.reset() }
        for link in links { link.target.reset() }
        configuration.withLock { $0.reset() }
    }

    package func save(into writer: inout StateWriter) {
        let sizes = configuration.withLock { $0 }
        writer.write(sizes.senseByteCount)
        writer.write(sizes.blockByteCount)
        writer.write(UInt16(links.count))
        for link in links {
            writer.write(link.number)
            link.target.save(into: &writer)
        }
    }

    package func restore(from reader: inout StateReader) throws(DeviceStateError) {
        let sense = try reader.read(UInt32.self), block = try reader.read(UInt32.self)
        configuration.withLock { configuration in
            configuration.reset()
            configuration.write(offset: 20, width: .doubleWord, value: UInt64(sense))
            configuration.write(offset: 24, width: .doubleWord, value: UInt64(block))
        }
        let count = Int(try reader.read(UInt16.self))
        guard count == links.count else {
            throw DeviceStateError(section: reader.section, reason: "has \(count) SCSI targets for \(links.count)")
        }
        for link in links {
            let number = try reader.read(UInt8.self)
            guard number == link.number else {
                throw DeviceStateError(
                    section: reader.section, reason: "has SCSI target \(number) where there is \(link.number)")
            }
            try link.target.restore(from: &reader)
        }
    }
}
