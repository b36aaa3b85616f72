// A disk's image as the floppy controller reads it, and the controller on the board.
import Chipset
import DiskImage
import Firmware
import GuestMemory
import HostSystem
import MachineConfiguration
import MachineCore
import Storage
import Synchronization

/// One sector after the other, completed on the devices' loop.
final class FloppyDisk: FloppyImage {
    private static let sectorByteCount = 512
    private struct Transfer: Sendable {
        var work: DiskWork
        /// What to write.
        var bytes: [UInt8] = []
        var completion: @Sendable (_ bytes: [UInt8]?) -> Void
    }
    private struct State: Sendable {
        var transfers: TransferQueue
        var current: Transfer?
        /// The controller was reset while a sector was under way: the next command's first waits. There is never more than one.
        var next: Transfer?
    }
    let sectorCount: Int
    let isReadOnly: Bool
    let counters = DeviceCounters()
    private let state: Mutex<State>
    private let buffer = BounceBuffer(byteCount: sectorByteCount)
    private let completionDescriptor: CInt
    private let loop: EventLoop

    init(_ image: any BlockBackend, memory: GuestMemory, loop: EventLoop) throws(HostError) {
        sectorCount = Int(clamping: image.byteCount / UInt64(Self.sectorByteCount))
        isReadOnly = image.isReadOnly
        let transfers = try TransferQueue(backend: image, depth: 1, memory: memory, counters: counters)
        completionDescriptor = transfers.completionDescriptor
        state = Mutex(State(transfers: transfers))
        self.loop = loop
        try loop.add(completionDescriptor, for: .readable) { [weak self] _ in self?.reap() }
    }

    deinit { loop.remove(completionDescriptor) }

    var isIdle: Bool { state.withLock { $0.current == nil } }

    func read(sector: Int, completion: @escaping @Sendable ([UInt8]?) -> Void) {
        guard let offset = Self.offset(sector) else { return completion(nil) }
        begin(Transfer(work: .read(offset: offset, byteCount: Self.sectorByteCount), completion: completion))
    }

    func write(sector: Int, _ bytes: [UInt8], completion: @escaping @Sendable (Bool) -> Void) {
        guard let offset = Self.offset(sector), bytes.count == Self.sectorByteCount else { return completion(false) }
        let work = DiskWork.write(offset: offset, byteCount: Self.sectorByteCount, isDurable: false)
        begin(Transfer(work: work, bytes: bytes) { completion($0 != nil) })
    }

    private static func offset(_ sector: Int) -> UInt64? { UInt64(exactly: sector).map { $0 * UInt64(sectorByteCount) } }

    private func begin(_ transfer: Transfer) {
        let refused = state.withLock { state -> Transfer? in
            guard state.current == nil else {
                defer { state.next = transfer }
                return state.next
            }
            return start(transfer, &state)
        }
        refused?.completion(nil)
    }

    /// The transfer itself where the image refused it at once.
    private func start(_ transfer: Transfer, _ state: inout State) -> Transfer? {
        if !transfer.bytes.isEmpty { buffer.copyIn(transfer.bytes) }
        guard state.transfers.start(transfer.work, tag: 0, bounce: buffer) == 0 else { return transfer }
        state.current = transfer
        state.transfers.commit()
        return nil
    }

    private func reap() {
        let ended = state.withLock { state -> [(Transfer, [UInt8]?)] in
            var ended: [(Transfer, [UInt8]?)] = []
            var error: CInt?
            state.transfers.reap { _, _, errno in error = errno }
            guard let error, let current = state.current.take() else { return [] }
            ended.append((current, error == 0 ? buffer.bytes(count: Self.sectorByteCount) : nil))
            if let next = state.next.take(), let refused = start(next, &state) { ended.append((refused, nil)) }
            return ended
        }
        for (transfer, bytes) in ended { transfer.completion(bytes) }
    }
}

/// The floppy controller with what the board keeps of it.
struct BoardFloppies {
    let controller: FloppyController
    private let disks: [FloppyDisk]

    /// Disks as `BoardDisks` opened them, with the places that firmware knows them by.
    init(
        _ images: [(index: Int, image: any BlockBackend)], of disks: [DiskConfiguration], machine: any VirtualMachine, memory: GuestMemory,
        dma: DMAController, isa: String, loop: EventLoop, in slots: inout SlotPlan
    ) throws {
        var floppies: [FloppyDisk] = []
        for (drive, (index, image)) in images.enumerated() {
            let disk = try FloppyDisk(image, memory: memory, loop: loop)
            guard I82077.Geometry(sectorCount: disk.sectorCount) != nil else {
                throw LoaderError("disk \(disks[index].id)", "\(image.byteCount) bytes; a floppy disk has 720, 1200, 1440 or 2880 KiB")
            }
            floppies.append(disk)
            slots.note("/pci@i0cf8/isa@\(isa)/fdc@03f0/floppy@\(drive)", disks[index].bootIndex)
        }
        self.disks = floppies
        controller = FloppyController(line: GSILine(machine, gsi: 6), dma: dma, images: floppies)
    }

    var counters: [DeviceCounters] { disks.map(\.counters) }

    /// For CMOS byte 0x10: the type of drive A in the high four bits.
    var types: UInt8 {
        disks.enumerated().reduce(0) { types, entry in
            let type: UInt8 = [1440: 3, 2400: 2, 2880: 4, 5760: 5][entry.element.sectorCount] ?? 0
            return types | type << (entry.offset == 0 ? 4 : 0)
        }
    }

    func attach(to ports: inout PortBus) {
        // 0x3F6 is the disk controller's.
        ports.attach(controller, at: 0x3F0, count: 6)
        ports.attach(controller.digitalInput, at: 0x3F7, count: 1)
    }
}

extension FloppyController: Pausable {
    /// A command goes on to its end, at most a track of it: no vCPU gives it another.
    func pause() -> Bool { waitUntilIdle { !isExecuting } }
    func resume() {}
}
