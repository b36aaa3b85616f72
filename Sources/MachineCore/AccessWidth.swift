// The width of one access to a register.

/// How many bytes one port or MMIO access moves.
package enum AccessWidth: UInt8, Sendable {
    case byte = 1
    case word = 2
    case doubleWord = 4
    case quadWord = 8

    package var byteCount: Int { Int(rawValue) }

    /// All ones of this width: what an unclaimed read returns.
    package var allOnes: UInt64 {
        self == .quadWord ? .max : (1 << (UInt64(rawValue) * 8)) - 1
    }
}
