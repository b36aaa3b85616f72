// Port and memory buses: which device answers at an address. Reads nobody claims are all ones, writes go nowhere.
package import GuestMemory
import Synchronization

/// Devices by I/O port. Those of the board are fixed before the first vCPU runs, so that an access of theirs takes no lock; what
/// the guest moves about (BARs, the power management block) is looked for after them.
package struct PortBus: Sendable {
    fileprivate struct Window: Sendable {
        let first: UInt16, last: UInt16
        let device: any BusDevice
    }
    private var windows: [Window] = []
    /// The same object in every copy of the bus.
    package let movable = MovablePorts()

    package init() {}

    /// Sends accesses of `count` ports from `port` on to `device`. The first attached wins where windows overlap.
    package mutating func attach(_ device: any BusDevice, at port: UInt16, count: UInt16) {
        windows.append(Window(first: port, last: port &+ (count &- 1), device: device))
    }

    package func read(_ port: UInt16, width: AccessWidth) -> UInt64 {
        for window in windows where window.first <= port && port <= window.last {
            return window.device.read(offset: UInt64(port - window.first), width: width) & width.allOnes
        }
        guard let (device, offset) = movable.find(port) else { return width.allOnes }
        return device.read(offset: offset, width: width) & width.allOnes
    }

    /// `count` reads of one port, the device looked for once.
    package func readString(_ port: UInt16, width: AccessWidth, count: Int, _ body: (Int, UInt64) -> Void) {
        for window in windows where window.first <= port && port <= window.last {
            return window.device.readString(offset: UInt64(port - window.first), width: width, count: count, body)
        }
        guard let (device, offset) = movable.find(port) else {
            for index in 0..<max(count, 0) { body(index, width.allOnes) }
            return
        }
        device.readString(offset: offset, width: width, count: count, body)
    }

    package func write(_ port: UInt16, width: AccessWidth, value: UInt64) {
        for window in windows where window.first <= port && port <= window.last {
            return window.device.write(offset: UInt64(port - window.first), width: width, value: value & width.allOnes)
        }
        guard let (device, offset) = movable.find(port) else { return }
        device.write(offset: offset, width: width, value: value & width.allOnes)
    }
}

/// Ports that come and go while the guest runs.
package final class MovablePorts: Sendable {
    private let windows = Mutex<[PortBus.Window]>([])

    init() {}

    /// The first attached wins where windows overlap. Nothing where the range leaves the 64 Ki ports.
    package func attach(_ device: any BusDevice, at port: UInt16, count: UInt16) {
        guard count > 0, port <= UInt16.max - (count - 1) else { return }
        windows.withLock { $0.append(PortBus.Window(first: port, last: port + (count - 1), device: device)) }
    }

    package func detach(_ device: any BusDevice, at port: UInt16) {
        windows.withLock { $0.removeAll { $0.first == port && $0.device === device } }
    }

    func find(_ port: UInt16) -> (device: any BusDevice, offset: UInt64)? {
        windows.withLock { windows in
            for window in windows where window.first <= port && port <= window.last {
                return (window.device, UInt64(port - window.first))
            }
            return nil
        }
    }
}

/// Devices by guest-physical address. BARs move while the guest runs; doorbells are in the kernel, so the lock here is not hot.
package final class MemoryBus: Sendable {
    private struct Window: Sendable {
        let base: UInt64, byteCount: UInt64
        let device: any BusDevice
    }
    private let windows = Mutex<[Window]>([])

    package init() {}

    /// False where the range overlaps another window or leaves the address space.
    @discardableResult
    package func attach(_ device: any BusDevice, at base: GuestAddress, byteCount: UInt64) -> Bool {
        guard byteCount > 0, let end = base.advanced(by: byteCount - 1) else { return false }
        return windows.withLock { windows in
            guard windows.allSatisfy({ end.rawValue < $0.base || base.rawValue > $0.base + ($0.byteCount - 1) }) else { return false }
            windows.append(Window(base: base.rawValue, byteCount: byteCount, device: device))
            return true
        }
    }

    package func detach(_ device: any BusDevice, at base: GuestAddress) {
        windows.withLock { $0.removeAll { $0.base == base.rawValue && $0.device === device } }
    }

    private func find(_ address: GuestAddress) -> (device: any BusDevice, offset: UInt64)? {
        windows.withLock { windows in
            for window in windows where address.rawValue >= window.base && address.rawValue - window.base < window.byteCount {
                return (window.device, address.rawValue - window.base)
            }
            return nil
        }
    }

    package func read(_ address: GuestAddress, byteCount: Int) -> UInt64 {
        guard let width = AccessWidth(rawValue: UInt8(truncatingIfNeeded: byteCount)) else { return .max }
        guard let found = find(address) else { return width.allOnes }
        return found.device.read(offset: found.offset, width: width) & width.allOnes
    }

    package func write(_ address: GuestAddress, byteCount: Int, value: UInt64) {
        guard let width = AccessWidth(rawValue: UInt8(truncatingIfNeeded: byteCount)), let found = find(address) else { return }
        found.device.write(offset: found.offset, width: width, value: value & width.allOnes)
    }
}
