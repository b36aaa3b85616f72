// One 8259A interrupt controller (Intel data sheet 231468): ICW1 to ICW4, OCW1 to OCW3, fixed and rotating priorities,
// special mask and special fully nested mode, automatic end of interrupt, poll; level inputs by the ELCR of the PC
// (ICH9 §13.4). 8086 mode and edge latches that stay set when the input falls, as PC chipsets have them. `I8259Pair`
// makes two of it a PC's.

package struct I8259: Sendable, Equatable {
    enum ICW1 {
        static let isICW1: UInt8 = 0x10, needsICW4: UInt8 = 0x01, single: UInt8 = 0x02
    }
    enum ICW4 {
        static let automaticEOI: UInt8 = 0x02, specialFullyNested: UInt8 = 0x10
    }
    enum OCW3 {
        static let isOCW3: UInt8 = 0x08, readRegister: UInt8 = 0x02, selectISR: UInt8 = 0x01, poll: UInt8 = 0x04
        static let setSpecialMask: UInt8 = 0x40, specialMask: UInt8 = 0x20
    }
    /// The initialisation command word that comes next at the odd port.
    enum Initialization: UInt8, Sendable { case done, icw2, icw3, icw4 }

    /// Interrupt request, in-service and mask register: one bit an input.
    package internal(set) var requests: UInt8 = 0, inService: UInt8 = 0, mask: UInt8 = 0
    /// Inputs that are high.
    package internal(set) var inputs: UInt8 = 0
    /// ELCR: inputs that are level-triggered.
    package internal(set) var levelTriggered: UInt8 = 0
    /// ICW2: the vector of input 0, a multiple of 8.
    package internal(set) var vectorBase: UInt8 = 0
    var cascade: UInt8 = 0
    var initialization = Initialization.done
    var needsICW4 = false, isSingle = false
    var hasAutomaticEOI = false, isSpecialFullyNested = false, rotatesOnAutomaticEOI = false
    var isSpecialMask = false, readsISR = false, isPolled = false
    /// The input with the highest priority.
    var firstInput: UInt8 = 0

    package init() {}

    /// The set bit of `bits` with the highest priority, as its distance from the first; nil where none is set.
    private func priority(_ bits: UInt8) -> UInt8? {
        guard bits != 0 else { return nil }
        let rotated = bits >> firstInput | bits << ((8 &- firstInput) & 7)
        return UInt8(rotated.trailingZeroBitCount)
    }

    /// The input whose interrupt the INT output asks for; nil: INT is low. `nested` are the inputs whose service does
    /// not hold off further requests of theirs (the slave's, in special fully nested mode).
    package func pending(nested: UInt8 = 0) -> UInt8? {
        guard let wanted = priority(requests & ~mask) else { return nil }
        var busy = inService
        if isSpecialMask { busy &= ~mask }
        if isSpecialFullyNested { busy &= ~nested }
        if let current = priority(busy), wanted >= current { return nil }
        return (wanted &+ firstInput) & 7
    }

    package mutating func setInput(_ input: UInt8, isHigh: Bool) {
        let bit: UInt8 = 1 << (input & 7)
        if levelTriggered & bit != 0 {
            if isHigh { requests |= bit } else { requests &= ~bit }
        } else if isHigh, inputs & bit == 0 {
            requests |= bit
        }
        if isHigh { inputs |= bit } else { inputs &= ~bit }
    }

    /// ELCR write: an input that becomes level-triggered shows its level.
    package mutating func setLevelTriggered(_ bits: UInt8) {
        requests = requests & ~bits | inputs & bits
        levelTriggered = bits
    }

    /// The processor takes `input`, which `pending` gave.
    package mutating func acknowledge(_ input: UInt8) {
        let bit: UInt8 = 1 << (input & 7)
        if hasAutomaticEOI {
            if rotatesOnAutomaticEOI { firstInput = (input &+ 1) & 7 }
        } else {
            inService |= bit
        }
        if levelTriggered & bit == 0 { requests &= ~bit }
    }

    // MARK: Registers

    /// `isOdd` is address line A0: port 0x21 or 0xA1.
    package mutating func write(isOdd: Bool, _ value: UInt8) {
        if isOdd {
            writeData(value)
        } else if value & ICW1.isICW1 != 0 {
            initialize(value)
        } else if value & OCW3.isOCW3 != 0 {
            if value & OCW3.poll != 0 { isPolled = true }
            if value & OCW3.readRegister != 0 { readsISR = value & OCW3.selectISR != 0 }
            if value & OCW3.setSpecialMask != 0 { isSpecialMask = value & OCW3.specialMask != 0 }
        } else {
            endOfInterrupt(command: value >> 5, input: value & 7)
        }
    }

    private mutating func initialize(_ value: UInt8) {
        // The edge circuits start anew: an input that is high must fall before it can ask again.
        requests = inputs & levelTriggered
        inService = 0
        mask = 0
        firstInput = 0
        hasAutomaticEOI = false
        isSpecialFullyNested = false
        rotatesOnAutomaticEOI = false
        isSpecialMask = false
        readsISR = false
        isPolled = false
        needsICW4 = value & ICW1.needsICW4 != 0
        isSingle = value & ICW1.single != 0
        initialization = .icw2
    }

    private mutating func writeData(_ value: UInt8) {
        switch initialization {
        case .done: mask = value
        case .icw2:
            vectorBase = value & 0xF8
            initialization = isSingle ? (needsICW4 ? .icw4 : .done) : .icw3
        case .icw3:
            cascade = value
            initialization = needsICW4 ? .icw4 : .done
        case .icw4:
            hasAutomaticEOI = value & ICW4.automaticEOI != 0
            isSpecialFullyNested = value & ICW4.specialFullyNested != 0
            initialization = .done
        }
    }

    /// OCW2: R, SL and EOI are the command's bits 2 to 0.
    private mutating func endOfInterrupt(command: UInt8, input: UInt8) {
        switch command {
        case 0b000: rotatesOnAutomaticEOI = false
        case 0b100: rotatesOnAutomaticEOI = true
        case 0b001, 0b101:
            // In special mask mode an end of interrupt that names none leaves the masked ones in service.
            guard let first = priority(isSpecialMask ? inService & ~mask : inService) else { return }
            let ended = (first &+ firstInput) & 7
            inService &= ~(1 << ended)
            if command == 0b101 { firstInput = (ended &+ 1) & 7 }
        case 0b011: inService &= ~(1 << input)
        case 0b110: firstInput = (input &+ 1) & 7
        case 0b111:
            inService &= ~(1 << input)
            firstInput = (input &+ 1) & 7
        default: break
        }
    }

    /// A poll acknowledges what it reports.
    package mutating func read(isOdd: Bool, nested: UInt8 = 0) -> UInt8 {
        if isPolled {
            isPolled = false
            guard let input = pending(nested: nested) else { return 0 }
            acknowledge(input)
            return 0x80 | input
        }
        return isOdd ? mask : readsISR ? inService : requests
    }
}
