// The host bridge at 00:00.0. It carries the id of the q35 memory controller hub with the subsystem that marks emulated
// hardware, and none of that chip's registers: we boot without the firmware that would program them.
package import GuestMemory
package import MachineCore
import Synchronization

/// The function every PCI machine has at 00:00.0.
package final class HostBridge: PCIFunction, SavableDevice {
    package static let address = PCIAddress(device: 0)

    private let space: Mutex<PCIConfigurationSpace>

    package init() {
        space = Mutex(PCIConfigurationSpace(PCIIdentity(vendor: 0x8086, device: 0x29C0, classCode: 0x06_00_00)))
    }

    package func readConfiguration(offset: Int, width: AccessWidth) -> UInt64 {
        space.withLock { $0.read(offset: offset, width: width) }
    }

    package func writeConfiguration(offset: Int, width: AccessWidth, value: UInt64) {
        space.withLock { _ = $0.write(offset: offset, width: width, value: value) }
    }

    package var baseAddressRegisters: [BaseAddressRegister] { [] }
    package func place(_ bar: BaseAddressRegister, at base: GuestAddress) {}
    package func connect(to addressSpace: any PCIAddressSpace) {}

    package func reset() {
        space.withLock { $0.reset() }
    }

    // MARK: saved state

    package var stateName: String { "pci-host-bridge" }
    package static var stateVersion: UInt32 { 1 }

    package func saveState(into writer: inout StateWriter) {
        let copy = space.withLock { $0 }
        copy.save(into: &writer)
    }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        var copy = space.withLock { $0 }
        try copy.restore(from: &reader)
        space.withLock { [copy] in $0 = copy }
    }
}
