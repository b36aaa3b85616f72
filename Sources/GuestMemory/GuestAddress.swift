// Guest-physical addresses are a type of their own, so that no host pointer, length or port is mistaken for one.

/// A guest-physical address.
package struct GuestAddress: Hashable, Comparable, Sendable, BitwiseCopyable, CustomStringConvertible {
    package let rawValue: UInt64

    package init(_ rawValue: UInt64) {
        self.rawValue = rawValue
    }

    package static func < (left: GuestAddress, right: GuestAddress) -> Bool {
        left.rawValue < right.rawValue
    }

    /// The address `byteCount` further on, or nil where it would leave the 64-bit space.
    package func advanced(by byteCount: UInt64) -> GuestAddress? {
        let (sum, overflow) = rawValue.addingReportingOverflow(byteCount)
        return overflow ? nil : GuestAddress(sum)
    }

    package var description: String { "0x" + String(rawValue, radix: 16) }
}
