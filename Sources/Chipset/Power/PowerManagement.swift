// ACPI fixed hardware (ACPI 6.4 §4.8): PM1 event and control, the PM timer, GPE0; and the ways a PC resets itself.
package import MachineCore
import Synchronization

/// What the guest asked of its power supply.
package protocol PowerRequests: AnyObject, Sendable {
    func guestRequestsReset(by way: String)
    func guestRequestsShutdown()
}

/// The PM block: 64 ports from its base.
package final class PowerManagement: BusDevice, SavableDevice {
    package static let stateVersion: UInt32 = 1
    package var stateName: String { "acpi-pm" }
    private static let timerHertz: UInt64 = 3_579_545
    private static let powerButton: UInt16 = 1 << 8

    private struct Registers { var status: UInt16 = 0, enable: UInt16 = 0, control: UInt16 = 1 }
    private let registers = Mutex(Registers())
    private let clock: any MachineClock
    private let sci: any InterruptLine
    private let power: any PowerRequests

    package init(clock: any MachineClock, sci: any InterruptLine, power: any PowerRequests) {
        self.clock = clock
        self.sci = sci
        self.power = power
    }

    private func drive(_ registers: Registers) {
        if registers.status & registers.enable & Self.powerButton != 0 { sci.assert() } else { sci.deassert() }
    }

    /// The power button was pressed.
    package func pressPowerButton() {
        registers.withLock {
            $0.status |= Self.powerButton
            drive($0)
        }
    }

    package func reset() {
        registers.withLock {
            $0 = Registers()
            drive($0)
        }
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        if offset == 8 {
            let (high, low) = clock.nanoseconds.multipliedFullWidth(by: Self.timerHertz)
            return UInt64(1_000_000_000).dividingFullWidth((high % 1_000_000_000, low)).quotient & 0xFF_FFFF
        }
        return registers.withLock { registers in
            let block = UInt64(registers.status) | UInt64(registers.enable) << 16 | UInt64(registers.control) << 32
            return offset < 6 ? block >> (offset * 8) : 0
        }
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        let wantsShutdown = registers.withLock { registers -> Bool in
            for byte in 0..<UInt64(width.byteCount) {
                let part = UInt16(truncatingIfNeeded: value >> (byte * 8) & 0xFF)
                switch offset + byte {
                case 0: registers.status &= ~part
                case 1: registers.status &= ~(part << 8)
                case 2: registers.enable = registers.enable & 0xFF00 | part
                case 3: registers.enable = registers.enable & 0x00FF | part << 8
                case 4: registers.control = registers.control & 0xFF00 | part
                case 5: registers.control = registers.control & 0x00FF | part << 8
                default: break
                }
            }
            drive(registers)
            // SLP_EN with SLP_TYP 0, which \_S5 names.
            let asleep = registers.control & 1 << 13 != 0 && registers.control >> 10 & 7 == 0
            registers.control &= ~(1 << 13)
            return asleep
        }
        if wantsShutdown { power.guestRequestsShutdown() }
    }

    package func saveState(into writer: inout StateWriter) {
        let copy = registers.withLock { $0 }
        writer.write(copy.status)
        writer.write(copy.enable)
        writer.write(copy.control)
    }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        let status = try reader.read(UInt16.self), enable = try reader.read(UInt16.self), control = try reader.read(UInt16.self)
        registers.withLock {
            $0 = Registers(status: status, enable: enable, control: control)
            drive($0)
        }
    }
}

/// A port whose writes can reset the machine: i8042 command 0xFE at 0x64, port 0x92 bit 0, the reset control register 0xCF9.
package final class ResetPort: BusDevice {
    package enum Kind: String, Sendable { case keyboardController = "i8042", systemControl = "port 0x92", resetControl = "0xCF9" }
    private let kind: Kind
    private let power: any PowerRequests

    package init(_ kind: Kind, power: any PowerRequests) {
        self.kind = kind
        self.power = power
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        // i8042: nothing in either buffer, no keyboard. Port 0x92: A20 is on.
        switch kind {
        case .keyboardController: 0
        case .systemControl: 2
        case .resetControl: 0
        }
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        let resets =
            switch kind {
            case .keyboardController: offset == 4 && value == 0xFE
            case .systemControl: value & 1 != 0
            case .resetControl: value & 4 != 0
            }
        if resets { power.guestRequestsReset(by: kind.rawValue) }
    }
}
