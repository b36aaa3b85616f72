// The accelerator boundary: what the machine asks of the thing that runs guest instructions. KVM implements it; a
// software processor will be a second. No KVM type appears above this file.
package import GuestMemory

/// The accelerator refused or failed.
package struct AcceleratorError: Error, Sendable, CustomStringConvertible {
    package enum Fault: String, Sendable { case guest, host, caller }
    /// What was being done, for example "KVM_SET_USER_MEMORY_REGION".
    package let operation: String
    package let subject: String
    /// errno of the host, 0 where there is none.
    package let errno: CInt
    package let fault: Fault
    package let reason: String

    package init(_ operation: String, subject: String, errno: CInt = 0, fault: Fault = .host, reason: String) {
        self.operation = operation
        self.subject = subject
        self.errno = errno
        self.fault = fault
        self.reason = reason
    }

    package var description: String { "\(operation) \(subject): \(reason) (\(fault.rawValue))" }
}

/// Where a doorbell is: a guest write there signals an eventfd and never leaves the kernel.
package enum DoorbellAddress: Sendable, Hashable {
    case memory(GuestAddress)
    case port(UInt16)
}

/// Registers doorbells (KVM: ioeventfd).
package protocol DoorbellRegistrar: AnyObject, Sendable {
    /// Signals `eventDescriptor` on each guest write at `address`. `width` nil: any width (virtio notify).
    func register(eventDescriptor: CInt, at address: DoorbellAddress, width: AccessWidth?) throws(AcceleratorError)
    func unregister(eventDescriptor: CInt, at address: DoorbellAddress, width: AccessWidth?) throws(AcceleratorError)
}

/// Makes message interrupts.
package protocol MessageInterruptFactory: AnyObject, Sendable {
    func makeMessageInterrupt() throws(AcceleratorError) -> any MessageInterrupt
}

/// Why a vCPU came back.
package enum VMExit: Sendable, Equatable {
    /// `count` accesses of `width` at one port (rep ins): the data goes back through `VirtualCPU.supply`.
    case portRead(port: UInt16, width: AccessWidth, count: Int)
    /// `count` accesses of `width` at one port (rep outs): the data is at `VirtualCPU.portValue(_:)`.
    case portWrite(port: UInt16, width: AccessWidth, count: Int)
    case memoryRead(address: GuestAddress, byteCount: Int)
    case memoryWrite(address: GuestAddress, byteCount: Int, value: UInt64)
    /// Kicked, or a signal: look at the run state again.
    case interrupted
    /// HLT with no in-kernel APIC, or every vCPU of the accelerator idle.
    case halted
    /// Triple fault or the guest's shutdown cycle.
    case shutdown
    /// The accelerator could not go on: emulation failure and the like. The guest's state, not ours.
    case internalError(code: UInt32, detail: String)
    /// Entry failed on invalid guest state.
    case failedEntry(reason: UInt64)
    /// The kernel asked for a reset or power-off by a hypercall.
    case systemEvent(kind: UInt32)
}

/// General registers to start a boot processor with.
package struct BootRegisters: Sendable, Equatable {
    /// `reset`: as the processor comes out of reset, at 0xFFFFFFF0; nothing else here counts.
    package enum Mode: Sendable { case reset, real, protected32, long64 }
    package var mode: Mode
    package var rip: UInt64
    package var rsp: UInt64
    package var rax: UInt64
    package var rbx: UInt64
    package var rsi: UInt64
    /// Page table root (long64 only).
    package var cr3: UInt64
    /// GDT base and limit the loader wrote into guest memory (protected32 and long64).
    package var gdtBase: UInt64
    package var gdtLimit: UInt16

    package init(
        mode: Mode, rip: UInt64 = 0, rsp: UInt64 = 0, rax: UInt64 = 0, rbx: UInt64 = 0, rsi: UInt64 = 0, cr3: UInt64 = 0, gdtBase: UInt64 = 0,
        gdtLimit: UInt16 = 0
    ) {
        self.mode = mode
        self.rip = rip
        self.rsp = rsp
        self.rax = rax
        self.rbx = rbx
        self.rsi = rsi
        self.cr3 = cr3
        self.gdtBase = gdtBase
        self.gdtLimit = gdtLimit
    }
}

/// Why a processor's state is put back.
package enum RestoreOccasion: Sendable {
    /// What this processor was made with: a register that does not take its first value again does not matter.
    case reset
    /// What another processor held: all of it, or a refusal in words.
    case savedState
}

/// One virtual processor. All members but `kick` are for the thread that runs it.
package protocol VirtualCPU: AnyObject, Sendable {
    var index: Int { get }
    /// Runs guest code until an exit that this process must handle. A read exit must be answered by `supply` first.
    func run() throws(AcceleratorError) -> VMExit
    /// Element `index` of the last port write's data.
    func portValue(_ index: Int) -> UInt64
    /// Answers element `index` of the last read exit (port or memory).
    func supply(_ value: UInt64, at index: Int)
    /// Makes a running or about-to-run `run()` return `.interrupted`. Any thread.
    func kick()
    /// Sets the state a boot processor starts in.
    func setBootRegisters(_ registers: BootRegisters) throws(AcceleratorError)
    /// The guest was stopped for a while and goes on: its watchdogs are told. Before the processor runs again.
    func notePause()
    /// Everything the processor holds, for saved state: opaque, versioned by the accelerator.
    func saveState() throws(AcceleratorError) -> [UInt8]
    func restoreState(_ state: [UInt8], at occasion: RestoreOccasion) throws(AcceleratorError)
}

/// One virtual machine of an accelerator, with in-kernel (or equivalent) PIC, IOAPIC, local APICs and PIT.
package protocol VirtualMachine: DoorbellRegistrar, MessageInterruptFactory {
    /// Gives the guest its RAM. Once, before the first vCPU.
    func map(_ memory: GuestMemory) throws(AcceleratorError)
    /// Shows `pages` to the guest at `base` beside its RAM. Writes of the guest go there, or come back as exits where it is read-only.
    /// Any time. `window` (0-7) names the place for `unmapWindow`, and replaces what it showed.
    func mapWindow(_ window: Int, _ pages: HostPages, at base: GuestAddress, isReadOnly: Bool) throws(AcceleratorError)
    /// From here on accesses come back as exits.
    func unmapWindow(_ window: Int) throws(AcceleratorError)
    /// Which processor the vCPUs are that are made from here on. Without it: all that the host has.
    func show(_ model: ProcessorModel) throws(AcceleratorError)
    /// Makes vCPU `index` of a guest with `topology.count` vCPUs in all.
    func makeVCPU(index: Int, topology: ProcessorTopology) throws(AcceleratorError) -> any VirtualCPU
    /// The level of global system interrupt `gsi` (0-23).
    func setLine(gsi: UInt32, isAsserted: Bool)
    /// Whether the PIT's interrupt reaches input 0: not while an HPET stands in for it. A leaf.
    func setTimerInterrupt(isConnected: Bool) throws(AcceleratorError)
    /// Stops the guest's paravirtual clock, with no processor running; `startClock` goes on from there.
    func stopClock() throws(AcceleratorError)
    func startClock() throws(AcceleratorError)
    /// State of the interrupt controllers, timer and clock, for saved state.
    func saveState() throws(AcceleratorError) -> [UInt8]
    func restoreState(_ state: [UInt8]) throws(AcceleratorError)
}
