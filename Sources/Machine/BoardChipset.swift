// What the machine's type decides: the bridges, how slots interrupt, where the registers are that firmware may move.
import Chipset
import Firmware
import GuestMemory
import MachineConfiguration
import MachineCore
import PCI

enum BoardChipset: Sendable {
    /// A host bridge alone; everything lies where `MemoryMap` says.
    case direct(HostBridge)
    case q35(Q35Bridges, PCIInterruptRouter)
    case pc(I440FXBridges, PCIInterruptRouter)

    init(
        _ type: MachineType, machine: any VirtualMachine, bus: PCIBus, power: PowerManagement, space: BoardAddressSpace
    ) throws {
        switch type {
        case .direct: self = .direct(HostBridge())
        case .q35:
            let router = PCIInterruptRouter(.ich9, machine: machine)
            self = .q35(
                try Q35Bridges(router: router, window: PCIExpressWindow(bus), power: ICH9PowerBlock(power), space: space), router)
        case .pc:
            let router = PCIInterruptRouter(.piix, machine: machine)
            self = .pc(try I440FXBridges(router: router, power: power, space: space), router)
        }
        for (address, function) in functions { try bus.attach(function, at: address) }
    }

    private var functions: [(address: PCIAddress, function: any PCIFunction)] {
        switch self {
        case .direct(let bridge): [(HostBridge.address, bridge)]
        case .q35(let bridges, _): [(Q35Bridges.hubAddress, bridges.hub), (Q35Bridges.lpcAddress, bridges.lpc)]
        case .pc(let bridges, _):
            [(I440FXBridges.hostAddress, bridges.host), (I440FXBridges.isaAddress, bridges.isa), (I440FXBridges.powerAddress, bridges.power)]
        }
    }

    /// In the order their state is saved.
    var savable: [any SavableDevice & Sendable] {
        switch self {
        case .direct(let bridge): [bridge]
        case .q35(let bridges, _): [bridges.hub, bridges.lpc]
        case .pc(let bridges, _): [bridges.host, bridges.isa, bridges.power]
        }
    }

    /// What lies at ports that nothing moves.
    func attach(to ports: inout PortBus, power: PowerManagement) {
        switch self {
        case .direct: ports.attach(power, at: MemoryMap.pmBase, count: 0x40)
        case .q35: break
        case .pc: ports.attach(PIIX4EventBlock(power), at: I440FXBridges.generalPurposeEventPorts, count: 4)
        }
    }

    /// Ports 0xB2 and 0xB3; nil where there is no such mode to switch.
    func makeCommandPort(_ power: PowerManagement) -> SMICommandPort? {
        switch self {
        case .direct: nil
        case .q35: SMICommandPort(power)
        case .pc: SMICommandPort(power, enable: Self.piixEnable, disable: Self.piixDisable)
        }
    }

    private static let piixEnable: UInt8 = 0xF1, piixDisable: UInt8 = 0xF0

    /// The first slot of bus 0 that devices of the configuration take.
    var firstSlot: UInt8 {
        switch self {
        case .direct: 1
        // Slot 1 is a PC's first display's.
        case .q35: 2
        case .pc: 3
        }
    }

    /// INTA of a device; nil where slots have no lines.
    func line(device: UInt8) -> (any InterruptLine)? {
        switch self {
        case .direct: nil
        case .q35(_, let router), .pc(_, let router): router.line(device: device)
        }
    }

    /// An input of the I/O APIC, 16 to 23, beside the slots that may be on it.
    func line(input: UInt8, of machine: any VirtualMachine) -> any InterruptLine {
        switch self {
        case .direct: GSILine(machine, gsi: UInt32(input))
        case .q35(_, let router), .pc(_, let router): router.line(input: input)
        }
    }

    /// Inputs of the I/O APIC that the HPET's timers may be routed to, by bit: as others build these boards.
    var timerRoutes: UInt32 {
        if case .pc = self { return 1 << 2 }
        return 0x00FF_0104
    }

    /// The ISA bridge, as firmware's paths name it.
    var isaPath: String {
        if case .q35 = self { return "1f" }
        return "1"
    }

    /// After saved state was restored: what registers move goes where they say.
    func follow() {
        switch self {
        case .direct: break
        case .q35(let bridges, let router): bridges.follow(router)
        case .pc(let bridges, let router): bridges.follow(router)
        }
    }

    /// Where things are now, for the ACPI tables.
    func describe(_ description: inout ACPIDescription, lowMemoryEnd: UInt64) {
        let first = UInt32(truncatingIfNeeded: max(lowMemoryEnd, 0x8000_0000)), last = UInt32(MemoryMap.pciWindowEnd - 1)
        switch self {
        case .direct: break
        case .q35(let bridges, _):
            description.routing = .ich9
            description.pmBase = bridges.powerBase ?? MemoryMap.pmBase
            description.gpe0Base = description.pmBase + 0x20
            // As many windows before firmware has placed ECAM as after: the tables' length may not change.
            let ecam = bridges.ecamBase ?? MemoryMap.ecamBase
            description.ecamBase = ecam
            let end = UInt32(truncatingIfNeeded: ecam + MemoryMap.ecamByteCount)
            if ecam > UInt64(first), end > first, end < last {
                description.windows = [first...(UInt32(truncatingIfNeeded: ecam) - 1), end...last]
            } else {
                description.windows = [first...(first + 0xFFF), (first + 0x1000)...last]
            }
        case .pc(let bridges, _):
            description.routing = .piix
            description.pmBase = bridges.powerBase ?? MemoryMap.pmBase
            description.gpe0Base = I440FXBridges.generalPurposeEventPorts
            description.gpe0ByteCount = 4
            (description.acpiEnable, description.acpiDisable) = (Self.piixEnable, Self.piixDisable)
            description.ecamBase = nil
            description.windows = [first...last]
        }
    }
}
