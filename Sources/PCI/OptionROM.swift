// An option ROM (PCI 3.0 §6.3): code for firmware, in the expansion ROM's window of a function.
//
//     let rom = try OptionROM(bytes, vendor: 0x1AF4, device: 0x1041)
//     space.addExpansionROM(byteCount: rom.byteCount); endpoint.setWindow(rom, forBAR: PCIConfigurationSpace.romIndex)
package import MachineCore

/// Bytes that are no option ROM.
package struct OptionROMError: Error, Sendable, Equatable, CustomStringConvertible {
    package let reason: String

    package var description: String { "read an option ROM: \(reason) (caller)" }
}

package final class OptionROM: BusDevice {
    /// More than any has; the window below 4 GiB is not for much more.
    package static let byteCountLimit = 4 << 20
    private enum Offset {
        /// Of the image: signature, checksum where ROMs of network boot have theirs, pointer to the data structure.
        static let checksum = 6, pointer = 0x18
        /// Of the data structure: vendor and device.
        static let vendor = 4, device = 6
    }

    private let bytes: [UInt8]
    /// Of the window: a power of two.
    package let byteCount: UInt64

    /// - Parameters:
    ///   - image: one or several images. A ROM that serves several functions names one of them: the first image's identity, which a
    ///     BIOS compares with the function's, becomes that of the function.
    package init(_ image: [UInt8], vendor: UInt16, device: UInt16) throws(OptionROMError) {
        guard image.count <= Self.byteCountLimit else { throw OptionROMError(reason: "\(image.count) bytes, \(Self.byteCountLimit) are the limit") }
        guard image.count >= 0x1A, image[0] == 0x55, image[1] == 0xAA else { throw OptionROMError(reason: "it does not begin with 55 AA") }
        let structure = Int(image[Offset.pointer]) | Int(image[Offset.pointer + 1]) << 8
        guard structure + 0x18 <= image.count, Array(image[structure..<(structure + 4)]) == Array("PCIR".utf8) else {
            throw OptionROMError(reason: "its first image has no PCI data structure")
        }
        var bytes = image
        var sum: UInt8 = 0
        for (offset, value) in [(Offset.vendor, vendor), (Offset.device, device)] {
            for (index, byte) in [UInt8(truncatingIfNeeded: value), UInt8(truncatingIfNeeded: value >> 8)].enumerated() {
                sum = sum &+ bytes[structure + offset + index] &- byte
                bytes[structure + offset + index] = byte
            }
        }
        bytes[Offset.checksum] = bytes[Offset.checksum] &+ sum
        self.bytes = bytes
        var byteCount: UInt64 = 2048
        while byteCount < UInt64(image.count) { byteCount <<= 1 }
        self.byteCount = byteCount
    }

    /// Behind the image, all ones: an empty chip.
    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        var value: UInt64 = 0
        for index in 0..<UInt64(width.byteCount) {
            let place = offset &+ index
            value |= UInt64(place < UInt64(bytes.count) ? bytes[Int(place)] : 0xFF) << (index * 8)
        }
        return value
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {}
}
