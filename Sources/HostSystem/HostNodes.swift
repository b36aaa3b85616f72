// Memory by the nodes of a host with several (numa(7)): which there are, whole ranges bound to one, pages made ahead of their use.
import CLinux
import Glibc

/// The host's NUMA nodes as far as this process may have memory of them. Asks the kernel by calls: opens no path.
package enum HostNodes {
    /// Numbers of nodes are below this.
    package static let limit = Int(APUS_NODE_LIMIT)

    /// In ascending order; empty where the kernel does not say, for one because it knows no nodes.
    package static var usable: [Int] { (0..<limit).filter { apus_may_use_node(UInt32($0)) == 1 } }

    /// Pages of the range come from this node alone, however scarce it gets.
    ///
    /// - Parameters:
    ///   - start: whole pages from here on, none of which was touched yet.
    ///   - node: 0 and up to `limit`.
    ///   - owner: what the memory is, for the error.
    @unsafe package static func bind(_ start: UnsafeMutableRawPointer, byteCount: Int, to node: Int, owner: String) throws(HostError) {
        let failure = unsafe apus_bind_memory(start, byteCount, UInt32(clamping: node))
        guard failure != 0 else { return }
        let nodes = usable
        let remedy =
            nodes.isEmpty
            ? "this host's kernel knows no NUMA nodes; name none"
            : "this process may have memory of node\(nodes.count == 1 ? "" : "s") \(nodes.map(String.init).joined(separator: ", "))"
                + (nodes.contains(node) ? "" : "; name one of \(nodes.count == 1 ? "these, or none" : "them")")
        throw HostError("bind \(owner) to", subject: "host node \(node)", errno: failure, remedy: remedy)
    }

    /// Makes the range's pages now. Afterwards no touch of them can fail for want of memory.
    ///
    /// - Returns: 0 or the kernel's errno: EFAULT where there are too few pages, EINVAL on a kernel before 5.14.
    @unsafe package static func populate(_ start: UnsafeMutableRawPointer, byteCount: Int) -> CInt {
        unsafe apus_populate_memory(start, byteCount)
    }
}
