// A 16550A on the bus: eight ports, one interrupt line, one place its bytes go. Output leaves outside the lock.
package import MachineCore
import Synchronization

/// Takes what a serial port sends. Called on a vCPU thread; must not block for long.
package protocol SerialOutput: AnyObject, Sendable {
    func write(_ byte: UInt8)
}

package final class SerialPort: BusDevice, SavableDevice {
    package static let stateVersion: UInt32 = 1
    package let stateName: String
    private let chip = Mutex(UART16550())
    private let line: any InterruptLine
    private let output: any SerialOutput

    package init(name: String, line: any InterruptLine, output: any SerialOutput) {
        stateName = name
        self.line = line
        self.output = output
    }

    private func withChip<Result: Sendable>(_ body: (inout sending UART16550) -> sending Result) -> Result {
        chip.withLock { chip in
            let before = chip.isInterrupting
            let result = body(&chip)
            // A line is a leaf: driving it under the lock keeps its level in step with the chip.
            if chip.isInterrupting != before { if before { line.deassert() } else { line.assert() } }
            return result
        }
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard width == .byte else { return width.allOnes }
        return UInt64(withChip { $0.read(UInt8(truncatingIfNeeded: offset)) })
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard width == .byte else { return }
        let sent = withChip { $0.write(UInt8(truncatingIfNeeded: offset), UInt8(truncatingIfNeeded: value)) }
        if let sent { output.write(sent) }
    }

    /// Puts as many bytes into the receiver as it takes; the answer is how many.
    package func receive(_ bytes: [UInt8]) -> Int {
        withChip { chip in
            let count = min(bytes.count, max(chip.receiveSpace, 0))
            for byte in bytes.prefix(count) { chip.receive(byte) }
            return count
        }
    }

    package func reset() { withChip { $0 = UART16550() } }

    package func saveState(into writer: inout StateWriter) {
        let copy = withChip { $0 }
        copy.save(into: &writer)
    }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        var copy = UART16550()
        try copy.restore(from: &reader)
        withChip { [copy] in $0 = copy }
    }
}
