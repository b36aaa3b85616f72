// One vCPU of KVM: the run loop's entry and its typed exits. api.rst §5, "The kvm_run structure".
import CKVM
import Glibc
import GuestMemory
import HostSystem
package import MachineCore
import Synchronization

/// @unchecked: the kvm_run mapping is touched by the thread that runs the vCPU only, except `immediate_exit`, a byte that `kick`
/// sets; the mapping lives as long as this object.
@safe package final class KVMVCPU: VirtualCPU, @unchecked Sendable {
    package let index: Int
    let descriptor: OwnedDescriptor
    let stateMSRs: [UInt32]
    let nestedStateByteCount: Int
    /// What the guest's CPUID instruction answers. For the thread that runs the vCPU.
    private(set) var cpuid: CPUIDTable
    private let run_: UnsafeMutablePointer<kvm_run>
    private let runByteCount: Int
    private let machine: KVMVirtualMachine
    private let threadID = Atomic<Int32>(0)

    /// The last I/O exit, for `portValue` and `supply`.
    private var dataOffset = 0
    private var dataWidth = 1
    private var dataCount = 0

    init(
        owning descriptor: consuming OwnedDescriptor, index: Int, machine: KVMVirtualMachine, runByteCount: Int, cpuid: CPUIDTable,
        stateMSRs: [UInt32], nestedStateByteCount: Int
    ) throws(AcceleratorError) {
        self.index = index
        self.machine = machine
        self.runByteCount = runByteCount
        self.stateMSRs = stateMSRs
        self.nestedStateByteCount = nestedStateByteCount
        self.cpuid = cpuid
        let number = descriptor.rawValue
        let mapped = unsafe mmap(nil, runByteCount, PROT_READ | PROT_WRITE, MAP_SHARED, number, 0)
        guard let mapped = unsafe mapped, unsafe mapped != MAP_FAILED else { throw kvmError("mmap kvm_run of", "vcpu \(index)") }
        // SAFETY: KVM promises a kvm_run at the start of a mapping of the size it named.
        unsafe run_ = mapped.bindMemory(to: kvm_run.self, capacity: 1)
        self.descriptor = descriptor
        let entries = cpuid.entries
        guard unsafe ckvm_set_cpuid(number, entries, CInt(entries.count)) == 0 else { throw kvmError("KVM_SET_CPUID2", "vcpu \(index)") }
        try setInitialState()
    }

    deinit {
        // SAFETY: mapped in init with this size; nobody else holds it.
        unsafe munmap(run_, runByteCount)
    }

    /// LINT0 delivers the PIC's interrupts, LINT1 NMIs (SDM 3A §10.5.1); fast strings on, as firmware leaves them.
    private func setInitialState() throws(AcceleratorError) {
        var lapic = kvm_lapic_state()
        guard unsafe ckvm_get_state(descriptor.rawValue, CInt(CKVM_LAPIC), &lapic) == 0 else { throw kvmError("KVM_GET_LAPIC", "vcpu \(index)") }
        unsafe withUnsafeMutableBytes(of: &lapic) { registers in
            func setDeliveryMode(_ offset: Int, _ mode: UInt32) {
                let old = unsafe registers.loadUnaligned(fromByteOffset: offset, as: UInt32.self)
                unsafe registers.storeBytes(of: old & ~0x1_0700 | mode << 8, toByteOffset: offset, as: UInt32.self)
            }
            setDeliveryMode(0x350, 7)
            setDeliveryMode(0x360, 4)
        }
        guard unsafe ckvm_set_state(descriptor.rawValue, CInt(CKVM_LAPIC), &lapic) == 0 else { throw kvmError("KVM_SET_LAPIC", "vcpu \(index)") }
        var miscEnable = kvm_msr_entry()
        miscEnable.index = 0x1A0
        miscEnable.data = 1
        _ = unsafe ckvm_set_msrs(descriptor.rawValue, &miscEnable, 1)
    }

    /// Shows the guest another processor. Before the vCPU has run: KVM takes none afterwards.
    func setCPUID(_ table: CPUIDTable) throws(AcceleratorError) {
        let entries = table.entries
        guard unsafe ckvm_set_cpuid(descriptor.rawValue, entries, CInt(entries.count)) == 0 else {
            throw kvmError("KVM_SET_CPUID2", "vcpu \(index)", reason: "this vCPU ran already, or the host's KVM does not take the table")
        }
        cpuid = table
    }

    // MARK: Running

    package func run() throws(AcceleratorError) -> VMExit {
        if threadID.load(ordering: .relaxed) == 0 { threadID.store(ckvm_prepare_thread(), ordering: .releasing) }
        guard ckvm_run(descriptor.rawValue) == 0 else {
            switch errno {
            case EINTR, EAGAIN:
                // SAFETY: a byte of the mapping; `kick` may set it again at once, and then the next entry returns too.
                unsafe run_.pointee.immediate_exit = 0
                return .interrupted
            default: throw kvmError("KVM_RUN", "vcpu \(index)")
            }
        }
        return decodeExit()
    }

    private func decodeExit() -> VMExit {
        // SAFETY: KVM wrote the union member that exit_reason names.
        switch unsafe run_.pointee.exit_reason {
        case UInt32(KVM_EXIT_IO):
            let io = unsafe run_.pointee.io
            let width = AccessWidth(rawValue: io.size) ?? .byte
            dataOffset = Int(io.data_offset)
            dataWidth = width.byteCount
            dataCount = Int(io.count)
            let port = io.port
            return unsafe io.direction == UInt8(KVM_EXIT_IO_IN)
                ? .portRead(port: port, width: width, count: dataCount) : .portWrite(port: port, width: width, count: dataCount)
        case UInt32(KVM_EXIT_MMIO):
            let mmio = unsafe run_.pointee.mmio
            let address = GuestAddress(mmio.phys_addr)
            let count = Int(min(mmio.len, 8))
            if mmio.is_write == 0 {
                dataOffset = ckvm_mmio_data_offset()
                dataWidth = count
                dataCount = 1
                return .memoryRead(address: address, byteCount: count)
            }
            var value: UInt64 = 0
            unsafe withUnsafeBytes(of: mmio.data) { bytes in
                for index in 0..<count { value |= unsafe UInt64(bytes[index]) << (UInt64(index) * 8) }
            }
            return .memoryWrite(address: address, byteCount: count, value: value)
        case UInt32(KVM_EXIT_INTR), UInt32(KVM_EXIT_IRQ_WINDOW_OPEN): return .interrupted
        case UInt32(KVM_EXIT_HLT): return .halted
        case UInt32(KVM_EXIT_SHUTDOWN):
            reloadPageTables()
            return .shutdown
        case UInt32(KVM_EXIT_FAIL_ENTRY): return unsafe .failedEntry(reason: run_.pointee.fail_entry.hardware_entry_failure_reason)
        case UInt32(KVM_EXIT_INTERNAL_ERROR):
            let suberror = unsafe run_.pointee.`internal`.suberror
            return .internalError(code: suberror, detail: Self.words(forSuberror: suberror))
        case UInt32(KVM_EXIT_SYSTEM_EVENT): return unsafe .systemEvent(kind: run_.pointee.system_event.type)
        case let reason: return .internalError(code: reason, detail: "an exit this monitor does not know")
        }
    }

    /// kvm-amd clears its control block when it reports a shutdown, and with it the root of the nested page tables; it loads the
    /// root again only where paging was on before. Without this a guest that faulted with paging off (Linux 6.1) would spin on
    /// nested page faults for ever after its reset. A CR4 that changes makes KVM load the root.
    private func reloadPageTables() {
        var special = kvm_sregs()
        guard unsafe ckvm_get_state(descriptor.rawValue, CInt(CKVM_SREGS), &special) == 0 else { return }
        let cr4 = special.cr4
        special.cr4 = cr4 ^ 1 << 5
        _ = unsafe ckvm_set_state(descriptor.rawValue, CInt(CKVM_SREGS), &special)
        special.cr4 = cr4
        _ = unsafe ckvm_set_state(descriptor.rawValue, CInt(CKVM_SREGS), &special)
    }

    private static func words(forSuberror suberror: UInt32) -> String {
        switch CInt(suberror) {
        case KVM_INTERNAL_ERROR_EMULATION: "an instruction that KVM cannot emulate"
        case KVM_INTERNAL_ERROR_SIMUL_EX: "two exceptions at once"
        case KVM_INTERNAL_ERROR_DELIVERY_EV: "a fault while an event was delivered"
        default: "an error inside KVM"
        }
    }

    package func portValue(_ index: Int) -> UInt64 {
        let offset = dataOffset + index * dataWidth
        guard index >= 0, index < dataCount, offset >= 0, offset + dataWidth <= runByteCount else { return 0 }
        var value: UInt64 = 0
        // SAFETY: the range check above keeps the read in the mapping; dataWidth is 1, 2, 4 or 8.
        unsafe memcpy(&value, UnsafeRawPointer(run_) + offset, dataWidth)
        return value
    }

    package func supply(_ value: UInt64, at index: Int) {
        let offset = dataOffset + index * dataWidth
        guard index >= 0, index < dataCount, offset >= 0, offset + dataWidth <= runByteCount else { return }
        var value = value
        // SAFETY: as in `portValue`.
        unsafe memcpy(UnsafeMutableRawPointer(run_) + offset, &value, dataWidth)
    }

    package func kick() {
        // SAFETY: one byte that KVM reads at entry; a torn write is impossible.
        unsafe run_.pointee.immediate_exit = 1
        let thread = threadID.load(ordering: .acquiring)
        if thread != 0 { _ = ckvm_kick_thread(thread) }
    }

    /// Refused where the guest has no paravirtual clock: then there is nobody to tell.
    package func notePause() { _ = ckvm_note_paused(descriptor.rawValue) }

    // MARK: Boot state

    package func setBootRegisters(_ boot: BootRegisters) throws(AcceleratorError) {
        // A processor is made in this state, and a reset brings it back.
        if boot.mode == .reset { return }
        var special = kvm_sregs()
        guard unsafe ckvm_get_state(descriptor.rawValue, CInt(CKVM_SREGS), &special) == 0 else { throw kvmError("KVM_GET_SREGS", "vcpu \(index)") }
        if boot.mode == .real {
            special.cs.base = 0
            special.cs.selector = 0
        } else {
            func segment(selector: UInt16, type: UInt8, long: Bool) -> kvm_segment {
                var segment = kvm_segment()
                segment.limit = 0xFFFF_FFFF
                segment.selector = selector
                segment.type = type
                segment.present = 1
                segment.s = 1
                segment.db = long ? 0 : 1
                segment.l = long ? 1 : 0
                segment.g = 1
                return segment
            }
            // Flat segments: code at 0x10, data at 0x18, as the Linux boot protocol asks (Documentation/x86/boot.rst).
            special.cs = segment(selector: 0x10, type: 0b1011, long: boot.mode == .long64)
            let data = segment(selector: 0x18, type: 0b0011, long: false)
            special.ds = data
            special.es = data
            special.fs = data
            special.gs = data
            special.ss = data
            special.gdt.base = boot.gdtBase
            special.gdt.limit = boot.gdtLimit
            special.cr0 = special.cr0 | 1  // PE
        }
        if boot.mode == .long64 {
            special.cr3 = boot.cr3
            special.cr4 = special.cr4 | 1 << 5  // PAE
            special.cr0 = special.cr0 | 1 << 31  // PG
            special.efer = special.efer | 1 << 8 | 1 << 10  // LME, LMA
        }
        guard unsafe ckvm_set_state(descriptor.rawValue, CInt(CKVM_SREGS), &special) == 0 else { throw kvmError("KVM_SET_SREGS", "vcpu \(index)") }
        var general = kvm_regs()
        general.rflags = 2
        general.rip = boot.rip
        general.rsp = boot.rsp
        general.rax = boot.rax
        general.rbx = boot.rbx
        general.rsi = boot.rsi
        guard unsafe ckvm_set_state(descriptor.rawValue, CInt(CKVM_REGS), &general) == 0 else { throw kvmError("KVM_SET_REGS", "vcpu \(index)") }
    }
}
