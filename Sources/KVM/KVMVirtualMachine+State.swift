// Saving and restoring what KVM keeps for the whole machine: both PICs, the IOAPIC, the PIT, the clock.
import CKVM
import HostSystem
package import MachineCore

extension KVMVirtualMachine {
    private static let stateVersion: UInt32 = 1

    package func saveState() throws(AcceleratorError) -> [UInt8] {
        var writer = StateWriter()
        writer.write(Self.stateVersion)
        for number in UInt32(0)..<3 {
            var chip = kvm_irqchip()
            chip.chip_id = number
            guard unsafe ckvm_get_irqchip(descriptor.rawValue, &chip) == 0 else { throw kvmError("KVM_GET_IRQCHIP", "chip \(number)") }
            writer.write(unsafe withUnsafeBytes(of: &chip) { unsafe Array($0) })
        }
        var pit = kvm_pit_state2()
        guard unsafe ckvm_get_pit2(descriptor.rawValue, &pit) == 0 else { throw kvmError("KVM_GET_PIT2", "virtual machine") }
        writer.write(unsafe withUnsafeBytes(of: &pit) { unsafe Array($0) })
        writer.write(try clockNanoseconds())
        return writer.bytes
    }

    package func restoreState(_ state: [UInt8]) throws(AcceleratorError) {
        var reader = StateReader(section: "interrupt-controllers", bytes: state)
        do {
            let version = try reader.read(UInt32.self)
            guard version == Self.stateVersion else {
                throw DeviceStateError(section: reader.section, reason: "version \(version), \(Self.stateVersion) is the newest known")
            }
            for number in UInt32(0)..<3 {
                var chip = kvm_irqchip()
                try fill(&chip, from: reader.readBytes(), section: reader.section)
                guard chip.chip_id == number, unsafe ckvm_set_irqchip(descriptor.rawValue, &chip) == 0 else {
                    throw kvmError("KVM_SET_IRQCHIP", "chip \(number)")
                }
            }
            var pit = kvm_pit_state2()
            try fill(&pit, from: reader.readBytes(), section: reader.section)
            guard unsafe ckvm_set_pit2(descriptor.rawValue, &pit) == 0 else { throw kvmError("KVM_SET_PIT2", "virtual machine") }
            try setClock(try reader.read(UInt64.self))
            guard reader.remaining == 0 else {
                throw DeviceStateError(section: reader.section, reason: "\(reader.remaining) bytes more than its fields")
            }
        } catch let error as AcceleratorError {
            throw error
        } catch let error as DeviceStateError {
            throw AcceleratorError("restore", subject: "section \(error.section)", fault: .caller, reason: error.reason)
        } catch {
            throw AcceleratorError("restore", subject: "interrupt controllers", fault: .caller, reason: "\(error)")
        }
    }

    private func fill<Value>(_ value: inout Value, from bytes: [UInt8], section: String) throws(DeviceStateError) {
        guard bytes.count == MemoryLayout<Value>.size else {
            throw DeviceStateError(section: section, reason: "\(bytes.count) bytes where \(MemoryLayout<Value>.size) should be")
        }
        // SAFETY: equal sizes by the check above; only C structures are filled.
        unsafe withUnsafeMutableBytes(of: &value) { target in unsafe target.copyBytes(from: bytes) }
    }
}
