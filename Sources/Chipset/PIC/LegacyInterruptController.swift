// The 8259A pair on the bus, for a machine whose accelerator has none: ports 0x20-0x21, 0xA0-0xA1 and 0x4D0-0x4D1.
//
//     let controller = LegacyInterruptController { isHigh in processors[0].setINTR(isHigh) }
//     for (port, device) in controller.ports { ports.attach(device, at: port, count: 2) }
//     let irq4 = controller.line(4)
//
// INTR's handler runs under the lock, in the order of the changes: it is a leaf that notes the level and wakes the
// processor.
package import MachineCore
import Synchronization

package final class LegacyInterruptController: SavableDevice, Sendable {
    package static let stateVersion = I8259Pair.stateVersion
    package var stateName: String { "pic" }

    private let chips = Mutex(I8259Pair())
    private let interruptRequest: @Sendable (Bool) -> Void

    package init(interruptRequest: @escaping @Sendable (Bool) -> Void) { self.interruptRequest = interruptRequest }

    /// What to attach where, two ports each.
    package var ports: [(first: UInt16, device: any BusDevice)] {
        [UInt16(0x20), 0xA0, 0x4D0].map { ($0, Ports(self, first: $0)) }
    }

    /// The line of ISA interrupt `number`, 0 to 15.
    package func line(_ number: UInt8) -> any InterruptLine { Line(self, number: number) }

    /// The processor's acknowledge cycle: the vector to enter.
    package func acknowledge() -> UInt8 {
        chips.withLock { chips in
            let (vector, level) = chips.acknowledge()
            if let level { interruptRequest(level) }
            return vector
        }
    }

    fileprivate func set(_ number: UInt8, isHigh: Bool) {
        chips.withLock { chips in
            if let level = chips.setInput(number, isHigh: isHigh) { interruptRequest(level) }
        }
    }

    fileprivate func read(_ port: UInt16) -> UInt64? {
        guard let port = I8259Pair.Port(rawValue: port) else { return nil }
        return chips.withLock { chips in
            let (value, level) = chips.read(port)
            if let level { interruptRequest(level) }
            return UInt64(value)
        }
    }

    fileprivate func write(_ port: UInt16, _ value: UInt8) {
        guard let port = I8259Pair.Port(rawValue: port) else { return }
        chips.withLock { chips in
            if let level = chips.write(port, value) { interruptRequest(level) }
        }
    }

    private func replace(_ body: (inout I8259Pair) -> Void) {
        chips.withLock { chips in
            let before = chips.isInterrupting
            body(&chips)
            if chips.isInterrupting != before { interruptRequest(chips.isInterrupting) }
        }
    }

    package func reset() { replace { $0 = I8259Pair() } }

    package func saveState(into writer: inout StateWriter) { chips.withLock { $0 }.save(into: &writer) }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        var copy = I8259Pair()
        try copy.restore(from: &reader, version: version)
        replace { [copy] in $0 = copy }
    }

    private final class Ports: BusDevice {
        private let controller: LegacyInterruptController
        private let first: UInt16

        init(_ controller: LegacyInterruptController, first: UInt16) {
            self.controller = controller
            self.first = first
        }

        func read(offset: UInt64, width: AccessWidth) -> UInt64 {
            guard width != .word else {
                // A word of two registers, as the ELCR is written by some firmware.
                let low = read(offset: offset, width: .byte), high = read(offset: offset &+ 1, width: .byte)
                return low | high << 8
            }
            return controller.read(first &+ UInt16(truncatingIfNeeded: offset)) ?? width.allOnes
        }

        func write(offset: UInt64, width: AccessWidth, value: UInt64) {
            controller.write(first &+ UInt16(truncatingIfNeeded: offset), UInt8(truncatingIfNeeded: value))
            if width == .word { write(offset: offset &+ 1, width: .byte, value: value >> 8) }
        }
    }

    private final class Line: InterruptLine {
        private let controller: LegacyInterruptController
        private let number: UInt8

        init(_ controller: LegacyInterruptController, number: UInt8) {
            self.controller = controller
            self.number = number
        }

        func assert() { controller.set(number, isHigh: true) }
        func deassert() { controller.set(number, isHigh: false) }
    }
}
