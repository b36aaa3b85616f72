// A 16550A on the bus: eight ports, one interrupt line, one place its bytes go. Output leaves outside the lock.
//
//     let port = SerialPort(name: "uart@3f8", line: irq4, output: log)
//     ports.attach(port, at: 0x3F8, count: 8)
//
// Input: `receive` takes what fits; the handler given to `onReceiveSpace` runs when a port that refused bytes has room again.
package import MachineCore
import Synchronization

/// Takes what a serial port sends. Called on a vCPU thread; must not block for long.
package protocol SerialOutput: AnyObject, Sendable {
    func write(_ byte: UInt8)
}

package final class SerialPort: BusDevice, SavableDevice {
    package static let stateVersion = UART16550.stateVersion
    package let stateName: String

    private struct Wiring: Sendable {
        var chip = UART16550()
        /// What the line was last driven to.
        var isAsserted = false
        /// `receive` had to refuse bytes since the last time there was room.
        var hasWaitingSender = false
        var receiveSpaceHandler: (@Sendable () -> Void)?
    }
    private let wiring = Mutex(Wiring())
    private let line: any InterruptLine
    private let output: any SerialOutput

    package init(name: String, line: any InterruptLine, output: any SerialOutput) {
        stateName = name
        self.line = line
        self.output = output
    }

    /// Sets who is told, on a vCPU thread and outside the lock, that a receiver that was full has room.
    package func onReceiveSpace(_ handler: (@Sendable () -> Void)?) {
        wiring.withLock { $0.receiveSpaceHandler = handler }
    }

    private func withChip<Result: Sendable>(_ body: (inout UART16550) -> Result) -> Result {
        let (result, handler) = wiring.withLock { wiring -> (Result, (@Sendable () -> Void)?) in
            let result = body(&wiring.chip)
            // A line is a leaf: driving it under the lock keeps its level in step with the chip.
            if wiring.chip.isInterrupting != wiring.isAsserted {
                wiring.isAsserted.toggle()
                if wiring.isAsserted { line.assert() } else { line.deassert() }
            }
            guard wiring.hasWaitingSender, wiring.chip.receiveSpace > 0 else { return (result, nil) }
            wiring.hasWaitingSender = false
            return (result, wiring.receiveSpaceHandler)
        }
        handler?()
        return result
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
        let count = withChip { chip in
            let count = min(bytes.count, chip.receiveSpace)
            for byte in bytes.prefix(count) { chip.receive(byte) }
            return count
        }
        guard count < bytes.count else { return count }
        // A guest that made room in between is asked at once; the sender then tries again.
        wiring.withLock { $0.hasWaitingSender = true }
        withChip { _ in }
        return count
    }

    package func reset() { withChip { $0 = UART16550() } }

    package func saveState(into writer: inout StateWriter) {
        withChip { $0 }.save(into: &writer)
    }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        var copy = UART16550()
        try copy.restore(from: &reader, version: version)
        withChip { [copy] in $0 = copy }
    }
}
