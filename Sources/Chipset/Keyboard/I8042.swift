// The i8042 keyboard controller (IBM PS/2 Hardware Interface, "Keyboard and Auxiliary Device Controller"), with a
// keyboard and a mouse behind it or with nothing plugged in and no auxiliary port. Its self test passes, every command
// that has an answer gets one at once so that nobody waits for a timeout, bytes for an absent device come back as a
// time-out, 0xFE pulses the reset line.
//
// One byte at a time lies in the output register, with its source; the next one follows when `loadOutput` is called
// after the interrupt lines were driven for the empty register, because both interrupts are edges.

package struct I8042: Sendable, Equatable {
    package enum Status {
        package static let outputFull: UInt8 = 0x01, systemFlag: UInt8 = 0x04, lastWasCommand: UInt8 = 0x08
        package static let notLocked: UInt8 = 0x10, auxiliaryData: UInt8 = 0x20, timeout: UInt8 = 0x40
    }
    package enum CommandByte {
        package static let keyboardInterrupt: UInt8 = 0x01, auxiliaryInterrupt: UInt8 = 0x02, systemFlag: UInt8 = 0x04
        package static let keyboardDisabled: UInt8 = 0x10, auxiliaryDisabled: UInt8 = 0x20, translate: UInt8 = 0x40
        static let writable: UInt8 = 0x77
        /// Without an auxiliary port its clock stays off.
        static let writableAlone: UInt8 = 0x57
    }
    package enum Command {
        package static let readCommandByte: UInt8 = 0x20, writeCommandByte: UInt8 = 0x60
        package static let disableAuxiliary: UInt8 = 0xA7, enableAuxiliary: UInt8 = 0xA8, testAuxiliary: UInt8 = 0xA9
        package static let selfTest: UInt8 = 0xAA, testKeyboard: UInt8 = 0xAB
        package static let disableKeyboard: UInt8 = 0xAD, enableKeyboard: UInt8 = 0xAE, readInputPort: UInt8 = 0xC0
        package static let readOutputPort: UInt8 = 0xD0, writeOutputPort: UInt8 = 0xD1
        package static let writeKeyboardOutput: UInt8 = 0xD2, writeAuxiliaryOutput: UInt8 = 0xD3
        package static let writeAuxiliary: UInt8 = 0xD4, disableA20: UInt8 = 0xDD, enableA20: UInt8 = 0xDF
    }
    /// Where a byte in the output register is from: status bit 5 and the interrupt follow it.
    package enum Source: UInt8, Sendable { case controller, keyboard, auxiliary }
    struct Output: Sendable, Equatable {
        var byte: UInt8
        var source: Source
        var hasTimedOut = false
    }
    /// Output port: bit 0 high means no reset, bit 1 A20; bits 4 and 5 are the interrupts.
    private static let outputPortAtPowerOn: UInt8 = 0x03
    /// Input port: the keyboard is not locked.
    private static let inputPort: UInt8 = 0x80

    package internal(set) var commandByte: UInt8 = CommandByte.keyboardDisabled | CommandByte.auxiliaryDisabled
    package internal(set) var outputPort: UInt8 = outputPortAtPowerOn
    package internal(set) var wasCommand = false
    /// The command whose data byte comes next at port 0x60.
    package internal(set) var pendingCommand: UInt8?
    var output: Output?
    /// The controller's own answer, which waits while a device's byte is in the register.
    var reply: Output?
    var translator = ScanCodeTranslator()
    package internal(set) var keyboard: PS2Keyboard?
    package internal(set) var mouse: PS2Mouse?

    /// Without devices there is no auxiliary port either.
    package init(hasKeyboardAndMouse: Bool = false) {
        if hasKeyboardAndMouse {
            keyboard = PS2Keyboard()
            mouse = PS2Mouse()
        }
    }

    private var hasAuxiliaryPort: Bool { mouse != nil }

    /// IRQ 1: a byte of the keyboard or the controller waits and its interrupt is on.
    package var isInterrupting: Bool {
        guard let output, output.source != .auxiliary else { return false }
        return commandByte & CommandByte.keyboardInterrupt != 0
    }

    /// IRQ 12: a byte of the mouse waits and its interrupt is on.
    package var isAuxiliaryInterrupting: Bool {
        output?.source == .auxiliary && commandByte & CommandByte.auxiliaryInterrupt != 0
    }

    /// Port 0x64 read.
    package var status: UInt8 {
        var status = Status.notLocked | commandByte & CommandByte.systemFlag
        if let output {
            status |= Status.outputFull
            if output.source == .auxiliary { status |= Status.auxiliaryData }
            if output.hasTimedOut { status |= Status.timeout }
        }
        if wasCommand { status |= Status.lastWasCommand }
        return status
    }

    private mutating func answer(_ byte: UInt8, as source: Source = .controller, timedOut: Bool = false) {
        reply = Output(byte: byte, source: source, hasTimedOut: timedOut)
    }

    /// Fills an empty output register: with the controller's answer, else a byte of a device that is enabled.
    package mutating func loadOutput() {
        guard output == nil else { return }
        if let reply {
            output = reply
            self.reply = nil
            return
        }
        if commandByte & CommandByte.keyboardDisabled == 0 {
            while let byte = keyboard?.next() {
                guard commandByte & CommandByte.translate != 0 else {
                    output = Output(byte: byte, source: .keyboard)
                    return
                }
                if let translated = translator.translate(byte) {
                    output = Output(byte: translated, source: .keyboard)
                    return
                }
            }
        }
        if commandByte & CommandByte.auxiliaryDisabled == 0, let byte = mouse?.next() {
            output = Output(byte: byte, source: .auxiliary)
        }
    }

    /// Port 0x60 read.
    package mutating func readData() -> UInt8 {
        defer { output = nil }
        return output?.byte ?? 0
    }

    /// Port 0x64 write. True where the machine is to be reset.
    package mutating func writeCommand(_ command: UInt8) -> Bool {
        wasCommand = true
        pendingCommand = nil
        switch command {
        case Command.readCommandByte: answer(commandByte)
        case Command.writeCommandByte, Command.writeOutputPort, Command.writeKeyboardOutput,
            Command.writeAuxiliaryOutput,
            Command.writeAuxiliary:
            pendingCommand = command
        case Command.disableAuxiliary: commandByte |= CommandByte.auxiliaryDisabled
        case Command.enableAuxiliary where hasAuxiliaryPort: commandByte &= ~CommandByte.auxiliaryDisabled
        // 4: the data line is stuck high.
        case Command.testAuxiliary: answer(hasAuxiliaryPort ? 0 : 4)
        case Command.testKeyboard: answer(0)
        case Command.selfTest:
            commandByte |= CommandByte.systemFlag
            answer(0x55)
        case Command.disableKeyboard: commandByte |= CommandByte.keyboardDisabled
        case Command.enableKeyboard: commandByte &= ~CommandByte.keyboardDisabled
        case Command.readInputPort: answer(Self.inputPort)
        case Command.readOutputPort:
            answer(outputPort & 0xCF | (isInterrupting ? 0x10 : 0) | (isAuxiliaryInterrupting ? 0x20 : 0))
        case Command.disableA20: outputPort &= ~0x02
        case Command.enableA20: outputPort |= 0x02
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
        case Command.writeCommandByte:
            commandByte =
                hasAuxiliaryPort
                ? byte & CommandByte.writable : byte & CommandByte.writableAlone | CommandByte.auxiliaryDisabled
        case Command.writeOutputPort:
            outputPort = byte
            return byte & 1 == 0
        // Come back as if a device had sent them; without an auxiliary side as the keyboard's.
        case Command.writeKeyboardOutput: answer(byte, as: .keyboard)
        case Command.writeAuxiliaryOutput: answer(byte, as: hasAuxiliaryPort ? .auxiliary : .keyboard)
        case Command.writeAuxiliary:
            guard mouse != nil else { return timeOut() }
            commandByte &= ~CommandByte.auxiliaryDisabled
            mouse?.receive(byte)
        default:
            guard keyboard != nil else { return timeOut() }
            // A byte for a device enables its clock, or the answer could not come.
            commandByte &= ~CommandByte.keyboardDisabled
            keyboard?.receive(byte)
        }
        return false
    }

    /// To a device that is not there: 0xFE, resend, with the timeout bit.
    private mutating func timeOut() -> Bool {
        answer(0xFE, timedOut: true)
        return false
    }
}
