// Ring indices are shared with a running guest: 16-bit loads and stores with the ordering virtio asks for (2.7.13).
import Synchronization

extension GuestMemory {
    /// Reads a 16-bit little-endian index with acquire ordering.
    ///
    /// - Parameter address: must be 2-aligned; an odd address is a guest fault.
    package func loadAcquire(at address: GuestAddress) throws(GuestMemoryFault) -> UInt16 {
        guard address.rawValue & 1 == 0 else { throw GuestMemoryFault(address: address, byteCount: 2) }
        let range = unsafe try hostRange(at: address, byteCount: 2)
        // SAFETY: the range is two bytes of live mapping, aligned; Atomic<UInt16> has the layout of UInt16.
        return unsafe range.start.assumingMemoryBound(to: Atomic<UInt16>.self).pointee.load(ordering: .acquiring)
    }

    /// Publishes a 16-bit little-endian index with release ordering.
    ///
    /// - Parameter address: must be 2-aligned; an odd address is a guest fault.
    package func storeRelease(_ value: UInt16, at address: GuestAddress) throws(GuestMemoryFault) {
        guard address.rawValue & 1 == 0 else { throw GuestMemoryFault(address: address, byteCount: 2) }
        let range = unsafe try hostRange(at: address, byteCount: 2)
        // SAFETY: as above.
        unsafe range.start.assumingMemoryBound(to: Atomic<UInt16>.self).pointee.store(value, ordering: .releasing)
    }

    /// A full fence, between publishing a used index and reading the other side's suppression field (virtio 2.7.10).
    package static func fence() {
        atomicMemoryFence(ordering: .sequentiallyConsistent)
    }
}
