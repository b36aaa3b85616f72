// The registers of a 16550A (National Semiconductor PC16550D data sheet §8). No bus, no lock, no backend: bytes that leave are
// returned, bytes that arrive are put in, the interrupt is a property.

package struct UART16550: Sendable, Equatable {
    package enum InterruptEnable {
        package static let receivedData: UInt8 = 1
        package static let transmitterEmpty: UInt8 = 2
        package static let lineStatus: UInt8 = 4
    }
    package enum LineStatus {
        package static let dataReady: UInt8 = 0x01
        package static let overrun: UInt8 = 0x02
        package static let transmitterHoldingEmpty: UInt8 = 0x20
        package static let transmitterEmpty: UInt8 = 0x40
    }
    package static let fifoByteCount = 16

    package internal(set) var interruptEnable: UInt8 = 0
    package internal(set) var fifoControl: UInt8 = 0
    package internal(set) var lineControl: UInt8 = 0
    package internal(set) var modemControl: UInt8 = 0
    package internal(set) var scratch: UInt8 = 0
    package internal(set) var divisor: UInt16 = 12
    package internal(set) var received: [UInt8] = []
    package internal(set) var hasOverrun = false
    package internal(set) var transmitterEmptyPending = false

    package init() {}

    private var usesFIFO: Bool { fifoControl & 1 != 0 }
    private var isDivisorLatched: Bool { lineControl & 0x80 != 0 }
    private var isLoopback: Bool { modemControl & 0x10 != 0 }

    /// How many bytes can still arrive.
    package var receiveSpace: Int { (usesFIFO ? Self.fifoByteCount : 1) - received.count }

    /// The level of the interrupt output. OUT2 gates it on a PC.
    package var isInterrupting: Bool { identification & 1 == 0 && modemControl & 0x08 != 0 }

    /// IIR: highest priority first (table II of the data sheet).
    private var identification: UInt8 {
        let fifo: UInt8 = usesFIFO ? 0xC0 : 0
        if interruptEnable & InterruptEnable.lineStatus != 0, hasOverrun { return fifo | 0x06 }
        if interruptEnable & InterruptEnable.receivedData != 0, !received.isEmpty { return fifo | 0x04 }
        if interruptEnable & InterruptEnable.transmitterEmpty != 0, transmitterEmptyPending { return fifo | 0x02 }
        return fifo | 0x01
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
            if value & 0x0F == 0x02 { transmitterEmptyPending = false }
            return value
        case 3: return lineControl
        case 4: return modemControl
        case 5:
            let overrun = hasOverrun ? LineStatus.overrun : 0
            hasOverrun = false
            return LineStatus.transmitterHoldingEmpty | LineStatus.transmitterEmpty | overrun | (received.isEmpty ? 0 : LineStatus.dataReady)
        case 6:
            // In loopback the outputs come back as inputs; else a terminal is there: DCD, DSR, CTS.
            guard isLoopback else { return 0xB0 }
            return (modemControl & 0x0C) << 4 | (modemControl & 0x02) << 3 | (modemControl & 0x01) << 5
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
            if (value ^ fifoControl) & 1 != 0 || value & 2 != 0 { received.removeAll(keepingCapacity: true) }
            fifoControl = value & 0xC9
        case 3: lineControl = value
        case 4: modemControl = value & 0x1F
        case 5, 6: break
        default: scratch = value
        }
        return nil
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
