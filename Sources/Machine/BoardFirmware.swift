// The firmware's side of a PC board: its image below 4 GiB and its copy below 1 MiB, and what fw_cfg tells it.
import Chipset
import Firmware
import Glibc
import GuestMemory
import HostSystem
import MachineConfiguration
import MachineCore
import PCI
import VirtIO

/// A firmware image as the guest sees it.
final class FirmwareImage: Sendable {
    private enum Window { static let code = 0 }
    private static let codeLimit = 16 << 20
    /// Real-mode code of a BIOS: the end of its image.
    private static let shadowByteCount = 128 << 10

    private let code: HostPages
    private let variables: FlashDevice?

    /// Maps the code, and the variables below it, to end at 4 GiB. The code's descriptor stays its owner's.
    init(_ configuration: FirmwareConfiguration, machine: any VirtualMachine, addresses: MemoryBus) throws {
        let file = try ImageFile(descriptor: CInt(configuration.code), named: "firmware")
        guard file.byteCount >= 4096, file.byteCount % 4096 == 0, file.byteCount <= Self.codeLimit else {
            throw LoaderError("the firmware", "\(file.byteCount) bytes; an image has whole pages, up to 16 MiB")
        }
        code = try HostPages(byteCount: Int(file.byteCount))
        code.write(try file.bytes(at: 0, count: Int(file.byteCount)), at: 0)
        let base = MemoryMap.fourGiB - file.byteCount
        try machine.mapWindow(Window.code, code, at: GuestAddress(base), isReadOnly: true)
        variables = try configuration.variables.map {
            try FlashDevice(sharing: CInt($0), below: base, machine: machine, addresses: addresses)
        }
    }

    /// The copy in low memory, where real mode begins to work: fresh at each reset.
    func shadow(into memory: GuestMemory) throws {
        let tail = code.suffix(Self.shadowByteCount)
        try memory.write(tail, at: GuestAddress(MemoryMap.biosAreaEnd - UInt64(tail.count)))
    }

    func reset() { variables?.reset() }

    var savable: [any SavableDevice & Sendable] { variables.map { [$0] } ?? [] }
}

extension Board {
    /// What fw_cfg offers: sizes, memory map, ACPI and SMBIOS, the order of boot devices.
    static func firmwareItems(
        _ configuration: GuestConfiguration, memory: GuestMemory, lowMemoryEnd: UInt64, chipset: BoardChipset, bootOrder: [String],
        extras: BoardExtras
    ) throws -> FirmwareItems {
        typealias Key = FirmwareItems.Key
        var items = FirmwareItems()
        let topology = configuration.cpu.topology
        items.add(Key.uuid, .bytes((configuration.system.uuid ?? configuration.uuid).bytes))
        items.add(Key.memorySize, memory.byteCount)
        items.add(Key.noGraphic, UInt16(1))
        items.add(Key.processorCount, UInt16(topology.count))
        items.add(Key.processorLimit, UInt16(truncatingIfNeeded: (0..<topology.count).map(topology.apicID).max() ?? 0) + 1)
        items.add(Key.isaInterruptOverride, UInt32(1))
        items.add(Key.bootMenu, UInt16(0))
        items.addFile("etc/e820", .bytes(memoryMap(memory, lowMemoryEnd: lowMemoryEnd)))
        // The console of a BIOS that has no display: the serial port.
        items.addFile("etc/sercon-port", .bytes([0xF8, 0x03, 0, 0, 0, 0, 0, 0]))
        // S0 and S5 are there, S3 and S4 are not.
        items.addFile("etc/system-states", .bytes([0x80, 0, 0, 1, 2, 0x80]))
        items.addFile("bootorder", .bytes(bootOrder.flatMap { Array($0.utf8) + [0x0A] } + [0]))
        let structures = SMBIOSTables.build(
            SystemInformation(configuration), memoryByteCount: memory.byteCount, processors: topology.count, lowMemoryEnd: lowMemoryEnd)
        items.addFile("etc/smbios/smbios-tables", .bytes(structures))
        items.addFile("etc/smbios/smbios-anchor", .bytes(SMBIOSTables.entryPoint(structuresAt: 0, byteCount: structures.count)))
        if let generation = extras.generation {
            items.addFile(ACPITables.File.generation, .bytes(generation.identifier.page))
            items.addWritableFile(ACPITables.File.generationAddress, byteCount: 8, generation.setAddress)
        }
        let floppyCount = configuration.disks.count { $0.bus == .fdc }
        let highMemoryEnd = memory.byteCount > lowMemoryEnd ? memory.byteCount - lowMemoryEnd + MemoryMap.fourGiB : MemoryMap.fourGiB
        let proximity = configuration.proximityDomains(memory.regions)
        items.addFiles([ACPITables.File.tables, ACPITables.File.rsdp, ACPITables.File.loader]) {
            var description = ACPIDescription(
                apicIDs: (0..<topology.count).map(topology.apicID), hasSerialPort: true, highMemoryEnd: highMemoryEnd, hasKeyboardController: true)
            description.hasFirmwareConfiguration = true
            description.hasMouse = true
            description.floppyDriveCount = floppyCount
            description.proximity = proximity
            extras.describe(&description)
            chipset.describe(&description, lowMemoryEnd: min(memory.byteCount, lowMemoryEnd))
            return ACPITables.files(description)
        }
        if let kernel = configuration.kernel { try addKernel(CInt(kernel), configuration, to: &items) }
        return items
    }

    /// Code that firmware runs to boot from a network.
    static func optionROM(closing number: CInt, of network: NetworkConfiguration, for device: any VirtIODevice) throws -> OptionROM {
        defer { _ = close(number) }
        let file = try ImageFile(descriptor: number, named: "the option ROM of \(network.id)")
        let bytes = try file.bytes(at: 0, count: Int(min(file.byteCount, UInt64(OptionROM.byteCountLimit) + 1)))
        do throws(OptionROMError) {
            return try OptionROM(bytes, vendor: VirtIOPCIFunction.vendorID, device: VirtIOPCIFunction.deviceID(device.identity))
        } catch {
            throw LoaderError("the option ROM of \(network.id)", error.reason)
        }
    }

    /// e820 entries of 20 bytes: RAM, and what is no RAM although nothing else says so.
    private static func memoryMap(_ memory: GuestMemory, lowMemoryEnd: UInt64) -> [UInt8] {
        func entry(_ base: UInt64, _ byteCount: UInt64, _ kind: MemoryMap.Range.Kind) -> [UInt8] {
            [base, byteCount].flatMap { value in (0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } } + [UInt8(kind.rawValue), 0, 0, 0]
        }
        let low = min(memory.byteCount, lowMemoryEnd)
        var bytes = entry(0, low, .ram) + entry(MemoryMap.kvmReserved, MemoryMap.kvmReservedByteCount, .reserved)
        if memory.byteCount > low { bytes += entry(MemoryMap.fourGiB, memory.byteCount - low, .ram) }
        return bytes
    }

    /// A kernel that firmware starts itself, as its setup and its protected-mode part (Documentation/x86/boot.rst).
    private static func addKernel(_ descriptor: CInt, _ configuration: GuestConfiguration, to items: inout FirmwareItems) throws {
        typealias Key = FirmwareItems.Key
        let kernel = try ImageFile(descriptor: descriptor, named: "kernel")
        let header = try kernel.bytes(at: 0, count: 0x206)
        guard header.count == 0x206, Array(header[0x202..<0x206]) == Array("HdrS".utf8) else {
            throw LoaderError("the kernel", "no bzImage; firmware starts no other kind")
        }
        let setup = UInt64(header[0x1F1] == 0 ? 4 : header[0x1F1]) * 512 + 512
        guard setup < kernel.byteCount else { throw LoaderError("the kernel", "ends within its setup code") }
        items.add(Key.setupSize, UInt32(truncatingIfNeeded: setup))
        items.add(Key.setupData, .file(kernel, offset: 0, byteCount: setup))
        items.add(Key.kernelSize, UInt32(truncatingIfNeeded: kernel.byteCount - setup))
        items.add(Key.kernelData, .file(kernel, offset: setup, byteCount: kernel.byteCount - setup))
        let words = Array(configuration.commandLine.utf8) + [0]
        items.add(Key.commandLineSize, UInt32(words.count))
        items.add(Key.commandLineData, .bytes(words))
        guard let descriptor = configuration.initrd else { return }
        let initrd = try ImageFile(descriptor: CInt(descriptor), named: "initrd")
        items.add(Key.initrdSize, UInt32(truncatingIfNeeded: initrd.byteCount))
        items.add(Key.initrdData, .file(initrd, offset: 0, byteCount: initrd.byteCount))
    }
}
