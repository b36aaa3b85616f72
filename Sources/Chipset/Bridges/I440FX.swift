// The three functions that make an i440FX board what firmware expects: the host bridge at 00:00.0, PIIX3's ISA bridge at 00:01.0
// and PIIX4's power management at 00:01.3 (82441FX data sheet §3.2; PIIX3 data sheet §2.2; PIIX4 data sheet §7.1).
import GuestMemory
package import MachineCore
package import PCI
import Synchronization

package final class I440FXBridges: Sendable {
    package static let hostAddress = PCIAddress(device: 0)
    package static let isaAddress = PCIAddress(device: 1)
    package static let powerAddress = PCIAddress(device: 1, function: 3)
    /// General-purpose events, where no register can move them.
    package static let generalPurposeEventPorts: UInt16 = 0xAFE0

    private enum Host { static let pam0 = 0x59, smram = 0x72 }
    private enum ISA { static let pirqA = 0x60 }
    private enum Power {
        static let pmBase = 0x40, smmDone = 0x5B, pmRegMisc = 0x80, smbusBase = 0x90, smbusConfiguration = 0xD2
    }

    package let host: PCIEndpoint
    package let isa: PCIEndpoint
    package let power: PCIEndpoint
    private let block: MovableBlock

    /// - Parameter power: the power management block, 64 ports.
    package init(router: PCIInterruptRouter, power registers: any BusDevice, space: any PCIAddressSpace) throws(AcceleratorError) {
        var header = PCIConfigurationSpace(PCIIdentity(vendor: 0x8086, device: 0x1237, revision: 2, classCode: 0x06_00_00), firstCapability: 0xE0)
        for index in 0..<7 { header.addRegister(at: Host.pam0 + index, 0, byteCount: 1, writable: index == 0 ? 0x30 : 0x33) }
        header.addRegister(at: Host.smram, 0x02, byteCount: 1, writable: 0x70)
        host = try PCIEndpoint(header, name: "i440fx")

        var bridge = PCIConfigurationSpace(PCIIdentity(vendor: 0x8086, device: 0x7000, classCode: 0x06_01_00), firstCapability: 0xE0)
        bridge.setMultifunction()
        for pirq in 0..<4 { bridge.addRegister(at: ISA.pirqA + pirq, 0x80, byteCount: 1, writable: 0x8F) }
        isa = try PCIEndpoint(bridge, name: "piix3-isa")

        var management = PCIConfigurationSpace(PCIIdentity(vendor: 0x8086, device: 0x7113, revision: 3, classCode: 0x06_80_00), firstCapability: 0xE0)
        management.setInterrupt(pin: 1, line: 9)
        management.addRegister(at: Power.pmBase, 1, byteCount: 4, writable: 0xFFC0)
        // Firmware takes this for "system management mode is set up", and there is none.
        management.addRegister(at: Power.smmDone, 0x02, byteCount: 1, writable: 0)
        management.addRegister(at: Power.pmRegMisc, 0, byteCount: 1, writable: 1)
        management.addRegister(at: Power.smbusBase, 1, byteCount: 4, writable: 0xFFC0)
        management.addRegister(at: Power.smbusConfiguration, 0, byteCount: 1, writable: 0x0E)
        power = try PCIEndpoint(management, name: "piix4-pm")

        block = MovableBlock(registers, in: space)
        isa.onWrite { [self] range in if range.overlaps(ISA.pirqA..<(ISA.pirqA + 4)) { route(router) } }
        power.onWrite { [self] range in if range.overlaps(Power.pmBase..<(Power.pmBase + 4)) || range.contains(Power.pmRegMisc) { placePower() } }
    }

    /// First port of the power management block, once firmware has said so.
    package var powerBase: UInt16? {
        guard case .ports(let base, _) = block.current else { return nil }
        return base
    }

    /// After saved state was restored.
    package func follow(_ router: PCIInterruptRouter) {
        placePower()
        route(router)
    }

    private func placePower() {
        let base = UInt16(truncatingIfNeeded: power.register(at: Power.pmBase, width: .doubleWord)) & 0xFFC0
        let isOn = power.register(at: Power.pmRegMisc, width: .byte) & 1 != 0
        block.move(to: isOn && base != 0 ? .ports(base, count: 64) : nil)
    }

    private func route(_ router: PCIInterruptRouter) {
        for pirq in 0..<4 { router.route(pirq: pirq, register: UInt8(truncatingIfNeeded: isa.register(at: ISA.pirqA + pirq, width: .byte))) }
    }
}
