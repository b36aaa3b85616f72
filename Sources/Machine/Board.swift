// The wiring: which device sits at which port or address, on which interrupt. Made once; reset in place.
package import Chipset
import DiskImage
import Firmware
package import GuestMemory
package import HostSystem
package import MachineCore
import NetworkBackend
import PCI
import VirtIO

/// Everything of a machine but its processors' threads.
package final class Board: Sendable {
    package let memory: GuestMemory
    package let serial: SerialPort
    package let powerManagement: PowerManagement
    let ports: PortBus
    let addresses: MemoryBus
    let bus: PCIBus
    private let configurationPorts: PCIConfigurationPorts
    /// In the order their state is saved.
    package let savable: [any SavableDevice & Sendable]

    package init(
        _ description: MachineDescription, machine: any VirtualMachine, memory: GuestMemory, output: any SerialOutput, power: any PowerRequests,
        loop: EventLoop
    ) throws {
        self.memory = memory
        let clock = HostClock()
        serial = SerialPort(name: "uart@3f8", line: GSILine(machine, gsi: 4), output: output)
        powerManagement = PowerManagement(clock: clock, sci: GSILine(machine, gsi: 9), power: power)
        bus = PCIBus()
        let bridge = HostBridge()
        try bus.attach(bridge, at: HostBridge.address)
        var functions: [VirtIOPCIFunction] = []
        for (index, disk) in description.disks.enumerated() {
            let image = try RawImage(owning: OwnedDescriptor(owning: disk.descriptor), named: disk.name, isReadOnly: disk.isReadOnly)
            let device = try VirtIOBlock(
                backend: image, serial: disk.name, queueCount: min(description.vcpuCount, 4), loops: [loop])
            let function = try VirtIOPCIFunction(device, name: "virtio-blk-\(index)", memory: memory, interrupts: machine, doorbells: machine)
            functions.append(function)
        }
        for (index, network) in description.networks.enumerated() {
            let tap = try TapQueue(owning: OwnedDescriptor(owning: network.tap), named: network.name)
            let device = try VirtIONet(taps: [tap], mac: network.mac, mtu: 1500, loops: [loop])
            functions.append(try VirtIOPCIFunction(device, name: "virtio-net-\(index)", memory: memory, interrupts: machine, doorbells: machine))
        }
        if description.hasEntropy {
            functions.append(try VirtIOPCIFunction(VirtIOEntropy(loop: loop), name: "virtio-rng", memory: memory, interrupts: machine, doorbells: machine))
        }
        if description.hasBalloon {
            functions.append(try VirtIOPCIFunction(VirtIOBalloon(loop: loop), name: "virtio-balloon", memory: memory, interrupts: machine, doorbells: machine))
        }
        // Slot 0 is the host bridge's; the others follow in the order of the description.
        for (index, function) in functions.enumerated() { try bus.attach(function, at: PCIAddress(device: UInt8(truncatingIfNeeded: index + 1))) }
        configurationPorts = PCIConfigurationPorts(bus)
        addresses = MemoryBus()
        addresses.attach(PCIExpressWindow(bus), at: GuestAddress(MemoryMap.ecamBase), byteCount: MemoryMap.ecamByteCount)
        bus.connect(to: addresses)
        try bus.placeBARs()
        var ports = PortBus()
        ports.attach(serial, at: 0x3F8, count: 8)
        // 0xCF9 lies within the configuration ports' range and is asked first.
        ports.attach(ResetPort(.resetControl, power: power), at: 0xCF9, count: 1)
        ports.attach(configurationPorts, at: 0xCF8, count: 8)
        ports.attach(powerManagement, at: MemoryMap.pmBase, count: 0x40)
        ports.attach(CMOSClock(clock: clock), at: 0x70, count: 2)
        ports.attach(ResetPort(.systemControl, power: power), at: 0x92, count: 1)
        ports.attach(ResetPort(.keyboardController, power: power), at: 0x60, count: 5)
        self.ports = ports
        savable = [serial, powerManagement, bridge, configurationPorts] as [any SavableDevice & Sendable] + functions
    }

    /// Every device as after power on. vCPUs are parked.
    package func reset() {
        serial.reset()
        powerManagement.reset()
        configurationPorts.reset()
        bus.reset()
    }

    /// All devices' state, each as a section of name, version and bytes.
    package func saveState() -> [UInt8] {
        var writer = StateWriter()
        writer.write(UInt32(savable.count))
        for device in savable {
            var section = StateWriter()
            device.saveState(into: &section)
            writer.write(device.stateName)
            writer.write(type(of: device).stateVersion)
            writer.write(section.bytes)
        }
        return writer.bytes
    }

    /// Restores what `saveState` wrote into devices made from the same description.
    package func restoreState(_ state: [UInt8]) throws(DeviceStateError) {
        var reader = StateReader(section: "board", bytes: state)
        let count = try reader.read(UInt32.self)
        guard count == UInt32(savable.count) else { throw DeviceStateError(section: "board", reason: "\(count) devices, this machine has \(savable.count)") }
        for device in savable {
            let name = try reader.readString(), version = try reader.read(UInt32.self), bytes = try reader.readBytes()
            guard name == device.stateName else { throw DeviceStateError(section: name, reason: "\(device.stateName) was expected here") }
            guard version <= type(of: device).stateVersion else {
                throw DeviceStateError(section: name, reason: "version \(version), \(type(of: device).stateVersion) is the newest known")
            }
            var section = StateReader(section: name, bytes: bytes)
            try device.restoreState(from: &section, version: version)
        }
    }
}

extension MemoryBus: PCIAddressSpace {
    package func map(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) { attach(window, at: base, byteCount: byteCount) }
    package func unmap(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) { detach(window, at: base) }
}
