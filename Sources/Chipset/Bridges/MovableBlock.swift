// A block of ports or memory whose place a configuration register names: the power management block, ECAM, the root complex.
package import GuestMemory
package import MachineCore
package import PCI
import Synchronization

/// Follows a base register. Calls of `move` come from configuration writes, one function at a time.
package final class MovableBlock: Sendable {
    package enum Place: Sendable, Equatable {
        case ports(UInt16, count: UInt16)
        case memory(GuestAddress, byteCount: UInt64)
    }
    private let device: any BusDevice
    private let space: any PCIAddressSpace
    private let place = Mutex<Place?>(nil)

    package init(_ device: any BusDevice, in space: any PCIAddressSpace) {
        self.device = device
        self.space = space
    }

    /// Where the block is now.
    package var current: Place? { place.withLock { $0 } }

    /// Nil: nowhere.
    package func move(to wanted: Place?) {
        place.withLock { place in
            guard place != wanted else { return }
            switch place {
            case .ports(let base, let count): space.unmapPorts(device, at: base, count: count)
            case .memory(let base, let byteCount): space.unmap(device, at: base, byteCount: byteCount)
            case nil: break
            }
            switch wanted {
            case .ports(let base, let count): space.mapPorts(device, at: base, count: count)
            case .memory(let base, let byteCount): space.map(device, at: base, byteCount: byteCount)
            case nil: break
            }
            place = wanted
        }
    }
}
