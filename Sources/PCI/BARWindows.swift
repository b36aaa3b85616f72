// Keeps the memory bus in step with the BARs of one function: the wiring behind PCIConfigurationSpace.decodedRanges.
package import GuestMemory
package import MachineCore

/// The BARs of one function as they are mapped now. A value under the function's configuration lock.
package struct BARWindows: Sendable {
    private var addressSpace: (any PCIAddressSpace)?
    private var mapped: [DecodedRange] = []

    package init() {}

    package mutating func connect(to addressSpace: any PCIAddressSpace) {
        self.addressSpace = addressSpace
    }

    /// Where BAR `index` is mapped, or nil.
    package func base(of index: Int) -> GuestAddress? {
        mapped.first { $0.bar == index }?.base
    }

    /// Unmaps what moved away and maps what is new. `window` gives the device behind a BAR.
    package mutating func update(to wanted: [DecodedRange], window: (Int) -> (any BusDevice)?) {
        guard wanted != mapped, let addressSpace else { return }
        for range in mapped where !wanted.contains(range) {
            guard let device = window(range.bar) else { continue }
            if range.isPorts {
                addressSpace.unmapPorts(device, at: UInt16(truncatingIfNeeded: range.base.rawValue), count: range.portCount)
            } else {
                addressSpace.unmap(device, at: range.base, byteCount: range.byteCount)
            }
        }
        for range in wanted where !mapped.contains(range) {
            guard let device = window(range.bar) else { continue }
            if range.isPorts {
                addressSpace.mapPorts(device, at: UInt16(truncatingIfNeeded: range.base.rawValue), count: range.portCount)
            } else {
                addressSpace.map(device, at: range.base, byteCount: range.byteCount)
            }
        }
        mapped = wanted
    }
}

extension DecodedRange {
    fileprivate var portCount: UInt16 { UInt16(clamping: byteCount) }
}
