// What the bus asks of a function, and what a function asks of the machine's memory bus.
package import GuestMemory
package import MachineCore

/// The machine's memory bus, as PCI functions see it.
///
/// Called with a function's configuration lock held, so an implementation must drop its own lock before it calls any
/// device, and must not call back into configuration space.
package protocol PCIAddressSpace: AnyObject, Sendable {
    /// Sends accesses of `[base, base + byteCount)` to `window`. A range that overlaps another device is the guest's
    /// mistake: ignore it.
    func map(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64)
    /// Undoes `map` with the same arguments; ignored where the range was refused.
    func unmap(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64)
    /// The same for I/O ports; ports that a fixed device of the board answers stay its own.
    func mapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16)
    func unmapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16)
}

/// A PCI function. Every member may be called on any thread.
package protocol PCIFunction: AnyObject, Sendable {
    /// Reads configuration space; `offset` is below 4096 and the access does not cross a double word.
    func readConfiguration(offset: Int, width: AccessWidth) -> UInt64
    /// Writes configuration space, moving BARs and MSI-X state as a side effect.
    func writeConfiguration(offset: Int, width: AccessWidth, value: UInt64)
    /// The BARs that need a place.
    var baseAddressRegisters: [BaseAddressRegister] { get }
    /// Puts a BAR at `base`, as firmware would. Before the guest starts.
    func place(_ bar: BaseAddressRegister, at base: GuestAddress)
    /// Says where BARs are to be mapped. Once, before the guest starts.
    func connect(to addressSpace: any PCIAddressSpace)
    /// Bus reset: stop all activity, go back to the state after power on, BARs kept.
    func reset()
}
