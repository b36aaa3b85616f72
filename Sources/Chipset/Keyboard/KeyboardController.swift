// The keyboard controller on the bus: port 0x60 (data), 0x61 (left to the PIT) and 0x64 (command and status).
//
//     let keyboard = KeyboardController(power: driver, line: irq1)
//     ports.attach(keyboard, at: 0x60, count: 5)
//
// Without it leave PNP0303 and the FADT's 8042 flag out too (`ACPIDescription.hasKeyboardController`): a driver that is told of
// a controller which does not answer polls for half a second.
package import MachineCore
import Synchronization

package final class KeyboardController: BusDevice, SavableDevice {
    package static let stateVersion: UInt32 = 1
    package var stateName: String { "i8042" }

    private struct Wiring: Sendable {
        var chip = I8042()
        var isAsserted = false
    }
    private let wiring = Mutex(Wiring())
    private let power: any PowerRequests
    private let line: (any InterruptLine)?

    package init(power: any PowerRequests, line: (any InterruptLine)? = nil) {
        self.power = power
        self.line = line
    }

    private func withChip<Result: Sendable>(_ body: (inout I8042) -> Result) -> Result {
        wiring.withLock { wiring in
            let result = body(&wiring.chip)
            if wiring.chip.isInterrupting != wiring.isAsserted {
                wiring.isAsserted.toggle()
                if wiring.isAsserted { line?.assert() } else { line?.deassert() }
            }
            return result
        }
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        switch offset {
        case 0: UInt64(withChip { $0.readData() })
        case 4: UInt64(withChip { $0.status })
        // Port 0x61 of a board whose PIT is not in the kernel: gate and output of channel 2 at rest.
        case 1: 0
        default: width.allOnes
        }
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        let byte = UInt8(truncatingIfNeeded: value)
        let resets =
            switch offset {
            case 0: withChip { $0.writeData(byte) }
            case 4: withChip { $0.writeCommand(byte) }
            default: false
            }
        if resets { power.guestRequestsReset(by: "i8042") }
    }

    package func reset() { withChip { $0 = I8042() } }

    package func saveState(into writer: inout StateWriter) {
        let chip = withChip { $0 }
        writer.write(chip.commandByte)
        writer.write(chip.outputPort)
        writer.write(chip.wasCommand)
        // A value above 255 stands for nothing pending.
        writer.write(chip.pendingCommand.map(UInt16.init) ?? .max)
        writer.write(chip.output.map(UInt16.init) ?? .max)
        writer.write(chip.hasTimedOut)
    }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        var chip = I8042()
        chip.commandByte = try reader.read(UInt8.self) & 0x77
        chip.outputPort = try reader.read()
        chip.wasCommand = try reader.readBool()
        chip.pendingCommand = UInt8(exactly: try reader.read(UInt16.self))
        chip.output = UInt8(exactly: try reader.read(UInt16.self))
        chip.hasTimedOut = try reader.readBool()
        withChip { [chip] in $0 = chip }
    }
}
