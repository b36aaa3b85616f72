// One 8237A direct memory access controller (Intel data sheet 231466): four channels of 16 bits of address and count
// behind a byte flip-flop. A device asks `I8237Pair` for the memory its bytes go to or come from; nothing runs by
// itself.

package struct I8237: Sendable {
    struct Channel: Sendable {
        var baseAddress: UInt16 = 0, baseCount: UInt16 = 0
        var address: UInt16 = 0, count: UInt16 = 0
        /// Mode register without the channel's number.
        var mode: UInt8 = 0
    }
    enum Mode {
        static let transfer: UInt8 = 0x0C, writeMemory: UInt8 = 0x04, readMemory: UInt8 = 0x08
        static let autoInitialize: UInt8 = 0x10, decrement: UInt8 = 0x20, cascade: UInt8 = 0xC0
    }
    enum Command {
        static let disable: UInt8 = 0x04
    }
    enum Register {
        static let status: UInt8 = 8, request: UInt8 = 9, singleMask: UInt8 = 10, mode: UInt8 = 11
        static let clearFlipFlop: UInt8 = 12, masterClear: UInt8 = 13, clearMask: UInt8 = 14, allMasks: UInt8 = 15
    }

    var channels: [4 of Channel] = [4 of Channel](repeating: Channel())
    var command: UInt8 = 0
    /// One bit a channel: masked, requested by software, reached terminal count since the status was read.
    package internal(set) var masks: UInt8 = 0x0F
    var requests: UInt8 = 0, terminalCounts: UInt8 = 0
    /// The high byte of a 16-bit register comes next.
    var isHighByte = false

    package init() {}

    package mutating func read(_ register: UInt8) -> UInt8 {
        switch register {
        case 0..<8:
            let channel = channels[Int(register >> 1)], value = register & 1 == 0 ? channel.address : channel.count
            defer { isHighByte.toggle() }
            return UInt8(truncatingIfNeeded: isHighByte ? value >> 8 : value)
        case Register.status:
            defer { terminalCounts = 0 }
            return terminalCounts | requests << 4
        case Register.allMasks: return masks | 0xF0
        // The temporary register, which only memory-to-memory transfers fill.
        default: return 0
        }
    }

    package mutating func write(_ register: UInt8, _ value: UInt8) {
        let bit: UInt8 = 1 << (value & 3)
        switch register {
        case 0..<8: writeWord(Int(register >> 1), isCount: register & 1 != 0, value)
        case Register.status: command = value
        case Register.request: requests = value & 4 != 0 ? requests | bit : requests & ~bit
        case Register.singleMask: masks = value & 4 != 0 ? masks | bit : masks & ~bit
        case Register.mode: channels[Int(value & 3)].mode = value & 0xFC
        case Register.clearFlipFlop: isHighByte = false
        case Register.masterClear:
            command = 0
            requests = 0
            terminalCounts = 0
            isHighByte = false
            masks = 0x0F
        case Register.clearMask: masks = 0
        default: masks = value & 0x0F
        }
    }

    /// Base and current register are written together.
    private mutating func writeWord(_ index: Int, isCount: Bool, _ byte: UInt8) {
        func replaced(_ word: UInt16) -> UInt16 {
            isHighByte ? word & 0x00FF | UInt16(byte) << 8 : word & 0xFF00 | UInt16(byte)
        }
        if isCount {
            channels[index].baseCount = replaced(channels[index].baseCount)
            channels[index].count = channels[index].baseCount
        } else {
            channels[index].baseAddress = replaced(channels[index].baseAddress)
            channels[index].address = channels[index].baseAddress
        }
        isHighByte.toggle()
    }

    /// Whether a request of the device on `channel` is answered, in the direction given.
    func isReady(_ channel: Int, writesMemory: Bool) -> Bool {
        guard command & Command.disable == 0, masks & 1 << UInt8(channel) == 0 else { return false }
        let mode = channels[channel].mode
        guard mode & Mode.cascade != Mode.cascade else { return false }
        let transfer = mode & Mode.transfer
        return transfer == 0 || transfer == (writesMemory ? Mode.writeMemory : Mode.readMemory)
    }

    /// Moves at most `limit` units through `channel`: pieces as first address and number of units, in the order of the
    /// data. True where terminal count was reached. The address wraps within its 16 bits.
    mutating func move(_ channel: Int, limit: Int, _ piece: (_ first: UInt16, _ units: Int) -> Void) -> (
        units: Int, isTerminal: Bool
    ) {
        var moved = 0
        while moved < limit {
            let current = channels[channel], left = Int(current.count) + 1
            let isDecrementing = current.mode & Mode.decrement != 0
            let untilWrap = isDecrementing ? 1 : 0x1_0000 - Int(current.address)
            let units = min(left, limit - moved, untilWrap)
            // A verify transfer counts and moves nothing.
            if current.mode & Mode.transfer != 0 { piece(current.address, units) }
            let step = UInt16(truncatingIfNeeded: units)
            channels[channel].address = isDecrementing ? current.address &- step : current.address &+ step
            channels[channel].count = current.count &- step
            moved += units
            guard units == left else { continue }
            let bit: UInt8 = 1 << UInt8(channel)
            terminalCounts |= bit
            requests &= ~bit
            if current.mode & Mode.autoInitialize != 0 {
                channels[channel].address = current.baseAddress
                channels[channel].count = current.baseCount
            } else {
                masks |= bit
            }
            return (moved, true)
        }
        return (moved, false)
    }
}
