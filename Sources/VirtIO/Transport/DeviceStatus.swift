// The device status field and the order a driver must set its bits in (virtio 1.2 §2.1, §3.1.1).

/// Device status bits.
package struct DeviceStatus: OptionSet, Sendable, Hashable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Valid next: driver, failed.
    package static let acknowledge = DeviceStatus(rawValue: 1)
    /// Valid next: featuresOK, failed.
    package static let driver = DeviceStatus(rawValue: 2)
    /// The queues and the device work. Valid next: failed, or a reset.
    package static let driverOK = DeviceStatus(rawValue: 4)
    /// The device took the features. Valid next: driverOK, failed.
    package static let featuresOK = DeviceStatus(rawValue: 8)
    /// Set by the device only. Valid next: a reset.
    package static let needsReset = DeviceStatus(rawValue: 64)
    package static let failed = DeviceStatus(rawValue: 128)

    /// Whether a driver may go from `self` to `next`: bits are only added, each after the one it builds on.
    func mayBecome(_ next: DeviceStatus) -> Bool {
        guard next.isSuperset(of: self.subtracting(.needsReset)) else { return false }
        if next.contains(.driver), !next.contains(.acknowledge) { return false }
        if next.contains(.featuresOK), !next.contains(.driver) { return false }
        // A driver reads FEATURES_OK back before it goes on: it cannot come together with DRIVER_OK.
        if next.contains(.driverOK), !self.contains(.featuresOK) { return false }
        return true
    }
}
