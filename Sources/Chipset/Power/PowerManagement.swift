// ACPI fixed hardware (ACPI 6.4 §4.8) at 64 ports: PM1 event and control at 0, the PM timer at 8, GPE0 at 0x20. There
// is no firmware to run in legacy mode, so the machine starts in ACPI mode (SCI_EN); `SMICommandPort` switches it as an
// OS asks.
//
//     let pm = PowerManagement(clock: hostClock, sci: gsi9, power: driver)
//     ports.attach(pm, at: MemoryMap.pmBase, count: 0x40)
//     ports.attach(SMICommandPort(pm), at: 0xB2, count: 2)
package import MachineCore
import Synchronization

/// What the guest asked of its power supply.
package protocol PowerRequests: AnyObject, Sendable {
    func guestRequestsReset(by way: String)
    func guestRequestsShutdown()
}

package final class PowerManagement: BusDevice, SavableDevice {
    package static let stateVersion: UInt32 = 2
    package var stateName: String { "acpi-pm" }

    /// PM1_STS and PM1_EN (table 4.15, 4.16).
    private enum Event {
        static let timer: UInt16 = 1 << 0, global: UInt16 = 1 << 5, powerButton: UInt16 = 1 << 8
        static let sleepButton: UInt16 = 1 << 9, clock: UInt16 = 1 << 10, wake: UInt16 = 1 << 15
        static let enables = timer | global | powerButton | sleepButton | clock
    }
    /// PM1_CNT (table 4.17).
    private enum Control {
        static let sciEnable: UInt16 = 1 << 0, busMasterReload: UInt16 = 1 << 1
        static let sleepType: UInt16 = 7 << 10, sleepEnable: UInt16 = 1 << 13
    }
    private enum Offset {
        static let status: UInt64 = 0, enable: UInt64 = 2, control: UInt64 = 4, timer: UInt64 = 8
        static let generalStatus: UInt64 = 0x20, generalEnable: UInt64 = 0x28, end: UInt64 = 0x40
    }
    private static let timerHertz: UInt64 = 3_579_545
    /// The SLP_TYP that the DSDT's \_S5 names.
    private static let softOff: UInt16 = 0

    private struct Registers: Sendable {
        var status: UInt16 = 0, enable: UInt16 = 0, control = Control.sciEnable
        var generalStatus: UInt64 = 0, generalEnable: UInt64 = 0
        /// Turns of the timer's top bit that TMR_STS has told of.
        var timerHalfTurns: UInt64 = 0
        var isAsserted = false

        var isInterrupting: Bool {
            control & Control.sciEnable != 0
                && (status & enable & Event.enables != 0 || generalStatus & generalEnable != 0)
        }
    }
    private let registers: Mutex<Registers>
    private let clock: any MachineClock
    private let sci: any InterruptLine
    private let power: any PowerRequests
    private let timer: (any DeadlineTimer)?

    /// - Parameter timer: makes the interrupt of the PM timer's top bit; no current guest enables it.
    package init(
        clock: any MachineClock, sci: any InterruptLine, power: any PowerRequests, timer: (any DeadlineTimer)? = nil
    ) {
        self.clock = clock
        self.sci = sci
        self.power = power
        self.timer = timer
        registers = Mutex(Registers())
        registers.withLock { $0.timerHalfTurns = Self.ticks(clock) >> 23 }
        timer?.onExpiry { [weak self] in self?.update { _ in } }
    }

    /// Ticks of the PM timer since the clock's zero.
    private static func ticks(_ clock: any MachineClock) -> UInt64 {
        let (seconds, part) = clock.nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        return seconds &* timerHertz &+ part * timerHertz / 1_000_000_000
    }

    /// Changes registers and drives the SCI, which is a leaf, to match.
    private func update<Result: Sendable>(_ body: (inout Registers) -> Result) -> Result {
        registers.withLock { registers in
            let halfTurns = Self.ticks(clock) >> 23
            if halfTurns != registers.timerHalfTurns {
                registers.timerHalfTurns = halfTurns
                registers.status |= Event.timer
            }
            let result = body(&registers)
            if registers.isInterrupting != registers.isAsserted {
                registers.isAsserted.toggle()
                if registers.isAsserted { sci.assert() } else { sci.deassert() }
            }
            if let timer, registers.enable & Event.timer != 0 {
                let next = (registers.timerHalfTurns &+ 1) << 23
                timer.set(to: registers.status & Event.timer != 0 ? nil : Self.nanoseconds(ofTick: next))
            }
            return result
        }
    }

    /// The first nanosecond at which the timer has reached `tick`.
    private static func nanoseconds(ofTick tick: UInt64) -> UInt64 {
        let (seconds, part) = tick.quotientAndRemainder(dividingBy: timerHertz)
        return seconds &* 1_000_000_000 &+ (part * 1_000_000_000 + timerHertz - 1) / timerHertz
    }

    // MARK: The machine's side

    /// The power button was pressed: a guest with ACPI shuts down in order.
    package func pressPowerButton() { update { $0.status |= Event.powerButton } }

    /// General-purpose event `number` (0 to 63) happened; a method _Exx or _Lxx in the DSDT answers it.
    package func raiseGeneralPurposeEvent(_ number: Int) {
        guard (0..<64).contains(number) else { return }
        update { $0.generalStatus |= 1 << UInt64(number) }
    }

    /// ACPI or legacy mode, as SMI_CMD asks.
    package func setACPIMode(_ isOn: Bool) {
        update { $0.control = isOn ? $0.control | Control.sciEnable : $0.control & ~Control.sciEnable }
    }

    package func reset() {
        update {
            $0 = Registers(timerHalfTurns: $0.timerHalfTurns, isAsserted: $0.isAsserted)
        }
    }

    // MARK: The guest's side

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        // The whole counter in one snapshot, at the width the specification asks for; it needs no lock.
        if offset == Offset.timer { return Self.ticks(clock) & 0xFF_FFFF }
        let registers = update { $0 }
        var value: UInt64 = 0
        for index in 0..<UInt64(width.byteCount) {
            value |= UInt64(Self.byte(at: offset &+ index, of: registers)) << (index * 8)
        }
        return value
    }

    private static func byte(at offset: UInt64, of registers: Registers) -> UInt8 {
        let (block, base): (UInt64, UInt64) =
            switch offset {
            case Offset.status..<Offset.enable: (UInt64(registers.status), Offset.status)
            case Offset.enable..<Offset.control: (UInt64(registers.enable), Offset.enable)
            case Offset.control..<(Offset.control + 2): (UInt64(registers.control), Offset.control)
            case Offset.generalStatus..<Offset.generalEnable: (registers.generalStatus, Offset.generalStatus)
            case Offset.generalEnable..<(Offset.generalEnable + 8): (registers.generalEnable, Offset.generalEnable)
            case ..<Offset.end: (0, offset)
            default: (.max, offset)
            }
        return UInt8(truncatingIfNeeded: block >> ((offset - base) * 8))
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        let wantsShutdown = update { registers -> Bool in
            for index in 0..<UInt64(width.byteCount) {
                Self.store(UInt8(truncatingIfNeeded: value >> (index * 8)), at: offset &+ index, in: &registers)
            }
            let sleeps = registers.control & Control.sleepEnable != 0
            registers.control &= ~Control.sleepEnable
            return sleeps && (registers.control & Control.sleepType) >> 10 == Self.softOff
        }
        if wantsShutdown { power.guestRequestsShutdown() }
    }

    private static func store(_ byte: UInt8, at offset: UInt64, in registers: inout Registers) {
        func replaced(_ register: UInt16, _ shift: UInt64, writable: UInt16) -> UInt16 {
            let mask = writable & 0xFF << shift
            return register & ~mask | UInt16(byte) << shift & mask
        }
        let shift = (offset & 1) * 8
        switch offset {
        case Offset.status..<Offset.enable: registers.status &= ~(UInt16(byte) << shift)
        case Offset.enable..<Offset.control:
            registers.enable = replaced(registers.enable, shift, writable: Event.enables)
        case Offset.control..<(Offset.control + 2):
            // SCI_EN is the platform's to change; GBL_RLS is write-only.
            let writable = Control.busMasterReload | Control.sleepType | Control.sleepEnable
            registers.control = replaced(registers.control, shift, writable: writable)
        case Offset.generalStatus..<Offset.generalEnable:
            registers.generalStatus &= ~(UInt64(byte) << ((offset - Offset.generalStatus) * 8))
        case Offset.generalEnable..<(Offset.generalEnable + 8):
            let place = (offset - Offset.generalEnable) * 8
            registers.generalEnable = registers.generalEnable & ~(0xFF << place) | UInt64(byte) << place
        default: break
        }
    }

    // MARK: Saved state. Version 2 adds GPE0.

    package func saveState(into writer: inout StateWriter) {
        let copy = update { $0 }
        writer.write(copy.status)
        writer.write(copy.enable)
        writer.write(copy.control)
        writer.write(copy.generalStatus)
        writer.write(copy.generalEnable)
    }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        let status: UInt16 = try reader.read(), enable: UInt16 = try reader.read(), control: UInt16 = try reader.read()
        let generalStatus: UInt64 = version >= 2 ? try reader.read() : 0
        let generalEnable: UInt64 = version >= 2 ? try reader.read() : 0
        update {
            $0.status = status
            $0.enable = enable & Event.enables
            $0.control = control & (Control.sciEnable | Control.busMasterReload | Control.sleepType)
            $0.generalStatus = generalStatus
            $0.generalEnable = generalEnable
        }
    }
}
