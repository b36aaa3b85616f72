// One base address register of a type 0 header (PCI 3.0 §6.2.5.1). Memory only: nothing we emulate decodes I/O ports
// through a BAR.
package import GuestMemory

/// What one BAR decodes.
package struct BaseAddressRegister: Sendable, Equatable {
    package enum Kind: Sendable, Equatable {
        case memory32
        /// I/O ports.
        case ports
        /// Takes this register and the next one.
        case memory64
    }
    /// 0-5; 0-4 for a 64-bit register.
    package let index: Int
    package let kind: Kind
    /// A power of two: at least 16, ports at least 4.
    package let byteCount: UInt64
    package let isPrefetchable: Bool

    package init(index: Int, kind: Kind, byteCount: UInt64, isPrefetchable: Bool = false) {
        self.index = index
        self.kind = kind
        self.byteCount = byteCount
        self.isPrefetchable = isPrefetchable
    }
}

/// A BAR and where it is decoded now.
package struct DecodedRange: Sendable, Equatable {
    package let bar: Int
    package let base: GuestAddress
    package let byteCount: UInt64
    /// `base` is an I/O port.
    package var isPorts = false
}
