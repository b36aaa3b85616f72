// Where guest RAM comes from on the host: the size of its pages, and the nodes that parts of it are bound to.
import Glibc
import HostSystem

/// How a guest's RAM is placed. What a guest sees does not depend on it.
package struct MemoryPlacement: Sendable, Equatable {
    /// The size of the host's pages in bytes. Huge ones are reserved and made before the guest starts.
    package enum PageSize: UInt64, Sendable {
        case small = 4096
        case twoMiB = 0x20_0000
        case oneGiB = 0x4000_0000
    }

    /// A part of RAM that comes from one node of the host.
    package struct Binding: Sendable, Equatable {
        /// In bytes from the start of the backing file; both ends are multiples of the page size.
        package let fileRange: Range<UInt64>
        package let hostNode: Int
        /// Whose memory it is, for errors.
        package let guestNode: Int

        package init(fileRange: Range<UInt64>, hostNode: Int, guestNode: Int) {
            self.fileRange = fileRange
            self.hostNode = hostNode
            self.guestNode = guestNode
        }
    }

    package var pageSize: PageSize
    /// They do not overlap.
    package var bindings: [Binding]

    package init(pageSize: PageSize = .small, bindings: [Binding] = []) {
        self.pageSize = pageSize
        self.bindings = bindings
    }

    /// Small pages from wherever the host takes them.
    package var isPlain: Bool { pageSize == .small && bindings.isEmpty }

    /// The backing file for RAM of this size.
    func makeFile(byteCount: Int) throws(HostError) -> OwnedDescriptor {
        guard pageSize != .small else { return try makeMemoryFile(named: "guest-ram", byteCount: byteCount) }
        guard UInt64(byteCount) % pageSize.rawValue == 0 else {
            throw HostError(
                "map guest memory of", subject: "\(byteCount >> 20) MiB", errno: EINVAL, remedy: "give a multiple of its pages' \(pageSize.rawValue >> 20) MiB")
        }
        return try makeHugeMemoryFile(named: "guest-ram", byteCount: byteCount, pageByteCount: Int(pageSize.rawValue))
    }

    /// Maps the file. Huge pages are reserved by that, and the error says so where there are too few.
    @unsafe func map(_ file: borrowing OwnedDescriptor, byteCount: Int) throws(HostError) -> UnsafeMutableRawPointer {
        let flags = pageSize == .small ? MAP_SHARED | MAP_NORESERVE : MAP_SHARED
        let mapped = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, flags, file.rawValue, 0)
        if let mapped = unsafe mapped, unsafe mapped != MAP_FAILED { return unsafe mapped }
        guard pageSize != .small, errno == ENOMEM else {
            throw HostError("map", subject: "\(byteCount) bytes of guest memory", errno: errno)
        }
        throw tooFew(UInt64(byteCount), on: nil)
    }

    /// Binds the parts of RAM and makes huge pages. Nothing of the mapping was touched yet.
    @unsafe func settle(_ mapping: UnsafeMutableRawPointer, byteCount: Int) throws(HostError) {
        for binding in bindings {
            let range = binding.fileRange
            guard range.upperBound <= UInt64(byteCount) else { continue }
            // SAFETY: within the mapping by the line above.
            let start = unsafe mapping + Int(range.lowerBound)
            unsafe try HostNodes.bind(start, byteCount: range.count, to: binding.hostNode, owner: "guest node \(binding.guestNode)'s RAM")
            guard pageSize != .small else { continue }
            // Reserved pages are anyone's: of a node's own there may still be too few, and a cgroup may forbid them. Made now, they are
            // there; a guest that touched one that is not would be a bus error.
            let failure = unsafe HostNodes.populate(start, byteCount: range.count)
            guard failure == 0 else { throw tooFew(UInt64(range.count), on: binding.hostNode, errno: failure) }
        }
        guard pageSize != .small else { return }
        // SAFETY: the whole mapping.
        let failure = unsafe HostNodes.populate(mapping, byteCount: byteCount)
        // A kernel that makes none ahead has reserved them at least.
        guard failure == 0 || (failure == EINVAL && bindings.isEmpty) else { throw tooFew(UInt64(byteCount), on: nil, errno: failure) }
    }

    private func tooFew(_ byteCount: UInt64, on node: Int?, errno: CInt = ENOMEM) -> HostError {
        let count = byteCount / pageSize.rawValue, size = "\(pageSize.rawValue >> 20) MiB", kibibytes = pageSize.rawValue >> 10
        let place = node.map { " of host node \($0)" } ?? ""
        let knob =
            node.map { "/sys/devices/system/node/node\($0)/hugepages/hugepages-\(kibibytes)kB/nr_hugepages" }
            ?? (pageSize == .twoMiB ? "/proc/sys/vm/nr_hugepages" : "/sys/kernel/mm/hugepages/hugepages-\(kibibytes)kB/nr_hugepages")
        let remedy =
            errno == EINVAL
            ? "Linux 5.14 or later makes pages ahead; name no host node, or take small pages"
            : "fewer are free, or a cgroup's limit is below: write a larger number to \(knob), or take small pages"
        return HostError("take", subject: "\(count) pages of \(size)\(place) for guest RAM", errno: errno == EFAULT ? ENOMEM : errno, remedy: remedy)
    }
}
