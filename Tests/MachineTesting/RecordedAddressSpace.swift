// Where the BARs of a test are decoded, and what stands there.
package import GuestMemory
package import MachineCore
import PCI
package import Synchronization

/// Remembers what is mapped: base to size.
package final class RecordedAddressSpace: PCIAddressSpace {
    package let memory = Mutex<[UInt64: UInt64]>([:])
    package let ports = Mutex<[UInt16: UInt16]>([:])
    package init() {}
    package func map(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) { memory.withLock { $0[base.rawValue] = byteCount } }
    package func unmap(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) { memory.withLock { $0[base.rawValue] = nil } }
    package func mapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16) { ports.withLock { $0[base] = count } }
    package func unmapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16) { ports.withLock { $0[base] = nil } }
}

/// Reads as zero and forgets what is written.
package final class SilentRegisters: BusDevice {
    package init() {}
    package func read(offset: UInt64, width: AccessWidth) -> UInt64 { 0 }
    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {}
}
