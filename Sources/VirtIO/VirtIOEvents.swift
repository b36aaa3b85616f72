// What a device tells its driver, whatever thread it is on: used buffers, changed configuration, a need for reset.
package import HostSystem
import MachineCore
import PCI
import Synchronization

/// The interrupt side of one virtio function. Leaf: takes no lock of the transport.
package final class VirtIOEvents: Sendable {
    static let noVector: UInt16 = 0xFFFF

    let msix: MSIXInterrupts
    private let line: (any InterruptLine)?
    /// Bit 0: a used buffer, bit 1: configuration (virtio 1.2 §4.1.4.5).
    private let isr = Mutex<UInt8>(0)
    private let usesMessages = Atomic<Bool>(false)
    private let configurationVector = Atomic<UInt16>(VirtIOEvents.noVector)
    private let isBroken = Atomic<Bool>(false)
    private let generationCount = Atomic<UInt8>(0)
    private let faultCount = Atomic<UInt64>(0)
    private let lastFaultText = Mutex<String>("")

    init(msix: MSIXInterrupts, line: (any InterruptLine)?) {
        self.msix = msix
        self.line = line
    }

    /// The device's configuration changed: new generation, and an interrupt.
    package func configurationChanged() {
        generationCount.wrappingAdd(1, ordering: .releasing)
        interrupt(vector: configurationVector.load(ordering: .relaxed), isrBit: 2)
    }

    /// The driver broke a rule: the device stops until it is reset. Counted.
    package func guestFault(_ reason: QueueFault) {
        fail("\(reason)")
    }

    /// The host broke under the device.
    package func hostFault(_ reason: HostError) {
        fail("\(reason)")
    }

    private func fail(_ text: String) {
        faultCount.wrappingAdd(1, ordering: .relaxed)
        lastFaultText.withLock { $0 = text }
        isBroken.store(true, ordering: .releasing)
        configurationChanged()
    }

    /// Faults since the process started, and the last one in words.
    package var faults: (count: UInt64, last: String) {
        (faultCount.load(ordering: .relaxed), lastFaultText.withLock { $0 })
    }

    var needsReset: Bool { isBroken.load(ordering: .acquiring) }
    var generation: UInt8 { generationCount.load(ordering: .acquiring) }

    func setUsesMessages(_ value: Bool) { usesMessages.store(value, ordering: .releasing) }
    func setConfigurationVector(_ vector: UInt16) { configurationVector.store(vector, ordering: .releasing) }

    func interrupt(vector: UInt16, isrBit: UInt8) {
        if usesMessages.load(ordering: .acquiring) {
            if vector != Self.noVector { msix.trigger(Int(vector)) }
            return
        }
        isr.withLock { isr in
            isr |= isrBit
            line?.assert()
        }
    }

    /// Reading the ISR register takes it and lowers the line.
    func takeISR() -> UInt8 {
        isr.withLock { isr in
            defer { isr = 0 }
            line?.deassert()
            return isr
        }
    }

    func reset() {
        isBroken.store(false, ordering: .releasing)
        configurationVector.store(Self.noVector, ordering: .releasing)
        _ = takeISR()
    }

    func restore(isr value: UInt8, generation: UInt8, isBroken broken: Bool) {
        generationCount.store(generation, ordering: .releasing)
        isBroken.store(broken, ordering: .releasing)
        isr.withLock { isr in
            isr = value
            if value != 0 { line?.assert() }
        }
    }

    var savedISR: UInt8 { isr.withLock { $0 } }
}

/// One queue's doorbell and interrupt, for as long as the function lives.
package final class QueueLink: Sendable {
    package let index: Int
    package let events: VirtIOEvents
    private let kick: EventDescriptor
    private let vector = Atomic<UInt16>(VirtIOEvents.noVector)

    init(index: Int, events: VirtIOEvents) throws(HostError) {
        self.index = index
        self.events = events
        kick = try EventDescriptor()
    }

    /// The eventfd the driver's notification signals.
    package var kickDescriptor: CInt { kick.rawValue }
    /// Rings the doorbell from inside: work is left, or may be.
    package func signal() { kick.signal() }
    package func drain() { kick.drain() }

    /// Tells the driver about used buffers.
    package func interrupt() {
        events.interrupt(vector: vector.load(ordering: .acquiring), isrBit: 1)
    }

    /// An eventfd that interrupts for this queue without us (vhost), where messages are in use.
    package var callDescriptor: CInt? {
        let number = vector.load(ordering: .acquiring)
        return number == VirtIOEvents.noVector ? nil : events.msix.directDescriptor(Int(number))
    }

    func setVector(_ value: UInt16) { vector.store(value, ordering: .releasing) }
}
