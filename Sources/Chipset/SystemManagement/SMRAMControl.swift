// The memory controller's say over RAM of system management mode: SMRAM at 0x9D, ESMRAMC at 0x9E and the sizes of the top segment
// (Intel 3 Series MCH data sheet §5.1.33, §5.1.34; QEMU's 0x50, docs of edk2's Q35TsegMbytes). A plain value.
//
// Two pieces of RAM can be that mode's alone: 0xA0000-0xBFFFF unless D_OPEN is set, and TSEG, the last megabytes of RAM below 4 GiB,
// while T_EN and G_SMRAME are. D_LCK makes it final until a reset. H_SMRAME, which shows the first piece elsewhere, is not there;
// D_CLS is kept without effect, as is C_BASE_SEG.

package struct SMRAMControl: Sendable, Equatable {
    package enum SMRAM {
        package static let open: UInt8 = 1 << 6, closed: UInt8 = 1 << 5, lock: UInt8 = 1 << 4, enable: UInt8 = 1 << 3
        package static let base: UInt8 = 0b010
    }
    package enum Extended {
        /// Cacheability, hardwired; firmware takes them for "there is SMRAM".
        package static let cache: UInt8 = 0x38
        package static let sizeMask: UInt8 = 0b110, enable: UInt8 = 1 << 0
    }
    /// What 0x50 reads once firmware wrote all ones there: megabytes of TSEG where the two size bits are set.
    package static let extendedMiB = 16
    package static let sizeQuery: UInt16 = 0xFFFF

    package private(set) var smram = SMRAM.base
    package private(set) var extended = Extended.cache
    package private(set) var extendedSize: UInt16 = 0

    package init() {}

    package var isLocked: Bool { smram & SMRAM.lock != 0 }
    /// Whether 0xA0000-0xBFFFF is RAM in system management mode alone.
    package var concealsLegacy: Bool { smram & SMRAM.open == 0 }
    /// Megabytes at the end of low RAM that are there in system management mode alone.
    package var concealedMiB: Int {
        guard extended & Extended.enable != 0, smram & SMRAM.enable != 0 else { return 0 }
        return [1, 2, 8, Self.extendedMiB][Int(extended & Extended.sizeMask) >> 1]
    }

    /// What a guest wrote to the registers, of which a lock takes no more than D_CLS.
    package mutating func write(smram newSMRAM: UInt8, extended newExtended: UInt8) {
        if isLocked {
            smram = smram & ~SMRAM.closed | newSMRAM & SMRAM.closed
            return
        }
        smram = SMRAM.base | newSMRAM & (SMRAM.open | SMRAM.closed | SMRAM.lock | SMRAM.enable)
        // A lock closes.
        if isLocked { smram &= ~SMRAM.open }
        extended = Extended.cache | newExtended & (Extended.sizeMask | Extended.enable)
    }

    /// A question in 0x50 is answered; anything else is kept.
    package mutating func write(extendedSize new: UInt16) { extendedSize = new == Self.sizeQuery ? UInt16(Self.extendedMiB) : new }

    package mutating func reset() { self = SMRAMControl() }
}
