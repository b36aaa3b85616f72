// The disks of a board: each image opened in the format it is said to have, on the controller that its bus names, with the path by
// which firmware finds it. Controllers exist only where a disk asks for one.
import Chipset
import DiskImage
import Firmware
import GuestMemory
import HostSystem
import MachineConfiguration
import MachineCore
import PCI
import Storage
import VirtIO

/// A controller that works apart from any vCPU.
protocol Pausable: Sendable {
    /// False where requests were still in flight at the deadline.
    func pause() -> Bool
    func resume()
    var stateName: String { get }
}
extension AHCIController: Pausable {}
extension IDEController: Pausable {}
extension NVMeController: Pausable {}
extension VirtIOPCIFunction: Pausable {}

/// Puts devices into slots of bus 0, with the slot's interrupt.
struct SlotWiring: Sendable {
    let machine: any VirtualMachine
    let memory: GuestMemory
    let bus: PCIBus
    let chipset: BoardChipset
    /// By number, with their slots.
    var ports: [(bridge: PCIBridge, slot: UInt8)] = []

    /// A port's one device has the pins of its port (PCI-to-PCI Bridge Architecture 1.2 §9.1).
    func line(of seat: SlotPlan.Seat) -> (any InterruptLine)? { chipset.line(device: seat.port.map { ports[$0].slot } ?? seat.slot) }
    func bus(of seat: SlotPlan.Seat) -> PCIBus { seat.port.map { ports[$0].bridge.secondary } ?? bus }

    func attach(_ device: any VirtIODevice, _ name: String, _ seat: SlotPlan.Seat, rom: OptionROM? = nil) throws -> VirtIOPCIFunction {
        let line = line(of: seat).map { (interrupt: $0, number: UInt8(0)) }
        let function = try VirtIOPCIFunction(device, name: name, memory: memory, interrupts: machine, doorbells: machine, line: line, rom: rom, isExpress: seat.port != nil)
        try bus(of: seat).attach(function, at: PCIAddress(device: seat.slot))
        return function
    }
}

/// Attaches disks to a board that is being made.
struct BoardDisks {
    private static let sataAddress = PCIAddress(device: 0x1F, function: 2), ideAddress = PCIAddress(device: 1, function: 1)
    private static let nvmeQueueLimit = 16, virtioQueueLimit = 4

    private let wiring: SlotWiring
    private let loop: EventLoop
    private let processorCount: Int
    /// By place in the configuration.
    private(set) var counters: [DeviceCounters] = []
    private(set) var images: [any BlockingImage] = []
    private(set) var pausable: [any Pausable] = []
    private(set) var savable: [any SavableDevice & Sendable] = []
    private var floppyImages: [(index: Int, image: any BlockBackend)] = []
    private(set) var floppies: BoardFloppies?
    /// Ports of IDE's two channels.
    private(set) var ports: [(device: any BusDevice, first: UInt16, count: UInt16)] = []

    init(_ wiring: SlotWiring, loop: EventLoop, processorCount: Int) {
        self.wiring = wiring
        self.loop = loop
        self.processorCount = processorCount
    }

    /// Takes over the descriptors.
    mutating func attach(_ disks: [DiskConfiguration], in slots: inout SlotPlan) throws {
        counters = disks.map { _ in DeviceCounters() }
        var sata: [(index: Int, drive: AttachedDrive)] = [], ide: [(index: Int, drive: AttachedDrive)] = [], scsi: [(index: Int, target: SCSITarget)] = []
        for (index, disk) in disks.enumerated() {
            let opened = try Self.open(disk)
            images.append(opened)
            // What the guest's requests go to: the image itself, or the buckets before it.
            let image: any BlockBackend = disk.limits.isEmpty ? opened : LimitedBackend(opened, limits: BlockLimits(disk.limits))
            let identity = DriveIdentity(model: disk.isOptical ? "APUS DVD-ROM" : "APUS HARDDISK", serial: disk.serial ?? disk.id)
            switch disk.bus {
            case .virtio: try attachVirtIO(image, disk, index, in: &slots)
            case .nvme: try attachNVMe(image, identity, disk, index, in: &slots)
            case .sata: sata.append((index, disk.isOptical ? .optical(image, identity) : .disk(image, identity)))
            case .ide: ide.append((index, disk.isOptical ? .optical(image, identity) : .disk(image, identity)))
            case .fdc: floppyImages.append((index, image))
            case .scsi: scsi.append((index, disk.isOptical ? SCSITarget(optical: image, identity: identity) : SCSITarget(disk: image, identity: identity)))
            }
        }
        if !sata.isEmpty { try attachSATA(sata, disks, in: &slots) }
        if !ide.isEmpty { try attachIDE(ide, disks, in: &slots) }
        if !scsi.isEmpty { try attachSCSI(scsi, disks, in: &slots) }
    }

    /// After `attach`, on a board with DMA controllers.
    mutating func attachFloppies(_ disks: [DiskConfiguration], dma: DMAController, in slots: inout SlotPlan) throws {
        guard !floppyImages.isEmpty else { return }
        let floppies = try BoardFloppies(
            floppyImages, of: disks, machine: wiring.machine, memory: wiring.memory, dma: dma, isa: wiring.chipset.isaPath, loop: loop, in: &slots)
        for ((index, _), count) in zip(floppyImages, floppies.counters) { counters[index] = count }
        pausable.append(floppies.controller)
        savable.append(floppies.controller)
        self.floppies = floppies
    }

    /// The chain of images, the lowest first.
    private static func open(_ disk: DiskConfiguration) throws -> any BlockingImage {
        var image: (any BlockingImage)?
        for layer in disk.backing.reversed() {
            let format = try Self.format(layer.format, of: disk)
            image = try format.open(owning: OwnedDescriptor(owning: CInt(layer.fd)), named: disk.id + " (backing)", isReadOnly: true, backing: image)
        }
        let format = try Self.format(disk.format, of: disk)
        return try format.open(owning: OwnedDescriptor(owning: CInt(disk.fd)), named: disk.id, isReadOnly: disk.readOnly || disk.isOptical, backing: image)
    }

    private static func format(_ name: String, of disk: DiskConfiguration) throws -> ImageFormat {
        guard let format = ImageFormat(rawValue: name) else { throw LoaderError("disk \(disk.id)", "\(name) is no format of an image") }
        return format
    }

    private mutating func attachVirtIO(_ image: any BlockBackend, _ disk: DiskConfiguration, _ index: Int, in slots: inout SlotPlan) throws {
        let device = try VirtIOBlock(
            backend: image, serial: disk.serial ?? disk.id, queueCount: min(processorCount, Self.virtioQueueLimit), loops: [loop])
        try attach(device, "virtio-blk-\(index)", slots.take((.virtioDisk, disk.bootIndex), port: disk.port))
        counters[index] = device.counters
    }

    private mutating func attach(_ device: any VirtIODevice, _ name: String, _ seat: SlotPlan.Seat) throws {
        let function = try wiring.attach(device, name, seat)
        pausable.append(function)
        savable.append(function)
    }

    private mutating func attachNVMe(
        _ image: any BlockBackend, _ identity: DriveIdentity, _ disk: DiskConfiguration, _ index: Int, in slots: inout SlotPlan
    ) throws {
        let seat = slots.take((.below("/pci1b36,10@*/namespace@1,0"), disk.bootIndex), port: disk.port)
        let queueCount = min(processorCount, Self.nvmeQueueLimit)
        let endpoint = try NVMeController.makeEndpoint(
            name: "nvme-\(index)", queueCount: queueCount, line: wiring.line(of: seat), message: wiring.machine)
        let controller = try NVMeController(endpoint, memory: wiring.memory, image: image, identity: identity, queueCount: queueCount, loop: loop)
        try wiring.bus(of: seat).attach(endpoint, at: PCIAddress(device: seat.slot))
        counters[index] = controller.counters
        pausable.append(controller)
        savable += [endpoint, controller]
    }

    private mutating func attachSATA(_ drives: [(index: Int, drive: AttachedDrive)], _ disks: [DiskConfiguration], in slots: inout SlotPlan) throws {
        let address: PCIAddress
        // Q35 has its controller built in.
        if case .q35 = wiring.chipset { address = Self.sataAddress } else { address = PCIAddress(device: slots.take()) }
        let endpoint = try AHCIController.makeEndpoint(name: "ahci", line: wiring.chipset.line(device: address.device), message: wiring.machine)
        let controller = try AHCIController(
            endpoint, memory: wiring.memory, drives: Dictionary(uniqueKeysWithValues: drives.enumerated().map { ($0.offset, $0.element.drive) }), loop: loop)
        try wiring.bus.attach(endpoint, at: address)
        let device = String(address.device, radix: 16), place = address.function == 0 ? device : "\(device),\(address.function)"
        for (port, (index, _)) in drives.enumerated() {
            slots.note("/pci@i0cf8/pci8086,2922@\(place)/drive@\(port)/disk@0", disks[index].bootIndex)
            if let counts = controller.counters(port: port) { counters[index] = counts }
        }
        pausable.append(controller)
        savable += [endpoint, controller]
    }

    private mutating func attachIDE(_ drives: [(index: Int, drive: AttachedDrive)], _ disks: [DiskConfiguration], in slots: inout SlotPlan) throws {
        let endpoint = try IDEController.makeEndpoint(name: "ide")
        var plan: [[AttachedDrive?]] = [[nil, nil], [nil, nil]]
        for (place, (_, drive)) in drives.enumerated() where place < 4 { plan[place / 2][place % 2] = drive }
        let controller = try IDEController(
            endpoint, memory: wiring.memory, drives: plan, lines: (GSILine(wiring.machine, gsi: 14), GSILine(wiring.machine, gsi: 15)), loop: loop)
        try wiring.bus.attach(endpoint, at: Self.ideAddress)
        for (place, (index, _)) in drives.enumerated() where place < 4 {
            slots.note("/pci@i0cf8/ide@1,1/drive@\(place / 2)/disk@\(place % 2)", disks[index].bootIndex)
            if let counts = controller.counters(channel: place / 2, drive: place % 2) { counters[index] = counts }
        }
        ports = [
            (controller.commandBlock(0), 0x1F0, 8), (controller.controlBlock(0), 0x3F6, 1), (controller.commandBlock(1), 0x170, 8),
            (controller.controlBlock(1), 0x376, 1),
        ]
        pausable.append(controller)
        savable += [endpoint, controller]
    }

    private mutating func attachSCSI(_ targets: [(index: Int, target: SCSITarget)], _ disks: [DiskConfiguration], in slots: inout SlotPlan) throws {
        let host = try VirtIOSCSI(
            targets: Dictionary(uniqueKeysWithValues: targets.enumerated().map { (UInt8(truncatingIfNeeded: $0.offset), $0.element.target) }),
            memory: wiring.memory, queueCount: min(processorCount, Self.virtioQueueLimit), loops: [loop])
        let slot = slots.take(), device = String(slot, radix: 16)
        try attach(host, "virtio-scsi", SlotPlan.Seat(slot: slot))
        for (number, (index, target)) in targets.enumerated() {
            slots.note("/pci@i0cf8/scsi@\(device)/channel@0/disk@\(number),0", disks[index].bootIndex)
            counters[index] = target.counters
        }
    }
}

extension BlockLimits {
    init(_ limits: DiskLimits) {
        func limit(_ kind: DiskLimits.Kind) -> Limit? {
            limits.limits[kind].map { Limit(perSecond: $0.perSecond, burst: $0.burst) }
        }
        self.init()
        totalBytes = limit(.totalBytes)
        readBytes = limit(.readBytes)
        writeBytes = limit(.writeBytes)
        totalOperations = limit(.totalOperations)
        readOperations = limit(.readOperations)
        writeOperations = limit(.writeOperations)
    }
}
