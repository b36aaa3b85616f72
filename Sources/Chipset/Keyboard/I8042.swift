// The i8042 keyboard controller with nothing plugged in and no auxiliary port (IBM PS/2 Hardware Interface, "Keyboard and
// Auxiliary Device Controller"): its self test passes, every command that has an answer gets one at once so that nobody waits
// for a timeout, bytes for the absent keyboard come back as a time-out, 0xFE pulses the reset line.

package struct I8042: Sendable, Equatable {
    package enum Status {
        package static let outputFull: UInt8 = 0x01, systemFlag: UInt8 = 0x04, lastWasCommand: UInt8 = 0x08
        package static let notLocked: UInt8 = 0x10, timeout: UInt8 = 0x40
    }
    package enum CommandByte {
        package static let keyboardInterrupt: UInt8 = 0x01, systemFlag: UInt8 = 0x04
        package static let keyboardDisabled: UInt8 = 0x10, auxiliaryDisabled: UInt8 = 0x20
    }
    /// Output port: bit 0 high means no reset, bit 1 A20.
    private static let outputPortAtPowerOn: UInt8 = 0x03

    package internal(set) var commandByte: UInt8 = CommandByte.keyboardDisabled | CommandByte.auxiliaryDisabled
    package internal(set) var outputPort: UInt8 = outputPortAtPowerOn
    package internal(set) var wasCommand = false
    /// The command whose data byte comes next at port 0x60.
    package internal(set) var pendingCommand: UInt8?
    package internal(set) var output: UInt8?
    package internal(set) var hasTimedOut = false

    package init() {}

    /// IRQ 1: a byte waits and its interrupt is on.
    package var isInterrupting: Bool { output != nil && commandByte & CommandByte.keyboardInterrupt != 0 }

    /// Port 0x64 read.
    package var status: UInt8 {
        var status = Status.notLocked | commandByte & CommandByte.systemFlag
        if output != nil { status |= Status.outputFull }
        if wasCommand { status |= Status.lastWasCommand }
        if hasTimedOut { status |= Status.timeout }
        return status
    }

    private mutating func answer(_ byte: UInt8, timedOut: Bool = false) {
        output = byte
        hasTimedOut = timedOut
    }

    /// Port 0x60 read.
    package mutating func readData() -> UInt8 {
        defer {
            output = nil
            hasTimedOut = false
        }
        return output ?? 0
    }

    /// Port 0x64 write. True where the machine is to be reset.
    package mutating func writeCommand(_ command: UInt8) -> Bool {
        wasCommand = true
        pendingCommand = nil
        switch command {
        case 0x20: answer(commandByte)
        case 0x60, 0xD1, 0xD2, 0xD3, 0xD4: pendingCommand = command
        // The auxiliary port stays disabled; its test fails (4: data line stuck high), the keyboard port's passes.
        case 0xA7, 0xA8: break
        case 0xA9: answer(4)
        case 0xAB: answer(0)
        case 0xAA:
            commandByte |= CommandByte.systemFlag
            answer(0x55)
        case 0xAD: commandByte |= CommandByte.keyboardDisabled
        case 0xAE: commandByte &= ~CommandByte.keyboardDisabled
        case 0xC0: answer(0x80)  // input port: not locked
        case 0xD0: answer(outputPort)
        case 0xDD: outputPort &= ~0x02
        case 0xDF: outputPort |= 0x02
        // 0xF0 to 0xFF pulse the output lines whose bit is 0; line 0 is reset.
        case 0xF0...0xFF: return command & 1 == 0
        default: break
        }
        return false
    }

    /// Port 0x60 write. True where the machine is to be reset.
    package mutating func writeData(_ byte: UInt8) -> Bool {
        wasCommand = false
        defer { pendingCommand = nil }
        switch pendingCommand {
        case 0x60: commandByte = byte & 0x57 | CommandByte.auxiliaryDisabled
        case 0xD1:
            outputPort = byte
            return byte & 1 == 0
        // Both come back as the keyboard's, for there is no auxiliary side.
        case 0xD2, 0xD3: answer(byte)
        // To a device that is not there: 0xFE, resend, with the timeout bit.
        default: answer(0xFE, timedOut: true)
        }
        return false
    }
}
