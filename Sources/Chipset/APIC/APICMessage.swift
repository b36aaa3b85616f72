// What APICs say to each other, and what a message-signalled interrupt says to them (Intel SDM 3A §11.6.1, §11.11).
package import MachineCore

package struct APICMessage: Sendable, Equatable {
    package enum DeliveryMode: UInt8, Sendable {
        case fixed = 0, lowestPriority = 1, smi = 2, nmi = 4, initialize = 5, startUp = 6, externalInterrupt = 7
    }
    package enum Shorthand: UInt8, Sendable { case none = 0, itself = 1, all = 2, others = 3 }

    package var vector: UInt8
    package var mode: DeliveryMode
    package var destination: UInt32
    package var isLogical: Bool
    /// Level-triggered: its end is told to the I/O APIC.
    package var isLevel: Bool
    package var shorthand = Shorthand.none
    /// `destination` has the 32 bits of x2APIC mode; otherwise 8.
    package var isExtended = false

    package init(
        vector: UInt8, mode: DeliveryMode, destination: UInt32, isLogical: Bool, isLevel: Bool,
        shorthand: Shorthand = .none, isExtended: Bool = false
    ) {
        self.vector = vector
        self.mode = mode
        self.destination = destination
        self.isLogical = isLogical
        self.isLevel = isLevel
        self.shorthand = shorthand
        self.isExtended = isExtended
    }

    /// The content of an MSI or of a message of the HPET; nil where its address is not the APICs' or its mode is
    /// reserved.
    package init?(_ message: InterruptMessage) {
        guard message.address >> 20 == 0xFEE, let mode = DeliveryMode(rawValue: UInt8(message.data >> 8 & 7)) else {
            return nil
        }
        self.init(
            vector: UInt8(message.data & 0xFF), mode: mode, destination: UInt32(message.address >> 12 & 0xFF),
            isLogical: message.address & 0x04 != 0, isLevel: message.data & 0x8000 != 0)
    }
}

/// One bit a vector, 256 of them: IRR, ISR, TMR.
package struct VectorSet: Sendable, Equatable {
    var low: UInt128 = 0, high: UInt128 = 0

    package init() {}

    /// The highest vector, which has the highest priority.
    package var highest: UInt8? {
        if high != 0 { return UInt8(255 - high.leadingZeroBitCount) }
        return low == 0 ? nil : UInt8(127 - low.leadingZeroBitCount)
    }

    package func contains(_ vector: UInt8) -> Bool { (vector < 128 ? low : high) & Self.bit(vector) != 0 }
    package mutating func insert(_ vector: UInt8) {
        if vector < 128 { low |= Self.bit(vector) } else { high |= Self.bit(vector) }
    }
    package mutating func remove(_ vector: UInt8) {
        if vector < 128 { low &= ~Self.bit(vector) } else { high &= ~Self.bit(vector) }
    }
    /// Register `index` (0 to 7) of the eight that show the set.
    func register(_ index: UInt32) -> UInt32 {
        UInt32(truncatingIfNeeded: (index < 4 ? low : high) >> UInt128((index & 3) * 32))
    }
    private static func bit(_ vector: UInt8) -> UInt128 { 1 << UInt128(vector & 127) }
}
