// The /dev/kvm handle: what this host can do, and the making of machines. Documentation/virt/kvm/api.rst §4.
import CKVM
import Glibc
package import HostSystem
package import MachineCore

/// Turns a failed ioctl into the error of the accelerator's boundary.
func kvmError(_ operation: String, _ subject: String, reason: String = "") -> AcceleratorError {
    let number = errno
    return AcceleratorError(
        operation, subject: subject, errno: number, reason: reason.isEmpty ? errorName(number) : "\(reason): \(errorName(number))")
}

/// The host's KVM.
package final class KVMSystem: Sendable {
    let descriptor: OwnedDescriptor
    let supportedCPUID: CPUIDTable
    let stateMSRs: [UInt32]
    /// Bytes that KVM keeps at most for a guest that is a hypervisor itself; 0: it keeps none.
    let nestedStateByteCount: Int

    /// Takes over an open `/dev/kvm`.
    package init(owning descriptor: consuming OwnedDescriptor) throws(AcceleratorError) {
        let number = descriptor.rawValue
        let version = ckvm_api_version(number)
        guard version == KVM_API_VERSION else {
            throw kvmError("KVM_GET_API_VERSION", "/dev/kvm", reason: "version \(version), \(KVM_API_VERSION) needed")
        }
        for (capability, name) in [
            (KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"), (KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"), (KVM_CAP_IRQFD, "KVM_CAP_IRQFD"),
            (KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"), (KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"), (KVM_CAP_PIT2, "KVM_CAP_PIT2"),
        ] where ckvm_check_extension(number, capability) <= 0 {
            throw AcceleratorError("KVM_CHECK_EXTENSION", subject: name, reason: "this host's KVM does not have it; Linux 4.11 or later is needed")
        }
        // Before any vCPU can be kicked: the signal's default action would end the process.
        guard ckvm_install_kick_handler() == 0 else { throw kvmError("sigaction for", "the kick signal") }
        supportedCPUID = try CPUIDTable(supportedBy: number)
        stateMSRs = try Self.msrNumbers(number)
        nestedStateByteCount = Int(min(max(ckvm_check_extension(number, KVM_CAP_NESTED_STATE), 0), 1 << 16))
        self.descriptor = descriptor
    }

    /// Opens the device file, for hand use; a service hands the descriptor over.
    package static func open(path: String = "/dev/kvm") throws(AcceleratorError) -> KVMSystem {
        let number = unsafe Glibc.open(path, O_RDWR | O_CLOEXEC)
        guard number >= 0 else {
            throw kvmError("open", path, reason: "no KVM for this process; is the module loaded and may this user use it?")
        }
        return try KVMSystem(owning: OwnedDescriptor(owning: number))
    }

    private static func msrNumbers(_ kvm: CInt) throws(AcceleratorError) -> [UInt32] {
        var numbers = [UInt32](repeating: 0, count: 1024)
        // SAFETY: the shim writes at most `count` numbers.
        let count = unsafe ckvm_msr_list(kvm, &numbers, CInt(numbers.count))
        guard count >= 0 else { throw kvmError("KVM_GET_MSR_INDEX_LIST", "/dev/kvm") }
        return Array(numbers[..<min(Int(count), numbers.count)])
    }

    /// Makes a machine with in-kernel PIC, IOAPIC, local APICs and PIT.
    package func makeVirtualMachine() throws(AcceleratorError) -> KVMVirtualMachine {
        try KVMVirtualMachine(system: self)
    }
}
