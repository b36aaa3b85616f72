// The wiring: which device sits at which port or address, on which interrupt. Made once; reset in place.
package import Chipset
import DiskImage
import Firmware
package import GuestMemory
package import HostSystem
package import MachineConfiguration
package import MachineCore
import NetworkBackend
import PCI
import VirtIO

/// Everything of a machine but its processors' threads.
package final class Board: Sendable {
    package let memory: GuestMemory
    package let serial: SerialPort
    package let powerManagement: PowerManagement
    let clock: CMOSClock
    let time: BoardClock
    let keyboard: KeyboardController
    /// The 8237 pair of a PC board.
    private let dma: DMAController?
    private let floppies: BoardFloppies?
    /// What the description names besides disks and networks.
    let extras: BoardExtras
    private let resetPorts: [ResetPort]
    private let commandPort: SMICommandPort?
    let ports: PortBus
    let addresses: MemoryBus
    let bus: PCIBus
    let chipset: BoardChipset
    private let rootPorts: [PCIBridge]
    /// Nil on a board that starts a kernel itself.
    let firmware: FirmwareImage?
    private let firmwarePorts: FirmwarePorts?
    /// What disks did, in the order of the configuration.
    let diskCounters: [DeviceCounters]
    let pausable: [any Pausable]
    /// What firmware and guest write to their debug ports.
    private let logs: [ConsoleOutput]
    /// By disk; what they keep in memory goes to their files at the end.
    private let images: [any BlockingImage]
    /// In the order of the configuration.
    let networks: [VirtIONet]
    let balloon: VirtIOBalloon?
    private let configurationPorts: PCIConfigurationPorts
    /// In the order their state is saved.
    package let savable: [any SavableDevice & Sendable]

    /// Where RAM below 4 GiB ends on the board that is to be made.
    static func lowMemoryEnd(_ configuration: GuestConfiguration) -> UInt64 {
        configuration.type == .direct
            ? MemoryMap.lowMemoryEnd
            : MemoryMap.pcLowMemoryEnd(memoryByteCount: UInt64(configuration.memoryMiB) << 20, hasECAM: configuration.type == .q35)
    }

    /// Takes over the descriptors of disks and networks.
    package init(
        _ configuration: GuestConfiguration, machine: any VirtualMachine, memory: GuestMemory, output: any SerialOutput, requests power: GuestRequests,
        loop: EventLoop
    ) throws {
        self.memory = memory
        let time = BoardClock()
        self.time = time
        serial = SerialPort(name: "uart@3f8", line: GSILine(machine, gsi: 4), output: output)
        powerManagement = PowerManagement(clock: time, sci: GSILine(machine, gsi: 9), power: power)
        let isPC = configuration.type != .direct
        keyboard = KeyboardController(
            power: power, line: GSILine(machine, gsi: 1), auxiliaryLine: GSILine(machine, gsi: 12), hasKeyboardAndMouse: isPC)
        dma = isPC ? DMAController(memory: ISAMemory(memory)) : nil
        // Locals, because the function below may not capture an object that is not whole yet.
        let bus = PCIBus(), addresses = MemoryBus()
        (self.bus, self.addresses) = (bus, addresses)
        var portBus = PortBus()
        let space = BoardAddressSpace(addresses, portBus.movable)
        let chipset = try BoardChipset(configuration.type, machine: machine, bus: bus, power: powerManagement, space: space)
        self.chipset = chipset
        var extras = try BoardExtras(
            configuration, machine: machine, memory: memory, chipset: chipset, power: powerManagement, clock: time, loop: loop)
        clock = CMOSClock(clock: time, line: extras.clockLine, timer: try time.makeTimer(on: loop))
        configurationPorts = PCIConfigurationPorts(bus)

        var slots = SlotPlan(first: chipset.firstSlot)
        let placed = try Self.rootPorts(configuration, chipset, bus, in: &slots)
        rootPorts = placed.map(\.bridge)
        let wiring = SlotWiring(machine: machine, memory: memory, bus: bus, chipset: chipset, ports: placed)
        var functions: [VirtIOPCIFunction] = []
        func add(_ device: any VirtIODevice, _ name: String, _ seat: SlotPlan.Seat? = nil, rom: OptionROM? = nil) throws {
            functions.append(try wiring.attach(device, name, seat ?? SlotPlan.Seat(slot: slots.take()), rom: rom))
        }
        var disks = BoardDisks(wiring, loop: loop, processorCount: configuration.cpu.count)
        try disks.attach(configuration.disks, in: &slots)
        if let dma { try disks.attachFloppies(configuration.disks, dma: dma, in: &slots) }
        floppies = disks.floppies
        var networks: [VirtIONet] = []
        for (index, network) in configuration.networks.enumerated() {
            var taps: [TapQueue] = []
            for number in network.fds { taps.append(try TapQueue(owning: OwnedDescriptor(owning: CInt(number)), named: network.id)) }
            let vhost = try network.vhostFd.map { try VhostNet(owning: OwnedDescriptor(owning: CInt($0)), named: network.id) }
            let device = try VirtIONet(
                taps: taps, mac: network.mac.bytes, mtu: UInt16(clamping: network.mtu), loops: [loop], vhost: vhost)
            let rom = try network.rom.map { try Self.optionROM(closing: CInt($0), of: network, for: device) }
            try add(device, "virtio-net-\(index)", slots.take((.network, network.bootIndex), port: network.port), rom: rom)
            networks.append(device)
        }
        if configuration.rng { try add(VirtIOEntropy(loop: loop), "virtio-rng") }
        let balloon = configuration.balloon ? VirtIOBalloon(loop: loop) : nil
        if let balloon { try add(balloon, "virtio-balloon") }
        try extras.attachWatchdog(wiring, clock: time, loop: loop, requests: power, in: &slots)
        self.extras = extras
        (diskCounters, self.networks, self.balloon) = (disks.counters, networks, balloon)
        pausable = disks.pausable + functions
        images = disks.images

        bus.connect(to: space)
        if configuration.type == .direct {
            addresses.attach(PCIExpressWindow(bus), at: GuestAddress(MemoryMap.ecamBase), byteCount: MemoryMap.ecamByteCount)
            try bus.placeBARs()
        }
        portBus.attach(serial, at: 0x3F8, count: 8)
        // 0xCF9 lies within the configuration ports' range and is asked first.
        resetPorts = [ResetPort(.resetControl, power: power), ResetPort(.systemControl, power: power)]
        portBus.attach(resetPorts[0], at: 0xCF9, count: 1)
        portBus.attach(configurationPorts, at: 0xCF8, count: 8)
        chipset.attach(to: &portBus, power: powerManagement)
        portBus.attach(clock, at: 0x70, count: 2)
        portBus.attach(resetPorts[1], at: 0x92, count: 1)
        commandPort = chipset.makeCommandPort(powerManagement)
        if let commandPort { portBus.attach(commandPort, at: 0xB2, count: 2) }
        portBus.attach(keyboard, at: 0x60, count: 5)
        floppies?.attach(to: &portBus)
        var logs = try extras.attach(to: &portBus, addresses: addresses, requests: power, loop: loop)
        for (device, first, count) in disks.ports { portBus.attach(device, at: first, count: count) }
        if let description = configuration.firmware {
            let lowMemoryEnd = Self.lowMemoryEnd(configuration)
            firmware = try FirmwareImage(description, machine: machine, addresses: addresses)
            let items = try Self.firmwareItems(
                configuration, memory: memory, lowMemoryEnd: lowMemoryEnd, chipset: chipset, bootOrder: slots.bootOrder, extras: extras)
            let firmwarePorts = FirmwarePorts(items, memory: memory)
            portBus.attach(firmwarePorts, at: FirmwarePorts.base, count: FirmwarePorts.count)
            self.firmwarePorts = firmwarePorts
            if let log = description.log {
                let sink = try ConsoleOutput(owning: OwnedDescriptor(owning: CInt(log)), on: loop)
                portBus.attach(DebugConsole(output: sink), at: 0x402, count: 1)
                logs.append(sink)
            }
            for window in dma?.ports ?? [] { portBus.attach(window.device, at: window.first, count: window.count) }
            clock.setMemory(Self.batteryMemory(configuration, lowMemoryEnd: lowMemoryEnd, floppyTypes: floppies?.types ?? 0))
        } else {
            (firmware, firmwarePorts) = (nil, nil)
        }
        ports = portBus
        self.logs = logs
        var savable: [any SavableDevice & Sendable] = [time, serial, powerManagement, clock, keyboard]
        savable += chipset.savable + [configurationPorts]
        for port in resetPorts { savable.append(port) }
        if let commandPort { savable.append(commandPort) }
        savable += rootPorts.map(\.endpoint)
        if let firmwarePorts { savable.append(firmwarePorts) }
        if let dma { savable.append(dma) }
        self.savable = savable + (firmware?.savable ?? []) + disks.savable + functions + extras.savable
    }

    /// As many PCI Express root ports as the description names, before all other slots.
    private static func rootPorts(
        _ configuration: GuestConfiguration, _ chipset: BoardChipset, _ bus: PCIBus, in slots: inout SlotPlan
    ) throws -> [(bridge: PCIBridge, slot: UInt8)] {
        let used = Set(configuration.disks.compactMap(\.port) + configuration.networks.compactMap(\.port))
        return try (0..<configuration.board.rootPorts).map { number in
            let slot = slots.takePort()
            let bridge = try PCIBridge(
                rootPort: UInt16(number + 1), name: "root-port-\(number)", isOccupied: used.contains(number), line: chipset.line(device: slot))
            try bus.attach(bridge, at: PCIAddress(device: slot))
            return (bridge, slot)
        }
    }

    /// Every device as after power on. vCPUs are parked.
    package func reset() {
        serial.reset()
        powerManagement.reset()
        clock.reset()
        keyboard.reset()
        dma?.reset()
        floppies?.controller.reset()
        extras.hpet?.reset()
        for port in resetPorts { port.reset() }
        commandPort?.reset()
        configurationPorts.reset()
        bus.reset()
        firmware?.reset()
        firmwarePorts?.reset()
    }

    /// Writes back what images keep in memory. Queues stand still. What could not be written, in words.
    package func closeImages() -> [String] {
        images.compactMap { image in
            do { try image.close() } catch { return "\(error)" }
            return nil
        }
    }

    /// Writes what logs of debug ports keep back.
    package func flushLogs() { for log in logs { log.flush() } }

    /// What follows from restored registers: windows of bridges, and a generation that may be another.
    func followRestoredDevices() {
        chipset.follow()
        for port in rootPorts { port.follow() }
        extras.generation?.renew()
    }

    /// What the guest was told is done is on the disks when this returns, and nothing of it in this process alone. Queues stand
    /// still.
    package func synchroniseImages() throws {
        for image in images where !image.isReadOnly {
            try image.close()
            try image.carryOut(BlockRequest(.flush, offset: 0, byteCount: 0, tag: 0))
        }
    }
}

/// Where BARs are mapped: both buses.
final class BoardAddressSpace: PCIAddressSpace {
    private let addresses: MemoryBus
    private let ports: MovablePorts

    init(_ addresses: MemoryBus, _ ports: MovablePorts) {
        self.addresses = addresses
        self.ports = ports
    }

    func map(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) { addresses.attach(window, at: base, byteCount: byteCount) }
    func unmap(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) { addresses.detach(window, at: base) }
    func mapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16) { ports.attach(window, at: base, count: count) }
    func unmapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16) { ports.detach(window, at: base) }
}
