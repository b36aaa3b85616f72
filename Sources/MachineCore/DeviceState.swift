// Saved state: every device can write what it holds and read it back, in a versioned, tagged, bounded form.
//
// Layout of a section: name, version, then fields in the order the device writes them, little-endian. A reader that meets
// a newer version or too few bytes refuses in words; it never traps.

/// A saved state that cannot be used: damaged, truncated or newer than this program.
package struct DeviceStateError: Error, Sendable, CustomStringConvertible {
    package let section: String
    package let reason: String

    package init(section: String, reason: String) {
        self.section = section
        self.reason = reason
    }

    package var description: String { "restore saved state of \(section): \(reason) (caller)" }
}

/// A device whose state survives the process.
package protocol SavableDevice: AnyObject {
    /// Unique in a machine and stable across releases, for example "uart@3f8".
    var stateName: String { get }
    /// Raised when the fields written change; older versions stay readable.
    static var stateVersion: UInt32 { get }
    /// Called with the machine paused.
    func saveState(into writer: inout StateWriter)
    /// Called with the machine paused, on a device freshly made from the same configuration.
    func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError)
}

/// Collects the fields of one section.
package struct StateWriter: Sendable {
    package private(set) var bytes: [UInt8] = []

    package init() {}

    package mutating func write<Value: FixedWidthInteger>(_ value: Value) {
        var rest = value
        for _ in 0..<(Value.bitWidth / 8) {
            bytes.append(UInt8(truncatingIfNeeded: rest))
            rest >>= 8
        }
    }

    package mutating func write(_ value: Bool) {
        bytes.append(value ? 1 : 0)
    }

    /// A byte string with its length (32 bits) before it.
    package mutating func write(_ value: [UInt8]) {
        write(UInt32(truncatingIfNeeded: value.count))
        bytes.append(contentsOf: value)
    }

    package mutating func write(_ value: String) {
        write(Array(value.utf8))
    }
}

/// Reads the fields of one section back, each checked against the end.
package struct StateReader: Sendable {
    package let section: String
    private let bytes: [UInt8]
    private var position = 0

    package init(section: String, bytes: [UInt8]) {
        self.section = section
        self.bytes = bytes
    }

    /// Bytes not read yet.
    package var remaining: Int { bytes.count - position }

    package mutating func read<Value: FixedWidthInteger>(
        _ type: Value.Type = Value.self
    ) throws(DeviceStateError) -> Value {
        let width = Value.bitWidth / 8
        guard remaining >= width else { throw truncated(width) }
        var value: Value = 0
        for index in 0..<width {
            value |= Value(truncatingIfNeeded: UInt64(bytes[position + index])) << (index * 8)
        }
        position += width
        return value
    }

    package mutating func readBool() throws(DeviceStateError) -> Bool {
        try read(UInt8.self) != 0
    }

    /// A byte string; `limit` bounds what a damaged length may ask for.
    package mutating func readBytes(limit: Int = 1 << 20) throws(DeviceStateError) -> [UInt8] {
        let count = Int(try read(UInt32.self))
        guard count <= limit, count <= remaining else { throw truncated(count) }
        defer { position += count }
        return Array(bytes[position..<(position + count)])
    }

    package mutating func readString(limit: Int = 4096) throws(DeviceStateError) -> String {
        String(decoding: try readBytes(limit: limit), as: UTF8.self)
    }

    private func truncated(_ wanted: Int) -> DeviceStateError {
        DeviceStateError(section: section, reason: "ends \(wanted) bytes needed at offset \(position) of \(bytes.count)")
    }
}
