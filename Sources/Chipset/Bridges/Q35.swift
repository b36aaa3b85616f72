// The two functions that make a Q35 board what firmware expects: the memory controller hub at 00:00.0 and the LPC bridge of ICH9
// at 00:1f.0 (Intel 3 Series MCH data sheet §5.1; ICH9 data sheet §13.1).
//
// Kept: identities, PCIEXBAR, PAM and SMRAM as memory cells, PIRQ routing, the power management base, the root complex base.
// There is no system management mode: SMI_EN shows APMC_EN already set, which firmware takes for "set up".
import GuestMemory
package import MachineCore
package import PCI
import Synchronization

package final class Q35Bridges: Sendable {
    package static let hubAddress = PCIAddress(device: 0)
    package static let lpcAddress = PCIAddress(device: 0x1F)

    private enum Hub {
        static let pciexbar = 0x60, pam0 = 0x90, smram = 0x9D, esmramc = 0x9E
    }
    private enum LPC {
        static let pmBase = 0x40, acpiControl = 0x44, pirqA = 0x60, pirqE = 0x68, gpmCon1 = 0xA0, gpmCon3 = 0xA4, rcba = 0xF0
    }

    package let hub: PCIEndpoint
    package let lpc: PCIEndpoint
    private let ecam: MovableBlock
    private let power: MovableBlock
    private let rootComplex: MovableBlock

    /// - Parameters:
    ///   - window: ECAM of the board's bus.
    ///   - power: the power management block, 128 ports.
    package init(router: PCIInterruptRouter, window: PCIExpressWindow, power: any BusDevice, space: any PCIAddressSpace) throws(AcceleratorError) {
        var header = PCIConfigurationSpace(PCIIdentity(vendor: 0x8086, device: 0x29C0, classCode: 0x06_00_00), firstCapability: 0xE0)
        header.addRegister(at: Hub.pciexbar, 0, byteCount: 4, writable: 0xF000_0007)
        header.addRegister(at: Hub.pciexbar + 4, 0, byteCount: 4, writable: 0xF)
        for index in 0..<7 { header.addRegister(at: Hub.pam0 + index, 0, byteCount: 1, writable: index == 0 ? 0x30 : 0x33) }
        header.addRegister(at: Hub.smram, 0x02, byteCount: 1, writable: 0x70)
        header.addRegister(at: Hub.esmramc, 0x38, byteCount: 1, writable: 0x07)
        hub = try PCIEndpoint(header, name: "q35-mch")

        var bridge = PCIConfigurationSpace(PCIIdentity(vendor: 0x8086, device: 0x2918, revision: 2, classCode: 0x06_01_00), firstCapability: 0xE0)
        bridge.setMultifunction()
        bridge.addRegister(at: LPC.pmBase, 1, byteCount: 4, writable: 0xFF80)
        bridge.addRegister(at: LPC.acpiControl, 0, byteCount: 1, writable: 0x87)
        for pirq in 0..<8 { bridge.addRegister(at: Self.pirqRegister(pirq), 0x80, byteCount: 1, writable: 0x8F) }
        bridge.addRegister(at: LPC.gpmCon1, 0, byteCount: 2, writable: 0x07FF)
        bridge.addRegister(at: LPC.gpmCon3, 0, byteCount: 2, writable: 0xFFFF)
        bridge.addRegister(at: LPC.rcba, 0, byteCount: 4, writable: 0xFFFF_C001)
        lpc = try PCIEndpoint(bridge, name: "ich9-lpc")

        ecam = MovableBlock(window, in: space)
        self.power = MovableBlock(power, in: space)
        rootComplex = MovableBlock(RootComplexRegisters(), in: space)
        hub.onWrite { [self] range in if range.overlaps(Hub.pciexbar..<(Hub.pciexbar + 8)) { placeECAM() } }
        lpc.onWrite { [self] range in
            if range.overlaps(LPC.pmBase..<(LPC.acpiControl + 1)) { placePower() }
            if range.overlaps(LPC.pirqA..<(LPC.pirqE + 4)) { route(router) }
            if range.overlaps(LPC.rcba..<(LPC.rcba + 4)) { placeRootComplex() }
        }
    }

    private static func pirqRegister(_ pirq: Int) -> Int { pirq < 4 ? LPC.pirqA + pirq : LPC.pirqE + pirq - 4 }

    /// Where ECAM is, once firmware has said so.
    package var ecamBase: UInt64? {
        guard case .memory(let base, _) = ecam.current else { return nil }
        return base.rawValue
    }

    /// First port of the power management block, once firmware has said so.
    package var powerBase: UInt16? {
        guard case .ports(let base, _) = power.current else { return nil }
        return base
    }

    /// After saved state was restored: everything where the registers say.
    package func follow(_ router: PCIInterruptRouter) {
        placeECAM()
        placePower()
        placeRootComplex()
        route(router)
    }

    private func placeECAM() {
        let low = hub.register(at: Hub.pciexbar, width: .doubleWord), high = hub.register(at: Hub.pciexbar + 4, width: .doubleWord)
        // 256, 128 or 64 MiB; the fourth length is reserved.
        let length: UInt64? = [0: 256, 2: 128, 4: 64][low & 6]
        guard low & 1 != 0, let length else { return ecam.move(to: nil) }
        ecam.move(to: .memory(GuestAddress(high << 32 | low & 0xF000_0000), byteCount: length << 20))
    }

    private func placePower() {
        let base = UInt16(truncatingIfNeeded: lpc.register(at: LPC.pmBase, width: .doubleWord)) & 0xFF80
        let isOn = lpc.register(at: LPC.acpiControl, width: .byte) & 0x80 != 0
        power.move(to: isOn && base != 0 ? .ports(base, count: 128) : nil)
    }

    private func placeRootComplex() {
        let register = lpc.register(at: LPC.rcba, width: .doubleWord)
        rootComplex.move(to: register & 1 != 0 ? .memory(GuestAddress(register & 0xFFFF_C000), byteCount: 0x4000) : nil)
    }

    private func route(_ router: PCIInterruptRouter) {
        for pirq in 0..<8 { router.route(pirq: pirq, register: UInt8(truncatingIfNeeded: lpc.register(at: Self.pirqRegister(pirq), width: .byte))) }
    }
}

/// Chipset configuration registers (ICH9 §10.1): interrupt pins and routes as after reset, which is how the board is wired; the
/// watchdog may not reset the machine (NO_REBOOT), for there is none.
private final class RootComplexRegisters: BusDevice {
    /// D31IP … D25IP and D31IR … D25IR; every route is A to A.
    private static let routes: Range<UInt64> = 0x3140..<0x3150
    private static let generalControl: UInt64 = 0x3410

    func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        switch offset {
        case Self.routes: 0x3210_3210_3210_3210 & width.allOnes
        case Self.generalControl: 1 << 5
        default: 0
        }
    }

    func write(offset: UInt64, width: AccessWidth, value: UInt64) {}
}
