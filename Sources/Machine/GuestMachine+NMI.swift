// A non-maskable interrupt from outside, as the button on a server's front gives it: Nova's trigger_crash_dump.
import MachineCore
import Synchronization

/// Made by the first NMI: most machines never get one.
package struct NMIButton: Sendable {
    private var message: (any MessageInterrupt)?

    /// To every local APIC: destination 0xFF in physical mode, delivery mode 100b (Intel SDM volume 3, "Message Address Register
    /// Format" and "Message Data Register Format").
    static let broadcast = InterruptMessage(address: 0xFEEF_F000, data: 0x400)

    mutating func press(on machine: any VirtualMachine) throws(AcceleratorError) {
        if message == nil {
            let new = try machine.makeMessageInterrupt()
            try new.setMessage(Self.broadcast)
            message = new
        }
        message?.trigger()
    }
}

extension GuestMachine {
    package func injectNMI() throws { try nmiButton.withLock { try $0.press(on: machine) } }
}
