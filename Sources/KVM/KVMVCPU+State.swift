// Saving and restoring a vCPU: every state KVM has an ioctl for, in the order that a restore must follow.
import CKVM
import HostSystem
package import MachineCore

extension KVMVCPU {
    private static let stateVersion: UInt32 = 1
    /// Restored in this order: special registers before the local APIC (its base), extended state before its enable bits matter,
    /// MSRs after the APIC mode, events last.
    private static let order = [CKVM_REGS, CKVM_SREGS, CKVM_XSAVE, CKVM_XCRS, CKVM_LAPIC, CKVM_DEBUGREGS, CKVM_MP_STATE, CKVM_EVENTS]

    package func saveState() throws(AcceleratorError) -> [UInt8] {
        var writer = StateWriter()
        writer.write(Self.stateVersion)
        for what in Self.order {
            var bytes = [UInt8](repeating: 0, count: ckvm_state_size(CInt(what)))
            // SAFETY: the buffer has the size of this state's structure.
            guard unsafe ckvm_get_state(descriptor.rawValue, CInt(what), &bytes) == 0 else {
                throw kvmError("save state \(what) of", "vcpu \(index)")
            }
            writer.write(UInt32(what))
            writer.write(bytes)
        }
        let msrs = try readMSRs()
        writer.write(UInt32(msrs.count))
        for msr in msrs {
            writer.write(msr.index)
            writer.write(msr.data)
        }
        return writer.bytes
    }

    package func restoreState(_ state: [UInt8]) throws(AcceleratorError) {
        var reader = StateReader(section: "vcpu \(index)", bytes: state)
        do {
            let version = try reader.read(UInt32.self)
            guard version == Self.stateVersion else {
                throw DeviceStateError(section: reader.section, reason: "version \(version), \(Self.stateVersion) is the newest known")
            }
            for what in Self.order {
                let tag = try reader.read(UInt32.self)
                let bytes = try reader.readBytes()
                guard tag == UInt32(what), bytes.count == ckvm_state_size(CInt(what)) else {
                    throw DeviceStateError(section: reader.section, reason: "state \(tag) of \(bytes.count) bytes where \(what) should be")
                }
                // SAFETY: the size was compared above.
                guard unsafe ckvm_set_state(descriptor.rawValue, CInt(what), bytes) == 0 else {
                    throw kvmError("restore state \(what) of", "vcpu \(index)")
                }
            }
            let count = try reader.read(UInt32.self)
            guard count <= 4096 else { throw DeviceStateError(section: reader.section, reason: "\(count) MSRs") }
            for _ in 0..<count {
                var entry = kvm_msr_entry()
                entry.index = try reader.read(UInt32.self)
                entry.data = try reader.read(UInt64.self)
                // One at a time: a list ends at the first MSR this host does not take, and that one need not be fatal.
                _ = unsafe ckvm_set_msrs(descriptor.rawValue, &entry, 1)
            }
        } catch let error as AcceleratorError {
            throw error
        } catch {
            throw AcceleratorError("restore", subject: "vcpu \(index)", fault: .caller, reason: "\(error)")
        }
    }

    private func readMSRs() throws(AcceleratorError) -> [kvm_msr_entry] {
        var found: [kvm_msr_entry] = []
        var rest = stateMSRs.map { number in
            var entry = kvm_msr_entry()
            entry.index = number
            return entry
        }
        // KVM stops at the first it cannot read: the host's list names MSRs that this guest's CPUID does not give it. That one
        // is left out.
        while !rest.isEmpty {
            // SAFETY: the shim reads and fills `count` entries.
            let count = unsafe ckvm_get_msrs(descriptor.rawValue, &rest, CInt(rest.count))
            guard count >= 0 else { throw kvmError("KVM_GET_MSRS", "vcpu \(index)") }
            found += rest.prefix(Int(count))
            rest.removeFirst(min(Int(count) + 1, rest.count))
        }
        return found
    }
}
