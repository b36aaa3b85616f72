// Configuration space of both boards' bridges, the host bridge and an endpoint with every kind of BAR, MSI and MSI-X, through the
// ports, through ECAM and directly.
import Chipset
import GuestMemory
import MachineCore
import PCI

private final class Registers: BusDevice {
    func read(offset: UInt64, width: AccessWidth) -> UInt64 { offset }
    func write(offset: UInt64, width: AccessWidth, value: UInt64) {}
}

let pciTarget = FuzzTarget("pci") { input in
    drive(&input) {
        let rig = Rig()
        let bus = PCIBus(), space = FuzzAddressSpace(), machine = FuzzMachine(), ports = PCIConfigurationPorts(bus)
        let window = PCIExpressWindow(bus)
        let router = PCIInterruptRouter(.ich9, machine: machine), oldRouter = PCIInterruptRouter(.piix, machine: machine)
        let q35 = must { try Q35Bridges(router: router, window: window, power: Registers(), space: space) }
        let i440fx = must { try I440FXBridges(router: oldRouter, power: Registers(), space: space) }
        let plain = HostBridge()

        var header = PCIConfigurationSpace(PCIIdentity(vendor: 0x1AF4, device: 0x1000, classCode: 0x02_00_00))
        header.addBAR(BaseAddressRegister(index: 0, kind: .memory32, byteCount: 4096))
        header.addBAR(BaseAddressRegister(index: 1, kind: .ports, byteCount: 32))
        header.addBAR(BaseAddressRegister(index: 2, kind: .memory64, byteCount: 1 << 20))
        let vectors = must { try MSIXInterrupts(vectorCount: 3, factory: FuzzInterrupts()) }
        let endpoint = must {
            try PCIEndpoint(header, name: "endpoint", line: router.line(device: 5), message: FuzzInterrupts(), msix: (vectors, 4))
        }
        for index in 0..<3 { endpoint.setWindow(Registers(), forBAR: index) }
        let functions: [(PCIAddress, any PCIFunction)] = [
            (Q35Bridges.hubAddress, q35.hub), (Q35Bridges.lpcAddress, q35.lpc), (PCIAddress(device: 5), endpoint),
            (PCIAddress(device: 6), i440fx.host), (PCIAddress(device: 7), i440fx.isa), (PCIAddress(device: 7, function: 3), i440fx.power),
            (PCIAddress(device: 8), plain),
        ]
        for (address, function) in functions { must { try bus.attach(function, at: address) } }
        bus.connect(to: space)
        must { try bus.placeBARs() }
        rig.add(ports, byteCount: 8)
        rig.add(window, byteCount: 1 << 20)
        rig.functions = functions.map(\.1)
        rig.sections = [ports, q35.hub, q35.lpc, endpoint, i440fx.host, i440fx.isa, i440fx.power, plain]
        rig.resume = {
            q35.follow(router)
            i440fx.follow(oldRouter)
        }
        rig.reset = {
            bus.reset()
            ports.reset()
        }
        rig.actions = [
            { endpoint.setLevel($0.byte() & 1 != 0) },
            { vectors.trigger($0.below(3)) },
        ]
        return rig
    }
}
