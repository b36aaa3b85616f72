// How a device interrupts: a level line, or a message.

/// A level-triggered interrupt input of the machine. A leaf: may be driven while a device lock is held.
package protocol InterruptLine: AnyObject, Sendable {
    func assert()
    func deassert()
}

extension InterruptLine {
    /// A rising and a falling edge, for edge-triggered ISA interrupts.
    package func pulse() {
        assert()
        deassert()
    }
}

/// A message-signalled interrupt's content, as the guest programmed it (PCI 3.0 §6.8.1).
package struct InterruptMessage: Sendable, Equatable, BitwiseCopyable {
    package var address: UInt64
    package var data: UInt32

    package init(address: UInt64, data: UInt32) {
        self.address = address
        self.data = data
    }
}

/// One MSI or MSI-X vector, backed by the accelerator (KVM: an eventfd with an irqfd and a routing entry).
package protocol MessageInterrupt: AnyObject, Sendable {
    /// Sets where the message goes, or masks it with nil. Called when the guest writes the vector's table entry.
    func setMessage(_ message: InterruptMessage?) throws(AcceleratorError)
    /// Sends the message. Any thread; cheap; safe under a lock. While masked it is dropped (the owner keeps the pending bit).
    func trigger()
    /// An eventfd that triggers the vector when written, for vhost; nil where the accelerator has none.
    var eventDescriptor: CInt? { get }
}
