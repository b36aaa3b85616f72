// One queue of a tap device (Documentation/networking/tuntap): frames with a virtio-net header of 12 bytes in front.
package import CLinux
import Glibc
package import HostSystem

/// What the guest can take from the host unfinished (TUN_F_*).
package struct TapOffloads: OptionSet, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    package static let checksum = TapOffloads(rawValue: 0x01)
    package static let segmentationIPv4 = TapOffloads(rawValue: 0x02)
    package static let segmentationIPv6 = TapOffloads(rawValue: 0x04)
    package static let segmentationECN = TapOffloads(rawValue: 0x08)
}

/// The end of one transfer.
package enum TapTransfer: Sendable, Equatable {
    case bytes(Int)
    /// Nothing to read, or no room to write.
    case wouldBlock
    case failed(CInt)
}

/// Usage: one TapQueue per descriptor that was handed in, all into VirtIONet. Thread-safe: the kernel serialises.
package final class TapQueue: Sendable {
    /// Bytes of struct virtio_net_hdr with num_buffers.
    package static let headerByteCount = 12

    package let name: String
    private let tap: OwnedDescriptor
    /// Made with IFF_MULTI_QUEUE: may be detached and attached.
    package let isMultiQueue: Bool

    package init(owning descriptor: consuming OwnedDescriptor, named name: String) throws(HostError) {
        let number = descriptor.rawValue
        var flags: UInt16 = 0
        guard unsafe apus_tap_flags(number, &flags) == 0 else {
            throw HostError("examine tap", subject: name, errno: errno, remedy: "hand in a descriptor of a tap")
        }
        // IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
        guard flags & 0x5002 == 0x5002 else {
            throw HostError(
                "use tap", subject: name, errno: EINVAL, remedy: "open it with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR")
        }
        guard apus_tap_set_header(number, CInt(Self.headerByteCount)) == 0, apus_set_nonblocking(number) == 0 else {
            throw HostError("prepare tap", subject: name, errno: errno)
        }
        isMultiQueue = flags & 0x0100 != 0
        self.name = name
        tap = descriptor
    }

    /// For epoll and vhost.
    package var rawValue: CInt { tap.rawValue }

    /// Says what frames the host may hand over. Counts for the whole tap.
    package func setOffloads(_ offloads: TapOffloads) throws(HostError) {
        guard apus_tap_set_offload(tap.rawValue, offloads.rawValue) == 0 else {
            throw HostError("set offloads of tap", subject: name, errno: errno)
        }
    }

    /// Takes the queue in or out of the host's distribution of frames. Already so: nothing.
    package func setAttached(_ isAttached: Bool) throws(HostError) {
        guard isMultiQueue, apus_tap_set_attached(tap.rawValue, isAttached ? 1 : 0) != 0, errno != EINVAL else { return }
        throw HostError(isAttached ? "attach" : "detach", subject: "queue of tap \(name)", errno: errno)
    }

    /// Reads one frame into `vectors`.
    @unsafe package func read(into vectors: UnsafeMutableBufferPointer<iovec>) -> TapTransfer {
        // SAFETY: the caller's vectors describe memory it may fill.
        let count = unsafe readv(tap.rawValue, vectors.baseAddress, CInt(vectors.count))
        return Self.result(count)
    }

    /// Writes one frame from `vectors`.
    @unsafe package func write(from vectors: UnsafeMutableBufferPointer<iovec>) -> TapTransfer {
        // SAFETY: the caller's vectors describe memory it may read.
        let count = unsafe writev(tap.rawValue, vectors.baseAddress, CInt(vectors.count))
        return Self.result(count)
    }

    private static func result(_ count: Int) -> TapTransfer {
        if count >= 0 { return .bytes(count) }
        return errno == EAGAIN || errno == EINTR ? .wouldBlock : .failed(errno)
    }
}

/// Opens (and makes, where missing) tap `name`: for use by hand; the monitor is handed descriptors.
package func openTap(named name: String, isMultiQueue: Bool) throws(HostError) -> OwnedDescriptor {
    let descriptor = unsafe name.withCString { unsafe apus_tap_open($0, isMultiQueue ? 1 : 0) }
    guard descriptor >= 0 else {
        throw HostError("open tap", subject: name, errno: errno, remedy: "run with CAP_NET_ADMIN")
    }
    return OwnedDescriptor(owning: descriptor)
}
