// One virtual machine of KVM: memory slots, interrupt controllers in the kernel, doorbells, vCPUs.
import CKVM
import Glibc
package import GuestMemory
import HostSystem
package import MachineCore
import Synchronization

package final class KVMVirtualMachine: VirtualMachine {
    /// Where KVM keeps a TSS and an identity map on Intel hosts without unrestricted guests: 16 KiB below the BIOS area, reserved
    /// in the guest's memory map.
    static let identityMapAddress: UInt64 = 0xFEFF_C000
    static let tssAddress: UInt64 = 0xFEFF_D000

    let descriptor: OwnedDescriptor
    private let system: KVMSystem
    private let routing: InterruptRouting
    private let runByteCount: Int
    private let memory = Mutex<GuestMemory?>(nil)
    /// What the guest's clock stood at, while it is stopped.
    private let stoppedClock = Mutex<UInt64?>(nil)
    /// CPUID before the topology is written over it; nil: the host's.
    private let shownCPUID = Mutex<CPUIDTable?>(nil)
    private let enlightenments = Mutex<Set<Enlightenment>>([])

    init(system: KVMSystem) throws(AcceleratorError) {
        let number = ckvm_create_vm(system.descriptor.rawValue)
        guard number >= 0 else { throw kvmError("KVM_CREATE_VM", "/dev/kvm") }
        descriptor = OwnedDescriptor(owning: number)
        _ = fcntl(number, F_SETFD, FD_CLOEXEC)
        guard ckvm_set_identity_map_addr(number, Self.identityMapAddress) == 0 else {
            throw kvmError("KVM_SET_IDENTITY_MAP_ADDR", "virtual machine")
        }
        guard ckvm_set_tss_addr(number, UInt(Self.tssAddress)) == 0 else { throw kvmError("KVM_SET_TSS_ADDR", "virtual machine") }
        guard ckvm_create_irqchip(number) == 0 else { throw kvmError("KVM_CREATE_IRQCHIP", "virtual machine") }
        // The dummy speaker keeps port 0x61 in the kernel, where TSC calibration reads it in a loop.
        guard ckvm_create_pit2(number, UInt32(KVM_PIT_SPEAKER_DUMMY)) == 0 else { throw kvmError("KVM_CREATE_PIT2", "virtual machine") }
        let size = ckvm_vcpu_mmap_size(system.descriptor.rawValue)
        guard Int(size) >= MemoryLayout<kvm_run>.size else { throw kvmError("KVM_GET_VCPU_MMAP_SIZE", "\(size)") }
        runByteCount = Int(size)
        routing = try InterruptRouting(vm: number)
        self.system = system
    }

    package func map(_ memory: GuestMemory) throws(AcceleratorError) {
        for (slot, region) in memory.regions.enumerated() {
            // SAFETY: the region lies in the mapping, which this object keeps alive below.
            let host = unsafe UInt64(UInt(bitPattern: memory.hostAddress(of: region)))
            guard ckvm_set_memory(descriptor.rawValue, UInt32(slot), 0, region.base.rawValue, region.byteCount, host) == 0 else {
                throw kvmError("KVM_SET_USER_MEMORY_REGION", "\(region.byteCount) bytes at \(region.base)")
            }
        }
        self.memory.withLock { $0 = memory }
    }

    /// Slots of RAM come first.
    private static let firstWindowSlot: UInt32 = 16
    private let windows = Mutex<[Int: HostPages]>([:])

    package func mapWindow(_ window: Int, _ pages: HostPages, at base: GuestAddress, isReadOnly: Bool) throws(AcceleratorError) {
        guard (0..<8).contains(window) else {
            throw AcceleratorError("map", subject: "window \(window)", fault: .caller, reason: "there are eight")
        }
        try unmapWindow(window)
        // SAFETY: `windows` keeps the pages alive as long as the slot shows them.
        let host = unsafe UInt64(UInt(bitPattern: pages.hostAddress))
        let slot = Self.firstWindowSlot + UInt32(window), flags = isReadOnly ? UInt32(KVM_MEM_READONLY) : 0
        guard ckvm_set_memory(descriptor.rawValue, slot, flags, base.rawValue, UInt64(pages.byteCount), host) == 0 else {
            throw kvmError("KVM_SET_USER_MEMORY_REGION", "\(pages.byteCount) bytes of firmware at \(base)")
        }
        windows.withLock { $0[window] = pages }
    }

    package func unmapWindow(_ window: Int) throws(AcceleratorError) {
        guard windows.withLock({ $0[window] }) != nil else { return }
        guard ckvm_set_memory(descriptor.rawValue, Self.firstWindowSlot + UInt32(window), 0, 0, 0, 0) == 0 else {
            throw kvmError("KVM_SET_USER_MEMORY_REGION", "window \(window)")
        }
        windows.withLock { $0[window] = nil }
    }

    package func show(_ model: ProcessorModel) throws(AcceleratorError) {
        let table = try system.supportedCPUID.showing(model)
        shownCPUID.withLock { $0 = table }
        enlightenments.withLock { $0 = model.enlightenments }
    }

    package func makeVCPU(index: Int, topology: ProcessorTopology) throws(AcceleratorError) -> any VirtualCPU {
        let apicID = topology.apicID(of: index)
        let number = ckvm_create_vcpu(descriptor.rawValue, CInt(apicID))
        guard number >= 0 else { throw kvmError("KVM_CREATE_VCPU", "vcpu \(index)") }
        // Its messages and timers are the kernel's, who wants to know before the processor's description comes.
        if enlightenments.withLock({ $0.contains(.synic) }), ckvm_enable_capability(number, UInt32(KVM_CAP_HYPERV_SYNIC2)) != 0 {
            let error = kvmError("KVM_ENABLE_CAP KVM_CAP_HYPERV_SYNIC2", "vcpu \(index)")
            close(number)
            throw error
        }
        return try KVMVCPU(
            owning: OwnedDescriptor(owning: number), index: index, machine: self, runByteCount: runByteCount,
            cpuid: (shownCPUID.withLock { $0 } ?? system.supportedCPUID).adjusted(forVCPU: index, topology: topology), stateMSRs: system.stateMSRs,
            nestedStateByteCount: system.nestedStateByteCount)
    }

    package func setLine(gsi: UInt32, isAsserted: Bool) {
        _ = ckvm_irq_line(descriptor.rawValue, gsi, isAsserted ? 1 : 0)
    }

    /// The channel's count begins anew, as on hardware whose gate opens.
    package func setTimerInterrupt(isConnected: Bool) throws(AcceleratorError) {
        var pit = kvm_pit_state2()
        guard unsafe ckvm_get_pit2(descriptor.rawValue, &pit) == 0 else { throw kvmError("KVM_GET_PIT2", "virtual machine") }
        pit.flags = isConnected ? pit.flags & ~UInt32(KVM_PIT_FLAGS_HPET_LEGACY) : pit.flags | UInt32(KVM_PIT_FLAGS_HPET_LEGACY)
        guard unsafe ckvm_set_pit2(descriptor.rawValue, &pit) == 0 else { throw kvmError("KVM_SET_PIT2", "virtual machine") }
    }

    package func stopClock() throws(AcceleratorError) {
        let now = try clockNanoseconds()
        stoppedClock.withLock { $0 = $0 ?? now }
    }

    package func startClock() throws(AcceleratorError) {
        guard let value = stoppedClock.withLock({ $0.take() }) else { return }
        try setClock(value)
    }

    /// Sets the clock, and where it is stopped what it goes on from.
    func setClock(_ nanoseconds: UInt64) throws(AcceleratorError) {
        stoppedClock.withLock { if $0 != nil { $0 = nanoseconds } }
        var clock = kvm_clock_data()
        clock.clock = nanoseconds
        guard unsafe ckvm_set_clock(descriptor.rawValue, &clock) == 0 else { throw kvmError("KVM_SET_CLOCK", "virtual machine") }
    }

    /// What the guest's clock shows, or will go on from.
    func clockNanoseconds() throws(AcceleratorError) -> UInt64 {
        if let value = stoppedClock.withLock({ $0 }) { return value }
        var clock = kvm_clock_data()
        guard unsafe ckvm_get_clock(descriptor.rawValue, &clock) == 0 else { throw kvmError("KVM_GET_CLOCK", "virtual machine") }
        return clock.clock
    }

    package func makeMessageInterrupt() throws(AcceleratorError) -> any MessageInterrupt {
        try KVMMessageInterrupt(owner: self, vm: descriptor.rawValue, routing: routing)
    }

    package func register(eventDescriptor: CInt, at address: DoorbellAddress, width: AccessWidth?) throws(AcceleratorError) {
        try doorbell(eventDescriptor, address, width, flags: 0)
    }

    package func unregister(eventDescriptor: CInt, at address: DoorbellAddress, width: AccessWidth?) throws(AcceleratorError) {
        try doorbell(eventDescriptor, address, width, flags: 1 << UInt32(kvm_ioeventfd_flag_nr_deassign))
    }

    private func doorbell(_ event: CInt, _ address: DoorbellAddress, _ width: AccessWidth?, flags: UInt32) throws(AcceleratorError) {
        let length = width.map { UInt32($0.byteCount) } ?? 0
        let result =
            switch address {
            case .memory(let guest): ckvm_ioeventfd(descriptor.rawValue, event, guest.rawValue, length, flags)
            case .port(let port): ckvm_ioeventfd(descriptor.rawValue, event, UInt64(port), length, flags | 1 << UInt32(kvm_ioeventfd_flag_nr_pio))
            }
        guard result == 0 else { throw kvmError("KVM_IOEVENTFD", "\(address)") }
    }
}
