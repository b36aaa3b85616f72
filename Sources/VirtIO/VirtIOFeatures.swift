// Feature bits that every device shares (virtio 1.2 §6). Bits 0-23 belong to the device.

/// A set of feature bits.
package struct VirtIOFeatures: OptionSet, Sendable, Hashable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    package static let ringIndirectDescriptors = VirtIOFeatures(rawValue: 1 << 28)
    package static let ringEventIndex = VirtIOFeatures(rawValue: 1 << 29)
    package static let version1 = VirtIOFeatures(rawValue: 1 << 32)

    /// What the transport and the queue offer for any device.
    package static let transport: VirtIOFeatures = [.ringIndirectDescriptors, .ringEventIndex, .version1]

    /// Bit `bit` of the device's own.
    package static func device(_ bit: UInt64) -> VirtIOFeatures {
        VirtIOFeatures(rawValue: 1 << (bit & 63))
    }
}
