// What a device looks like from a bus.

/// A device's registers as the processor reaches them, through ports or memory.
///
/// Called on a vCPU thread, several at once: the implementation owns its lock. It must not block, and a value the guest
/// supplies must not make it trap: an access it has no register for reads all ones and writes nothing.
package protocol BusDevice: AnyObject, Sendable {
    /// Reads `width` bytes at `offset` from the base the device was attached at. Bits above the width are ignored.
    func read(offset: UInt64, width: AccessWidth) -> UInt64

    /// Writes the low `width` bytes of `value` at `offset` from the base the device was attached at.
    func write(offset: UInt64, width: AccessWidth, value: UInt64)

    /// `count` reads of the same register, as a string instruction makes them, each handed to `body` with its number.
    func readString(offset: UInt64, width: AccessWidth, count: Int, _ body: (Int, UInt64) -> Void)
}

extension BusDevice {
    package func readString(offset: UInt64, width: AccessWidth, count: Int, _ body: (Int, UInt64) -> Void) {
        for index in 0..<max(count, 0) { body(index, read(offset: offset, width: width)) }
    }
}
