// The one GSI routing table of a machine: fixed ISA routes to PIC and IOAPIC, then one entry per message interrupt.
// KVM replaces the whole table at each change (api.rst, KVM_SET_GSI_ROUTING).
import CKVM
import HostSystem
import MachineCore
import Synchronization

final class InterruptRouting: Sendable {
    /// The IOAPIC's pins come first; message interrupts are numbered from here.
    static let firstMessageGSI: UInt32 = 24

    private let vm: CInt
    private let limit: Int
    private let messages = Mutex<[UInt32: InterruptMessage]>([:])
    private struct Numbers { var next = firstMessageGSI; var free: [UInt32] = [] }
    private let numbers = Mutex(Numbers())

    /// - Parameter vm: stays its owner's and open as long as this object.
    init(vm: CInt) throws(AcceleratorError) {
        self.vm = vm
        limit = Int(max(ckvm_check_extension(vm, KVM_CAP_IRQ_ROUTING), 1024))
        try install([:])
    }

    func allocate() throws(AcceleratorError) -> UInt32 {
        let gsi = numbers.withLock { numbers -> UInt32? in
            if let free = numbers.free.popLast() { return free }
            // The fixed routes take 39 places of the table.
            guard Int(numbers.next) < limit - 39 else { return nil }
            defer { numbers.next += 1 }
            return numbers.next
        }
        guard let gsi else {
            throw AcceleratorError("allocate", subject: "message interrupt", reason: "all \(limit) routes are in use")
        }
        return gsi
    }

    /// Gives a number back with its route.
    func release(_ gsi: UInt32) {
        // A route that stays is harmless: its irqfd is gone.
        try? set(nil, gsi: gsi)
        numbers.withLock { $0.free.append(gsi) }
    }

    func set(_ message: InterruptMessage?, gsi: UInt32) throws(AcceleratorError) {
        let failure = messages.withLock { (table) -> AcceleratorError? in
            guard table[gsi] != message else { return nil }
            table[gsi] = message
            do throws(AcceleratorError) {
                try install(table)
                return nil
            } catch {
                return error
            }
        }
        if let failure { throw failure }
    }

    private func install(_ table: [UInt32: InterruptMessage]) throws(AcceleratorError) {
        var entries: [kvm_irq_routing_entry] = []
        func pin(gsi: UInt32, chip: UInt32, pin: UInt32) {
            var entry = kvm_irq_routing_entry()
            entry.gsi = gsi
            entry.type = UInt32(KVM_IRQ_ROUTING_IRQCHIP)
            unsafe entry.u.irqchip.irqchip = chip
            unsafe entry.u.irqchip.pin = pin
            entries.append(entry)
        }
        for gsi in UInt32(0)..<16 where gsi != 2 {
            pin(gsi: gsi, chip: gsi < 8 ? UInt32(KVM_IRQCHIP_PIC_MASTER) : UInt32(KVM_IRQCHIP_PIC_SLAVE), pin: gsi & 7)
        }
        // ISA IRQ 0 is wired to IOAPIC pin 2, as the MADT's override says.
        pin(gsi: 0, chip: UInt32(KVM_IRQCHIP_IOAPIC), pin: 2)
        for gsi in UInt32(1)..<24 where gsi != 2 { pin(gsi: gsi, chip: UInt32(KVM_IRQCHIP_IOAPIC), pin: gsi) }
        for (gsi, message) in table {
            var entry = kvm_irq_routing_entry()
            entry.gsi = gsi
            entry.type = UInt32(KVM_IRQ_ROUTING_MSI)
            unsafe entry.u.msi.address_lo = UInt32(truncatingIfNeeded: message.address)
            unsafe entry.u.msi.address_hi = UInt32(truncatingIfNeeded: message.address >> 32)
            unsafe entry.u.msi.data = message.data
            entries.append(entry)
        }
        // SAFETY: the shim copies `count` entries and keeps no pointer.
        guard unsafe ckvm_set_routing(vm, entries, UInt32(entries.count)) == 0 else {
            throw kvmError("KVM_SET_GSI_ROUTING", "\(entries.count) routes")
        }
    }
}

/// A message interrupt: an eventfd that KVM turns into the message without leaving the kernel.
final class KVMMessageInterrupt: MessageInterrupt {
    private let event: EventDescriptor
    private let gsi: UInt32
    private let vm: CInt
    private let routing: InterruptRouting
    private let isBound = Mutex(false)
    /// Keeps the machine's descriptor open as long as an interrupt may use it.
    private let owner: KVMVirtualMachine

    init(owner: KVMVirtualMachine, vm: CInt, routing: InterruptRouting) throws(AcceleratorError) {
        do {
            event = try EventDescriptor()
        } catch {
            throw AcceleratorError("make", subject: "message interrupt", errno: error.errno, reason: "\(error)")
        }
        gsi = try routing.allocate()
        self.vm = vm
        self.routing = routing
        self.owner = owner
    }

    deinit {
        if isBound.withLock({ $0 }) { _ = ckvm_irqfd(vm, event.rawValue, gsi, UInt32(KVM_IRQFD_FLAG_DEASSIGN)) }
        routing.release(gsi)
    }

    var eventDescriptor: CInt? { event.rawValue }

    func setMessage(_ message: InterruptMessage?) throws(AcceleratorError) {
        try routing.set(message, gsi: gsi)
        let wanted = message != nil
        let failure = isBound.withLock { bound -> AcceleratorError? in
            guard bound != wanted else { return nil }
            let flags = wanted ? 0 : UInt32(KVM_IRQFD_FLAG_DEASSIGN)
            guard ckvm_irqfd(vm, event.rawValue, gsi, flags) == 0 else { return kvmError("KVM_IRQFD", "gsi \(gsi)") }
            bound = wanted
            return nil
        }
        if let failure { throw failure }
    }

    func trigger() {
        event.signal()
    }
}
