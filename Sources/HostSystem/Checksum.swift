// CRC-32C: finds every burst of damage up to 32 bits and all but one in four thousand million of the rest. It tells damage from
// health, not a forgery from the truth.
import CLinux

/// A checksum that grows with what it is shown.
package struct Checksum: Sendable, Equatable {
    package private(set) var value: UInt32 = 0

    package init() {}

    package mutating func add(_ bytes: RawSpan) {
        value = unsafe bytes.withUnsafeBytes { unsafe apus_crc32c(value, $0.baseAddress, $0.count) }
    }

    @unsafe package mutating func add(_ bytes: UnsafeRawBufferPointer) {
        value = unsafe apus_crc32c(value, bytes.baseAddress, bytes.count)
    }

    package static func of(_ bytes: [UInt8]) -> UInt32 {
        var checksum = Checksum()
        unsafe checksum.add(bytes.span.bytes)
        return checksum.value
    }
}
