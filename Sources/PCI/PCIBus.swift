// The functions of a bus and their first addresses. We boot without firmware, so the monitor places BARs itself; the
// guest may move them later through configuration space.
//
// Usage: bus.attach(function, at: address) for each; bus.connect(to: memoryBus); try bus.placeBARs(); then attach
// PCIConfigurationPorts(bus) at port 0xCF8 and PCIExpressWindow(bus) at 0xB0000000.
import GuestMemory
import MachineCore
import Synchronization

/// A PCI bus that cannot be put together as asked.
package struct PCIBusError: Error, Sendable, CustomStringConvertible {
    package let address: PCIAddress
    package let reason: String

    package var description: String { "attach PCI function \(address): \(reason) (caller)" }
}

/// The functions of one segment, by address.
package final class PCIBus: Sendable {
    /// Where BARs are placed: above ECAM, below the IOAPIC.
    package static let memoryWindow: Range<UInt64> = 0xC000_0000..<0xFEC0_0000

    private let functions = Mutex<[UInt16: any PCIFunction]>([:])
    private let bridges = Mutex<[PCIBridge]>([])

    package init() {}

    /// Adds a function; refused where one is already.
    package func attach(_ function: any PCIFunction, at address: PCIAddress) throws(PCIBusError) {
        let isFree = functions.withLock { functions in
            guard functions[address.routingID] == nil else { return false }
            functions[address.routingID] = function
            return true
        }
        guard isFree else { throw PCIBusError(address: address, reason: "the address is taken") }
    }

    /// Adds a bridge with the bus behind it.
    package func attach(_ bridge: PCIBridge, at address: PCIAddress) throws(PCIBusError) {
        try attach(bridge.endpoint, at: address)
        bridges.withLock { $0.append(bridge) }
    }

    /// Every function of this bus, in address order.
    package var all: [(address: PCIAddress, function: any PCIFunction)] {
        functions.withLock { $0.sorted { $0.key < $1.key } }.map { (PCIAddress(routingID: $0.key), $0.value) }
    }

    /// Connects every function to the memory bus.
    package func connect(to addressSpace: any PCIAddressSpace) {
        for (_, function) in all { function.connect(to: addressSpace) }
        for bridge in bridges.withLock({ $0 }) { bridge.connect(to: addressSpace) }
    }

    /// Gives every memory BAR a place in `window`, aligned to its size; ports are left to the guest. Before it starts.
    package func placeBARs(in window: Range<UInt64> = PCIBus.memoryWindow) throws(PCIBusError) {
        var next = window.lowerBound
        for (address, function) in all {
            for bar in function.baseAddressRegisters where bar.kind != .ports {
                let base = (next + bar.byteCount - 1) & ~(bar.byteCount - 1)
                guard base < window.upperBound, bar.byteCount <= window.upperBound - base else {
                    throw PCIBusError(address: address, reason: "no room for BAR \(bar.index), \(bar.byteCount) bytes")
                }
                function.place(bar, at: GuestAddress(base))
                next = base + bar.byteCount
            }
        }
    }

    /// Resets every function, those behind bridges with their bridge.
    package func reset() {
        for (_, function) in all { function.reset() }
    }

    func function(at routingID: UInt16) -> (any PCIFunction)? {
        functions.withLock { $0[routingID] } ?? (routingID > 0xFF ? behindBridges(routingID) : nil)
    }

    func behindBridges(_ routingID: UInt16) -> (any PCIFunction)? {
        for bridge in bridges.withLock({ $0 }) { if let function = bridge.function(at: routingID) { return function } }
        return nil
    }

    /// One access to configuration space. An absent function reads all ones.
    func read(routingID: UInt16, offset: Int, width: AccessWidth) -> UInt64 {
        guard let function = function(at: routingID) else { return width.allOnes }
        return function.readConfiguration(offset: offset, width: width)
    }

    func write(routingID: UInt16, offset: Int, width: AccessWidth, value: UInt64) {
        function(at: routingID)?.writeConfiguration(offset: offset, width: width, value: value)
    }
}
