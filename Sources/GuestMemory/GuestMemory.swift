// Guest RAM: one memfd, mapped once, seen by the guest as regions around the hole below 4 GiB.
//
// Every access to guest memory in the monitor goes through this type. It is hostile: shared with running vCPUs that
// may change it between two reads, addressed by numbers the guest chose. So each call checks its whole range, copies
// structures in once, and hands out raw host ranges only for bulk I/O by the kernel (preadv, io_uring, vhost).
import Glibc
package import HostSystem
import Synchronization

/// An access to guest memory that the guest asked for and that is not backed by RAM. A guest fault, never a host one.
package struct GuestMemoryFault: Error, Sendable, CustomStringConvertible {
    package let address: GuestAddress
    package let byteCount: UInt64

    package init(address: GuestAddress, byteCount: UInt64) {
        self.address = address
        self.byteCount = byteCount
    }

    package var description: String { "no guest RAM at \(address) for \(byteCount) bytes (guest)" }
}

/// A run of guest RAM, contiguous both for the guest and in the backing file.
package struct GuestMemoryRegion: Sendable, Equatable {
    /// First guest-physical address.
    package let base: GuestAddress
    /// Length in bytes, a multiple of 4096.
    package let byteCount: UInt64
    /// Where the region starts in the backing file and in the host mapping.
    package let fileOffset: UInt64

    package init(base: GuestAddress, byteCount: UInt64, fileOffset: UInt64) {
        self.base = base
        self.byteCount = byteCount
        self.fileOffset = fileOffset
    }
}

/// A checked piece of guest memory for the kernel to read or write by address: valid as long as the `GuestMemory` it
/// came from. Not for loads and stores by us.
@unsafe package struct GuestHostRange: @unchecked Sendable {
    // @unchecked: the pointer is only passed to system calls; the mapping lives as long as its GuestMemory.
    package let start: UnsafeMutableRawPointer
    package let byteCount: Int

    package init(start: UnsafeMutableRawPointer, byteCount: Int) {
        unsafe self.start = start
        unsafe self.byteCount = byteCount
    }
}

/// The RAM of one guest.
@safe package final class GuestMemory: @unchecked Sendable {
    // @unchecked: the mapping is shared with vCPU threads and the guest by nature; its place and size are immutable after init, and
    // every access below is a bounded copy or an atomic on it.

    /// RAM below this address is contiguous from 0; the rest continues at 4 GiB. The hole holds devices and ECAM.
    package static let lowMemoryEnd: UInt64 = 0xB000_0000

    /// The regions, in ascending order of `base`.
    package let regions: [GuestMemoryRegion]
    /// All RAM in bytes.
    package let byteCount: UInt64
    /// The memfd behind the mapping, for who maps it too (vhost-user); nil where RAM was restored from a file, which is nobody
    /// else's to write.
    package var descriptor: CInt? { image.withLock { $0 } == nil ? backing.rawValue : nil }

    let backing: OwnedDescriptor
    let mapping: UnsafeMutableRawPointer
    /// The file whose pages were put in the memfd's place, where RAM was restored.
    let image = Mutex<FileIdentity?>(nil)

    let placement: MemoryPlacement

    /// Maps `byteCount` bytes of fresh zeroed RAM: [0, min(byteCount, lowMemoryEnd)) and the rest from 4 GiB up. Where the host has
    /// no such pages, too few, or no such node, this throws: no later touch of the memory fails for it.
    ///
    /// - Parameter byteCount: a multiple of 4096 and of the placement's pages, at least 1 MiB.
    package init(
        byteCount: UInt64, lowMemoryEnd: UInt64 = GuestMemory.lowMemoryEnd, placement: MemoryPlacement = MemoryPlacement()
    ) throws(HostError) {
        guard byteCount >= 1 << 20, byteCount % 4096 == 0, let size = Int(exactly: byteCount) else {
            throw HostError(
                "map guest memory of", subject: "\(byteCount) bytes", errno: EINVAL,
                remedy: "give a multiple of 4096, at least 1 MiB")
        }
        let backing = try placement.makeFile(byteCount: size)
        let mapped = unsafe try placement.map(backing, byteCount: size)
        do throws(HostError) {
            unsafe try placement.settle(mapped, byteCount: size)
        } catch {
            // SAFETY: mapped above, and nobody has it yet.
            unsafe munmap(mapped, size)
            throw error
        }
        self.backing = backing
        self.placement = placement
        unsafe self.mapping = mapped
        self.byteCount = byteCount
        let low = min(byteCount, lowMemoryEnd)
        var regions = [GuestMemoryRegion(base: GuestAddress(0), byteCount: low, fileOffset: 0)]
        if byteCount > low {
            regions.append(
                GuestMemoryRegion(base: GuestAddress(1 << 32), byteCount: byteCount - low, fileOffset: low))
        }
        self.regions = regions
    }

    deinit {
        // SAFETY: mapped in init with exactly this size and never unmapped elsewhere.
        unsafe munmap(mapping, Int(byteCount))
    }

    /// The one check that every access passes: the host address of `[address, address + byteCount)`, or a guest fault
    /// when any of it is not RAM of a single region.
    @inline(__always)
    private func check(
        _ address: GuestAddress, _ byteCount: UInt64
    ) throws(GuestMemoryFault) -> UnsafeMutableRawPointer {
        for region in regions where address.rawValue >= region.base.rawValue {
            let offset = address.rawValue - region.base.rawValue
            if offset < region.byteCount, byteCount <= region.byteCount - offset {
                // SAFETY: fileOffset + offset + byteCount <= size of the mapping by the comparison above.
                return unsafe mapping + Int(region.fileOffset + offset)
            }
        }
        throw GuestMemoryFault(address: address, byteCount: byteCount)
    }

    /// Copies one trivially copyable value in. Little-endian structures as the guest laid them out.
    package func load<Value: BitwiseCopyable>(
        _ type: Value.Type = Value.self, at address: GuestAddress
    ) throws(GuestMemoryFault) -> Value {
        let source = unsafe try check(address, UInt64(MemoryLayout<Value>.size))
        // SAFETY: `check` proved the range; loadUnaligned copies once.
        return unsafe source.loadUnaligned(as: Value.self)
    }

    /// Copies one trivially copyable value out.
    package func store<Value: BitwiseCopyable>(
        _ value: Value, at address: GuestAddress
    ) throws(GuestMemoryFault) {
        let target = unsafe try check(address, UInt64(MemoryLayout<Value>.size))
        // SAFETY: `check` proved the range.
        unsafe target.storeBytes(of: value, as: Value.self)
    }

    /// Copies guest memory into `buffer`, all of it or none.
    package func read(
        at address: GuestAddress, into buffer: inout MutableRawSpan
    ) throws(GuestMemoryFault) {
        let count = buffer.byteCount
        let source = unsafe try check(address, UInt64(count))
        unsafe buffer.withUnsafeMutableBytes { target in
            guard let base = target.baseAddress else { return }
            // SAFETY: source is count bytes by `check`, target is count bytes by definition; they cannot overlap, since
            // the mapping is private to this object.
            unsafe memcpy(base, source, count)
        }
    }

    /// Copies `bytes` into guest memory, all of it or none.
    package func write(_ bytes: RawSpan, at address: GuestAddress) throws(GuestMemoryFault) {
        let target = unsafe try check(address, UInt64(bytes.byteCount))
        unsafe bytes.withUnsafeBytes { source in
            guard let base = source.baseAddress else { return }
            // SAFETY: as in `read`.
            unsafe memcpy(target, base, source.count)
        }
    }

    /// Copies `bytes` into guest memory, all of it or none.
    package func write(_ bytes: [UInt8], at address: GuestAddress) throws(GuestMemoryFault) {
        unsafe try write(bytes.span.bytes, at: address)
    }

    /// Copies `byteCount` bytes out. Allocates: for configuration and tests, not for hot paths.
    package func bytes(at address: GuestAddress, count: Int) throws(GuestMemoryFault) -> [UInt8] {
        let source = unsafe try check(address, UInt64(clamping: count))
        // SAFETY: `check` proved the range.
        return unsafe [UInt8](UnsafeRawBufferPointer(start: source, count: count))
    }

    /// Fills a range with one byte.
    package func fill(_ byte: UInt8, at address: GuestAddress, count: UInt64) throws(GuestMemoryFault) {
        let target = unsafe try check(address, count)
        // SAFETY: `check` proved the range.
        unsafe memset(target, CInt(byte), Int(count))
    }

    /// The host range behind `[address, address + byteCount)` for the kernel to fill or read.
    @unsafe package func hostRange(
        at address: GuestAddress, byteCount: UInt64
    ) throws(GuestMemoryFault) -> GuestHostRange {
        let start = unsafe try check(address, byteCount)
        return unsafe GuestHostRange(start: start, byteCount: Int(byteCount))
    }

    /// Where a region is mapped in this process, for the accelerator's memory slots.
    @unsafe package func hostAddress(of region: GuestMemoryRegion) -> UnsafeMutableRawPointer {
        // SAFETY: regions are made in init and lie within the mapping.
        unsafe mapping + Int(region.fileOffset)
    }
}
