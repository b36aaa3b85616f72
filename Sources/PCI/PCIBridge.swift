// A bridge to another bus, as a PCI Express root port (1B36:000C): accesses of configuration space go to the buses that its registers
// name, memory and ports of the functions behind it are decoded as far as its windows let them through.
//
//     let port = try PCIBridge(rootPort: 0, name: "root-port-0", line: line)
//     try bus.attach(port, at: PCIAddress(device: 4))
//     try port.secondary.attach(function, at: PCIAddress(device: 0))
//
// Lock order: a function's configuration -> the windows here -> the address space. The bridge's registers are read before the windows'
// lock is taken.
import GuestMemory
package import MachineCore
import Synchronization

package final class PCIBridge: Sendable {
    private typealias Register = PCIConfigurationSpace.Bridge
    package let endpoint: PCIEndpoint
    /// What is behind: addresses there have bus 0, whatever number the guest gives it.
    package let secondary = PCIBus()
    private let windows = BridgeWindows()
    /// Whether the secondary bus is held in reset.
    private let isResetting = Mutex(false)

    /// - Parameters:
    ///   - number: of the port's slot.
    ///   - line: the port's INTA.
    package init(rootPort number: UInt16, name: String, isOccupied: Bool, line: (any InterruptLine)?) throws(AcceleratorError) {
        var space = PCIConfigurationSpace(bridge: PCIIdentity(vendor: 0x1B36, device: 0x000C, classCode: 0x06_04_00, subsystemVendor: 0, subsystem: 0))
        space.addRootPort(slotNumber: number, isOccupied: isOccupied)
        endpoint = try PCIEndpoint(space, name: name, line: line)
        endpoint.onReset { [weak self] in self?.secondary.reset() }
        endpoint.onWrite { [weak self] range in
            guard let self, range.overlaps(0x04..<0x06) || range.overlaps(Register.primaryBus..<0x40) else { return }
            follow()
        }
    }

    /// After saved state was restored, too: windows and reset as the registers say.
    package func follow() {
        windows.set(memory: memoryWindows, ports: portWindow)
        let isOn = register(Register.control, .word) & UInt64(Register.secondaryBusReset) != 0
        let rises = isResetting.withLock { isResetting in
            defer { isResetting = isOn }
            return isOn && !isResetting
        }
        if rises { secondary.reset() }
    }

    func connect(to space: any PCIAddressSpace) {
        windows.connect(to: space)
        secondary.connect(to: windows)
    }

    private func register(_ offset: Int, _ width: AccessWidth) -> UInt64 { endpoint.register(at: offset, width: width) }

    /// The function with this routing id, if it is behind here.
    func function(at routingID: UInt16) -> (any PCIFunction)? {
        let bus = UInt64(routingID >> 8), own = register(Register.secondaryBus, .byte)
        // Bus 0 is the root: a bridge whose numbers were not written yet leads nowhere.
        guard own != 0, bus >= own, bus <= register(Register.subordinateBus, .byte) else { return nil }
        return bus == own ? secondary.function(at: routingID & 0xFF) : secondary.behindBridges(routingID)
    }

    private var memoryWindows: [ClosedRange<UInt64>] {
        guard endpoint.command & PCIConfigurationSpace.Command.memorySpace != 0 else { return [] }
        func window(_ base: UInt64, _ limit: UInt64) -> ClosedRange<UInt64>? { base <= limit ? base...limit : nil }
        let narrow = register(Register.memoryWindow, .doubleWord), wide = register(Register.wideWindow, .doubleWord)
        return [
            window((narrow & 0xFFF0) << 16, narrow & 0xFFF0_0000 | 0xF_FFFF),
            window(
                (wide & 0xFFF0) << 16 | register(Register.wideBaseHigh, .doubleWord) << 32,
                wide & 0xFFF0_0000 | 0xF_FFFF | register(Register.wideLimitHigh, .doubleWord) << 32),
        ].compactMap { $0 }
    }

    private var portWindow: ClosedRange<UInt64>? {
        guard endpoint.command & PCIConfigurationSpace.Command.portSpace != 0 else { return nil }
        let register = register(Register.portWindow, .word), base = (register & 0xF0) << 8, limit = register & 0xF000 | 0xFFF
        return base <= limit ? base...limit : nil
    }
}

/// What functions behind a bridge ask to have decoded, and which of it passes.
private final class BridgeWindows: PCIAddressSpace {
    private struct Request: Sendable {
        let device: any BusDevice
        let base: UInt64, byteCount: UInt64
        let isPorts: Bool
        var passes = false

        func isSame(_ device: any BusDevice, _ base: UInt64, _ byteCount: UInt64, _ isPorts: Bool) -> Bool {
            self.device === device && self.base == base && self.byteCount == byteCount && self.isPorts == isPorts
        }
    }
    private struct State: Sendable {
        var upstream: (any PCIAddressSpace)?
        var requests: [Request] = []
        var memory: [ClosedRange<UInt64>] = []
        var ports: ClosedRange<UInt64>?

        func passes(_ request: Request) -> Bool {
            let end = request.base &+ (request.byteCount &- 1)
            guard request.byteCount > 0, end >= request.base else { return false }
            return (request.isPorts ? ports.map { [$0] } ?? [] : memory).contains { $0.contains(request.base) && $0.contains(end) }
        }
    }
    private let state = Mutex(State())

    func connect(to space: any PCIAddressSpace) { change { $0.upstream = space } }

    func set(memory: [ClosedRange<UInt64>], ports: ClosedRange<UInt64>?) { change { ($0.memory, $0.ports) = (memory, ports) } }

    private func change(_ body: (inout State) -> Void) {
        state.withLock { state in
            body(&state)
            guard let upstream = state.upstream else { return }
            // What goes before what comes: a window may have moved over another function's.
            for isComing in [false, true] {
                for index in state.requests.indices {
                    let passes = state.passes(state.requests[index])
                    guard passes != state.requests[index].passes, passes == isComing else { continue }
                    state.requests[index].passes = passes
                    Self.tell(upstream, state.requests[index])
                }
            }
        }
    }

    private static func tell(_ space: any PCIAddressSpace, _ request: Request) {
        let base = GuestAddress(request.base), port = UInt16(truncatingIfNeeded: request.base), count = UInt16(clamping: request.byteCount)
        switch (request.isPorts, request.passes) {
        case (false, true): space.map(request.device, at: base, byteCount: request.byteCount)
        case (false, false): space.unmap(request.device, at: base, byteCount: request.byteCount)
        case (true, true): space.mapPorts(request.device, at: port, count: count)
        case (true, false): space.unmapPorts(request.device, at: port, count: count)
        }
    }

    private func add(_ device: any BusDevice, _ base: UInt64, _ byteCount: UInt64, isPorts: Bool) {
        change { $0.requests.append(Request(device: device, base: base, byteCount: byteCount, isPorts: isPorts)) }
    }

    private func remove(_ device: any BusDevice, _ base: UInt64, _ byteCount: UInt64, isPorts: Bool) {
        state.withLock { state in
            guard let index = state.requests.firstIndex(where: { $0.isSame(device, base, byteCount, isPorts) }) else { return }
            var request = state.requests.remove(at: index)
            guard request.passes, let upstream = state.upstream else { return }
            request.passes = false
            Self.tell(upstream, request)
        }
    }

    func map(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) { add(window, base.rawValue, byteCount, isPorts: false) }
    func unmap(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) { remove(window, base.rawValue, byteCount, isPorts: false) }
    func mapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16) { add(window, UInt64(base), UInt64(count), isPorts: true) }
    func unmapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16) { remove(window, UInt64(base), UInt64(count), isPorts: true) }
}
