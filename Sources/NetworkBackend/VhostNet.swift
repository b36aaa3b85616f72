// vhost-net: the kernel moves frames between one pair of virtio queues and a tap, woken by the guest's doorbell and interrupting
// by itself (linux/vhost.h). This process only sets it up and takes it down.
import CLinux
import Glibc
package import HostSystem

/// Where guest RAM lies in this process, for the kernel's translation.
package struct VhostRegion: Sendable {
    package let guestAddress: UInt64
    package let byteCount: UInt64
    package let hostAddress: UInt64

    package init(guestAddress: UInt64, byteCount: UInt64, hostAddress: UInt64) {
        self.guestAddress = guestAddress
        self.byteCount = byteCount
        self.hostAddress = hostAddress
    }
}

/// One ring as the kernel needs it; its parts by their addresses in this process.
package struct VhostRing: Sendable {
    package var size: UInt16
    /// The available index to go on at.
    package var position: UInt16
    package var descriptorTable: UInt64
    package var availableRing: UInt64
    package var usedRing: UInt64
    /// The guest's doorbell, and what interrupts the guest.
    package var kick: CInt
    package var call: CInt

    package init(
        size: UInt16, position: UInt16, descriptorTable: UInt64, availableRing: UInt64, usedRing: UInt64, kick: CInt,
        call: CInt
    ) {
        self.size = size
        self.position = position
        self.descriptorTable = descriptorTable
        self.availableRing = availableRing
        self.usedRing = usedRing
        self.kick = kick
        self.call = call
    }
}

/// An open /dev/vhost-net that was handed in. Its owner serialises the calls.
package final class VhostNet: Sendable {
    /// virtio's feature bits that the kernel knows.
    package let features: UInt64
    private let vhost: OwnedDescriptor
    private let name: String

    /// - Parameter name: the tap's, for messages.
    package init(owning descriptor: consuming OwnedDescriptor, named name: String) throws(HostError) {
        let number = descriptor.rawValue
        guard apus_vhost_take(number) == 0 else {
            throw HostError(
                "take", subject: "vhost-net for \(name)", errno: errno,
                remedy: "hand in a descriptor of /dev/vhost-net of its own")
        }
        var features: UInt64 = 0
        guard unsafe apus_vhost_features(number, &features) == 0 else {
            throw HostError("ask features of", subject: "vhost-net for \(name)", errno: errno)
        }
        self.features = features
        self.name = name
        vhost = descriptor
    }

    /// Starts receive (0) and transmit (1) on `tap`. On failure neither runs.
    package func start(_ rings: [VhostRing], features: UInt64, regions: [VhostRegion], tap: TapQueue) throws(HostError)
    {
        guard apus_vhost_set_features(vhost.rawValue, features) == 0 else { throw failure("set features of") }
        let table = regions.map {
            apus_vhost_region(guest: $0.guestAddress, byte_count: $0.byteCount, host: $0.hostAddress)
        }
        // SAFETY: the shim copies `count` regions.
        guard unsafe apus_vhost_set_memory(vhost.rawValue, table, UInt32(table.count)) == 0 else {
            throw failure("set memory of")
        }
        for (index, ring) in rings.enumerated() {
            var ring = apus_vhost_ring(
                index: UInt32(index), size: UInt32(ring.size), position: UInt32(ring.position),
                descriptors: ring.descriptorTable,
                available: ring.availableRing, used: ring.usedRing, kick: ring.kick, call: ring.call)
            // SAFETY: reads one structure, a local.
            guard unsafe apus_vhost_set_ring(vhost.rawValue, &ring) == 0 else { throw failure("set ring \(index) of") }
        }
        for index in rings.indices {
            guard apus_vhost_set_backend(vhost.rawValue, UInt32(index), tap.rawValue) == 0 else {
                let error = failure("give a tap to ring \(index) of")
                for started in 0..<index { _ = apus_vhost_set_backend(vhost.rawValue, UInt32(started), -1) }
                throw error
            }
        }
    }

    /// Stops both rings and waits for what is in flight; the available indices they stand at.
    package func stop() -> [UInt16] {
        (UInt32(0)..<2).map { index in
            _ = apus_vhost_set_backend(vhost.rawValue, index, -1)
            var position: UInt32 = 0
            // SAFETY: fills a local. A ring that was set cannot be refused.
            _ = unsafe apus_vhost_position(vhost.rawValue, index, &position)
            return UInt16(truncatingIfNeeded: position)
        }
    }

    private func failure(_ operation: String) -> HostError {
        HostError(operation, subject: "vhost-net for \(name)", errno: errno)
    }
}
