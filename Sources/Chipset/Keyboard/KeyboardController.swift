// The keyboard controller on the bus: port 0x60 (data), 0x61 (left to the PIT) and 0x64 (command and status); its
// keyboard and mouse as a console drives them.
//
//     let keyboard = KeyboardController(power: driver, line: irq1, auxiliaryLine: irq12, hasKeyboardAndMouse: true)
//     ports.attach(keyboard, at: 0x60, count: 5)
//     keyboard.press(.enter); keyboard.release(.enter)
//
// Without devices a guest finds a controller with nothing behind it, which spares it half a second of probing. Without
// the controller leave PNP0303 and the FADT's 8042 flag out too (`ACPIDescription.hasKeyboardController`): a driver
// that is told of a controller which does not answer polls for as long.
package import MachineCore
import Synchronization

package final class KeyboardController: BusDevice, SavableDevice {
    package static let stateVersion = I8042.stateVersion
    package var stateName: String { "i8042" }

    private struct Wiring: Sendable {
        var chip: I8042
        var isAsserted = false, isAuxiliaryAsserted = false
    }
    private let wiring: Mutex<Wiring>
    private let power: any PowerRequests
    private let line: (any InterruptLine)?
    private let auxiliaryLine: (any InterruptLine)?
    private let hasKeyboardAndMouse: Bool

    /// `line` is IRQ 1, `auxiliaryLine` IRQ 12.
    package init(
        power: any PowerRequests, line: (any InterruptLine)? = nil, auxiliaryLine: (any InterruptLine)? = nil,
        hasKeyboardAndMouse: Bool = false
    ) {
        self.power = power
        self.line = line
        self.auxiliaryLine = auxiliaryLine
        self.hasKeyboardAndMouse = hasKeyboardAndMouse
        wiring = Mutex(Wiring(chip: I8042(hasKeyboardAndMouse: hasKeyboardAndMouse)))
    }

    private func withChip<Result: Sendable>(_ body: (inout I8042) -> Result) -> Result {
        wiring.withLock { wiring in
            let result = body(&wiring.chip)
            // First for the register as it was left, then for the next byte in it: each byte is an edge of its own.
            drive(&wiring)
            wiring.chip.loadOutput()
            drive(&wiring)
            return result
        }
    }

    private func drive(_ wiring: inout Wiring) {
        if wiring.chip.isInterrupting != wiring.isAsserted {
            wiring.isAsserted.toggle()
            if wiring.isAsserted { line?.assert() } else { line?.deassert() }
        }
        if wiring.chip.isAuxiliaryInterrupting != wiring.isAuxiliaryAsserted {
            wiring.isAuxiliaryAsserted.toggle()
            if wiring.isAuxiliaryAsserted { auxiliaryLine?.assert() } else { auxiliaryLine?.deassert() }
        }
    }

    // MARK: The user's side. Any thread.

    /// A key goes down, or repeats. False where it is lost: no keyboard, the guest does not listen, or it has not read
    /// 12 bytes before.
    @discardableResult
    package func press(_ key: KeyCode) -> Bool { withChip { $0.keyboard?.press(key) ?? false } }

    /// A key goes up.
    package func release(_ key: KeyCode) { withChip { $0.keyboard?.release(key) } }

    /// The mouse moves by `dx` counts to the right, `dy` down and `wheel` notches away from the user; `buttons` are
    /// down afterwards.
    package func move(dx: Int, dy: Int, wheel: Int = 0, buttons: MouseButtons) {
        withChip { $0.mouse?.move(dx: dx, dy: dy, wheel: wheel, buttons: buttons) }
    }

    /// Bit 0 scroll lock, bit 1 num lock, bit 2 caps lock, as the guest lit them; nil without a keyboard.
    package var indicators: UInt8? { wiring.withLock { $0.chip.keyboard?.indicators } }

    // MARK: The guest's side

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

    package func reset() { withChip { $0 = I8042(hasKeyboardAndMouse: hasKeyboardAndMouse) } }

    package func saveState(into writer: inout StateWriter) {
        withChip { $0 }.save(into: &writer)
    }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        var chip = I8042(hasKeyboardAndMouse: hasKeyboardAndMouse)
        try chip.restore(from: &reader, version: version)
        withChip { [chip] in $0 = chip }
    }
}
