// Saving and restoring a vCPU: every state KVM has an ioctl for, in the orders that a save and a restore must follow (api.rst says
// little; arch/x86/kvm/x86.c and lapic.c decide).
//
// Layout: version; the CPUID leaves; the frequency of the time stamp counter; states as number, length, bytes; MSRs as number and
// value; what KVM keeps of a nested hypervisor.
import CKVM
import Glibc
import HostSystem
package import MachineCore

extension KVMVCPU {
    /// Version 1 was never in a file: it had no CPUID, frequency and nested state.
    private static let stateVersion: UInt32 = 2
    private static let leafLimit: UInt32 = 1024, msrLimit: UInt32 = 4096
    /// Reading the MP state takes INIT and SIPI that wait, which changes what is read after it; events come last (below).
    private static let saveOrder = [CKVM_MP_STATE, CKVM_REGS, CKVM_SREGS, CKVM_XSAVE, CKVM_XCRS, CKVM_DEBUGREGS, CKVM_LAPIC]
    /// The APIC base is in the special registers and goes before the APIC; extended state before its enable bits matter.
    private static let restoreOrder = [CKVM_REGS, CKVM_SREGS, CKVM_XSAVE, CKVM_XCRS, CKVM_LAPIC, CKVM_DEBUGREGS, CKVM_MP_STATE]

    package func saveState() throws(AcceleratorError) -> [UInt8] {
        var writer = StateWriter()
        writer.write(Self.stateVersion)
        writer.write(UInt32(cpuid.leaves.count))
        for leaf in cpuid.leaves { for value in [leaf.function, leaf.index, leaf.flags, leaf.eax, leaf.ebx, leaf.ecx, leaf.edx] { writer.write(value) } }
        writer.write(UInt32(max(ckvm_get_tsc_khz(descriptor.rawValue), 0)))
        for what in Self.saveOrder { try write(what, to: &writer) }
        let msrs = try readMSRs()
        writer.write(UInt32(msrs.count))
        for msr in msrs {
            writer.write(msr.index)
            writer.write(msr.data)
        }
        var nested = [UInt8](repeating: 0, count: nestedStateByteCount)
        // SAFETY: the buffer has the length that is passed.
        let count = unsafe ckvm_get_nested(descriptor.rawValue, &nested, UInt32(nested.count))
        guard count >= 0 else { throw kvmError("KVM_GET_NESTED_STATE", "vcpu \(index)") }
        writer.write(Array(nested.prefix(Int(count))))
        // Whatever the others changed by being read is in it.
        try write(CKVM_EVENTS, to: &writer)
        return writer.bytes
    }

    private func write(_ what: CKVMState, to writer: inout StateWriter) throws(AcceleratorError) {
        var bytes = [UInt8](repeating: 0, count: ckvm_state_size(CInt(what)))
        // SAFETY: the buffer has the size of this state's structure.
        guard unsafe ckvm_get_state(descriptor.rawValue, CInt(what), &bytes) == 0 else {
            throw kvmError("save state \(what) of", "vcpu \(index)")
        }
        writer.write(UInt32(what))
        writer.write(bytes)
    }

    package func restoreState(_ state: [UInt8], at occasion: RestoreOccasion) throws(AcceleratorError) {
        do {
            var reader = StateReader(section: "vcpu-\(index)", bytes: state)
            let version = try reader.read(UInt32.self)
            guard version == Self.stateVersion else {
                throw DeviceStateError(section: reader.section, reason: "version \(version), this program knows \(Self.stateVersion)")
            }
            let table = try Self.readCPUID(&reader), frequency = try reader.read(UInt32.self)
            var states: [UInt32: [UInt8]] = [:]
            for _ in Self.saveOrder { try Self.readState(&reader, into: &states) }
            let msrs = try Self.readMSRs(&reader)
            let nested = try reader.readBytes(limit: 1 << 16)
            try Self.readState(&reader, into: &states)
            guard reader.remaining == 0 else {
                throw DeviceStateError(section: reader.section, reason: "\(reader.remaining) bytes more than its fields")
            }
            // All is read: what follows changes the processor.
            try show(table, reader.section)
            try setFrequency(frequency, reader.section)
            for what in Self.restoreOrder { try set(what, states, reader.section) }
            try setMSRs(msrs, reader.section, at: occasion)
            try setNested(nested, at: occasion)
            // Setting registers drops exceptions that wait; they are in the events.
            try set(CKVM_EVENTS, states, reader.section)
        } catch let error as AcceleratorError {
            throw error
        } catch let error as DeviceStateError {
            throw AcceleratorError("restore", subject: "section \(error.section)", fault: .caller, reason: error.reason)
        } catch {
            throw AcceleratorError("restore", subject: "vcpu-\(index)", fault: .caller, reason: "\(error)")
        }
    }

    // MARK: Reading

    private static func readCPUID(_ reader: inout StateReader) throws(DeviceStateError) -> CPUIDTable {
        let count = try reader.read(UInt32.self)
        guard count <= leafLimit else { throw DeviceStateError(section: reader.section, reason: "\(count) CPUID leaves") }
        var leaves: [CPUIDLeaf] = []
        for _ in 0..<count {
            leaves.append(
                CPUIDLeaf(
                    function: try reader.read(), index: try reader.read(), flags: try reader.read(), eax: try reader.read(), ebx: try reader.read(),
                    ecx: try reader.read(), edx: try reader.read()))
        }
        return CPUIDTable(leaves: leaves)
    }

    private static func readState(_ reader: inout StateReader, into states: inout [UInt32: [UInt8]]) throws(DeviceStateError) {
        let what = try reader.read(UInt32.self)
        states[what] = try reader.readBytes()
    }

    private static func readMSRs(_ reader: inout StateReader) throws(DeviceStateError) -> [kvm_msr_entry] {
        let count = try reader.read(UInt32.self)
        guard count <= msrLimit else { throw DeviceStateError(section: reader.section, reason: "\(count) MSRs") }
        var entries: [kvm_msr_entry] = []
        for _ in 0..<count {
            var entry = kvm_msr_entry()
            entry.index = try reader.read()
            entry.data = try reader.read()
            entries.append(entry)
        }
        return entries
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

    // MARK: Setting

    /// The guest goes on with the processor that it knows, as far as this host has it.
    private func show(_ saved: CPUIDTable, _ section: String) throws {
        guard saved != cpuid else { return }
        if let leaf = saved.missing(in: cpuid) {
            throw DeviceStateError(
                section: section, reason: "the guest was shown a processor that this host is not (CPUID leaf 0x\(String(leaf.function, radix: 16)), \(leaf.index)); restore it on a host with the same processor and kernel")
        }
        try setCPUID(saved)
    }

    private func setFrequency(_ kilohertz: UInt32, _ section: String) throws(DeviceStateError) {
        guard kilohertz != 0, CInt(clamping: kilohertz) != ckvm_get_tsc_khz(descriptor.rawValue) else { return }
        guard ckvm_set_tsc_khz(descriptor.rawValue, kilohertz) == 0 else {
            throw DeviceStateError(section: section, reason: "its time stamp counter runs at \(kilohertz) kHz, which this host cannot do")
        }
    }

    private func set(_ what: CKVMState, _ states: [UInt32: [UInt8]], _ section: String) throws {
        guard let bytes = states[UInt32(what)], bytes.count == ckvm_state_size(CInt(what)) else {
            throw DeviceStateError(section: section, reason: "state \(what) has \(states[UInt32(what)]?.count ?? 0) bytes, \(ckvm_state_size(CInt(what))) are needed")
        }
        // SAFETY: the size was compared above.
        guard unsafe ckvm_set_state(descriptor.rawValue, CInt(what), bytes) == 0 else {
            throw kvmError("restore state \(what) of", "vcpu \(index)")
        }
    }

    private func setMSRs(_ entries: [kvm_msr_entry], _ section: String, at occasion: RestoreOccasion) throws {
        var rest = entries[...]
        while !rest.isEmpty {
            let list = Array(rest)
            // SAFETY: the shim reads `count` entries.
            let count = unsafe ckvm_set_msrs(descriptor.rawValue, list, CInt(list.count))
            guard count >= 0 else { throw kvmError("KVM_SET_MSRS", "vcpu \(index)") }
            rest = rest.dropFirst(Int(count))
            // KVM stops at the first it does not take.
            guard let refused = rest.popFirst(), occasion == .savedState else { continue }
            var present = kvm_msr_entry()
            present.index = refused.index
            // SAFETY: one entry.
            let isReadable = unsafe ckvm_get_msrs(descriptor.rawValue, &present, 1) == 1
            guard isReadable, present.data == refused.data else {
                throw DeviceStateError(
                    section: section, reason: "MSR 0x\(String(refused.index, radix: 16)) does not take 0x\(String(refused.data, radix: 16)) on this host")
            }
        }
    }

    private func setNested(_ bytes: [UInt8], at occasion: RestoreOccasion) throws(AcceleratorError) {
        guard !bytes.isEmpty, nestedStateByteCount > 0 else { return }
        // SAFETY: the shim compares the length with the one inside.
        guard unsafe ckvm_set_nested(descriptor.rawValue, bytes, UInt32(bytes.count)) == 0 || occasion == .reset else {
            throw kvmError("KVM_SET_NESTED_STATE", "vcpu \(index)")
        }
    }
}

/// The shim's numbers of states.
private typealias CKVMState = Int

extension CPUIDTable {
    /// Registers that are sets of features (SDM 2A, CPUID; APM 3, appendix E).
    private static let features: [CPUIDRegister] =
        [
            (0x1, 0, [.ecx, .edx]), (0x7, 0, [.ebx, .ecx, .edx]), (0x7, 1, [.eax, .ebx, .ecx, .edx]), (0x7, 2, [.edx]),
            (0xD, 0, [.eax, .edx]), (0xD, 1, [.eax, .ecx, .edx]), (0x4000_0001, 0, [.eax]), (0x8000_0001, 0, [.ecx, .edx]),
            (0x8000_0007, 0, [.edx]), (0x8000_0008, 0, [.ebx]), (0x8000_000A, 0, [.edx]),
        ].flatMap { (function: UInt32, index: UInt32, names: [CPUIDRegister.Name]) in names.map { CPUIDRegister(function, index, $0) } }

    /// The first leaf by which the guest of this table would miss something on a host that shows `other`: another maker, a feature
    /// that is not there, a wider state, fewer address bits.
    package func missing(in other: CPUIDTable) -> CPUIDLeaf? {
        for leaf in leaves {
            let match = other.leaves.first { $0.function == leaf.function && $0.index == leaf.index }
            if leaf.function == 0, leaf.ebx != match?.ebx || leaf.ecx != match?.ecx || leaf.edx != match?.edx { return leaf }
            // Offsets of extended state are the processor's own.
            if leaf.function == 0xD, leaf.index > 1, leaf.eax != 0, leaf.eax != match?.eax || leaf.ebx != match?.ebx { return leaf }
            if leaf.function == 0x8000_0008, leaf.eax & 0xFFFF != match.map({ $0.eax & 0xFFFF }) { return leaf }
            let known = Self.features.filter { $0.function == leaf.function && $0.index == leaf.index }
            if known.contains(where: { (self[$0] ?? 0) & ~(other[$0] ?? 0) != 0 }) { return leaf }
        }
        return nil
    }
}
