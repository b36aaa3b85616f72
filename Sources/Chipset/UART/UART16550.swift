// The registers of a 16550A (National Semiconductor PC16550D data sheet §8). No bus, no lock, no backend: bytes that leave are
// returned, bytes that arrive are put in, the interrupt is a property.
//
// The line has no speed: a byte written has left at once, and four character times have always passed, so bytes below the
// FIFO's trigger level show as the timeout interrupt without a timer.

package struct UART16550: Sendable, Equatable {
    package enum InterruptEnable {
        package static let receivedData: UInt8 = 1
        package static let transmitterEmpty: UInt8 = 2
        package static let lineStatus: UInt8 = 4
        package static let modemStatus: UInt8 = 8
    }
    /// IIR bits 0 to 3, highest priority first (table II).
    package enum InterruptIdentification {
        package static let lineStatus: UInt8 = 0x06
        package static let receivedData: UInt8 = 0x04
        package static let characterTimeout: UInt8 = 0x0C
        package static let transmitterEmpty: UInt8 = 0x02
        package static let modemStatus: UInt8 = 0x00
        package static let none: UInt8 = 0x01
        package static let fifosEnabled: UInt8 = 0xC0
    }
    package enum LineStatus {
        package static let dataReady: UInt8 = 0x01
        package static let overrun: UInt8 = 0x02
        package static let transmitterHoldingEmpty: UInt8 = 0x20
        package static let transmitterEmpty: UInt8 = 0x40
    }
    package enum ModemControl {
        package static let dataTerminalReady: UInt8 = 0x01
        package static let requestToSend: UInt8 = 0x02
        package static let out1: UInt8 = 0x04
        package static let out2: UInt8 = 0x08
        package static let loopback: UInt8 = 0x10
    }
    /// MSR bits 4 to 7; bits 0 to 3 say which of them changed.
    package enum ModemStatus {
        package static let clearToSend: UInt8 = 0x10
        package static let dataSetReady: UInt8 = 0x20
        package static let ringIndicator: UInt8 = 0x40
        package static let carrierDetect: UInt8 = 0x80
    }
    package static let fifoByteCount = 16

    package internal(set) var interruptEnable: UInt8 = 0
    package internal(set) var fifoControl: UInt8 = 0
    package internal(set) var lineControl: UInt8 = 0
    package internal(set) var modemControl: UInt8 = 0
    package internal(set) var modemChanges: UInt8 = 0
    package internal(set) var scratch: UInt8 = 0
    package internal(set) var divisor: UInt16 = 12
    package internal(set) var received: [UInt8] = []
    package internal(set) var hasOverrun = false
    package internal(set) var transmitterEmptyPending = false

    package init() {}

    private var usesFIFO: Bool { fifoControl & 1 != 0 }
    private var isDivisorLatched: Bool { lineControl & 0x80 != 0 }
    private var isLoopback: Bool { modemControl & ModemControl.loopback != 0 }

    /// How many bytes can still arrive.
    package var receiveSpace: Int { max((usesFIFO ? Self.fifoByteCount : 1) - received.count, 0) }

    /// The level of the interrupt output. OUT2 gates it on a PC.
    package var isInterrupting: Bool { identification & 1 == 0 && modemControl & ModemControl.out2 != 0 }

    /// Bytes that make a received-data interrupt of a timeout one.
    private var triggerLevel: Int {
        guard usesFIFO else { return 1 }
        return switch fifoControl >> 6 {
        case 0: 1
        case 1: 4
        case 2: 8
        default: 14
        }
    }

    private var identification: UInt8 {
        typealias ID = InterruptIdentification
        let fifo = usesFIFO ? ID.fifosEnabled : 0
        if interruptEnable & InterruptEnable.lineStatus != 0, hasOverrun { return fifo | ID.lineStatus }
        if interruptEnable & InterruptEnable.receivedData != 0, !received.isEmpty {
            return fifo | (received.count >= triggerLevel ? ID.receivedData : ID.characterTimeout)
        }
        if interruptEnable & InterruptEnable.transmitterEmpty != 0, transmitterEmptyPending {
            return fifo | ID.transmitterEmpty
        }
        if interruptEnable & InterruptEnable.modemStatus != 0, modemChanges != 0 { return fifo | ID.modemStatus }
        return fifo | ID.none
    }

    /// MSR bits 4 to 7. In loopback the outputs come back as inputs; else a terminal is there: CTS, DSR, DCD.
    private var modemInputs: UInt8 {
        guard isLoopback else {
            return ModemStatus.clearToSend | ModemStatus.dataSetReady | ModemStatus.carrierDetect
        }
        var inputs: UInt8 = 0
        if modemControl & ModemControl.requestToSend != 0 { inputs |= ModemStatus.clearToSend }
        if modemControl & ModemControl.dataTerminalReady != 0 { inputs |= ModemStatus.dataSetReady }
        if modemControl & ModemControl.out1 != 0 { inputs |= ModemStatus.ringIndicator }
        if modemControl & ModemControl.out2 != 0 { inputs |= ModemStatus.carrierDetect }
        return inputs
    }

    package mutating func read(_ register: UInt8) -> UInt8 {
        switch register & 7 {
        case 0:
            if isDivisorLatched { return UInt8(truncatingIfNeeded: divisor) }
            return received.isEmpty ? 0 : received.removeFirst()
        case 1: return isDivisorLatched ? UInt8(truncatingIfNeeded: divisor >> 8) : interruptEnable
        case 2:
            let value = identification
            // Reading the identification acknowledges an empty transmitter, and nothing else.
            if value & 0x0F == InterruptIdentification.transmitterEmpty { transmitterEmptyPending = false }
            return value
        case 3: return lineControl
        case 4: return modemControl
        case 5:
            let overrun = hasOverrun ? LineStatus.overrun : 0
            hasOverrun = false
            return LineStatus.transmitterHoldingEmpty | LineStatus.transmitterEmpty | overrun
                | (received.isEmpty ? 0 : LineStatus.dataReady)
        case 6:
            defer { modemChanges = 0 }
            return modemInputs | modemChanges
        default: return scratch
        }
    }

    /// The byte that leaves on the line, if this write sends one.
    package mutating func write(_ register: UInt8, _ value: UInt8) -> UInt8? {
        switch register & 7 {
        case 0:
            if isDivisorLatched {
                divisor = divisor & 0xFF00 | UInt16(value)
                return nil
            }
            transmitterEmptyPending = true
            if isLoopback {
                receive(value)
                return nil
            }
            return value
        case 1:
            if isDivisorLatched {
                divisor = divisor & 0x00FF | UInt16(value) << 8
                return nil
            }
            // Enabling the transmitter interrupt while it is empty raises it at once.
            if value & ~interruptEnable & InterruptEnable.transmitterEmpty != 0 { transmitterEmptyPending = true }
            interruptEnable = value & 0x0F
        case 2:
            // Switching the FIFOs on or off empties them; without bit 0 the other bits are not programmed.
            if (value ^ fifoControl) & 1 != 0 || value & 3 == 3 { received.removeAll(keepingCapacity: true) }
            fifoControl = value & 1 != 0 ? value & 0xC9 : 0
        case 3: lineControl = value
        case 4: setModemControl(value & 0x1F)
        case 5, 6: break
        default: scratch = value
        }
        return nil
    }

    private mutating func setModemControl(_ value: UInt8) {
        let before = modemInputs
        modemControl = value
        let changed = before ^ modemInputs
        // The ring indicator counts at its trailing edge only.
        let trailing = changed & before & ModemStatus.ringIndicator
        modemChanges |= (changed & ~ModemStatus.ringIndicator | trailing) >> 4
    }

    /// A byte arrives; one too many sets the overrun bit and is lost.
    package mutating func receive(_ byte: UInt8) {
        guard receiveSpace > 0 else {
            hasOverrun = true
            return
        }
        received.append(byte)
    }
}
