// MSI-X as registers: message control, vector table and pending bits (PCI 3.0 §6.8.2). A plain value; MSIXInterrupts
// wires it to message interrupts.
package import MachineCore

/// The registers of one function's MSI-X capability.
package struct MSIXTable: Sendable, Equatable {
    private struct Entry: Sendable, Equatable {
        var addressLow: UInt32 = 0
        var addressHigh: UInt32 = 0
        var data: UInt32 = 0
        /// Bit 0 masks; set after reset.
        var control: UInt32 = 1
    }

    /// Message control bits in the capability.
    private static let enable: UInt16 = 1 << 15
    private static let functionMask: UInt16 = 1 << 14
    /// Bytes of one table entry.
    package static let entryByteCount = 16

    private var entries: [Entry]
    private var pending: [Bool]
    package private(set) var isEnabled = false
    package private(set) var isFunctionMasked = false

    /// - Parameter vectorCount: 1-2048.
    package init(vectorCount: Int) {
        precondition((1...2048).contains(vectorCount), "MSI-X has 1 to 2048 vectors")
        entries = Array(repeating: Entry(), count: vectorCount)
        pending = Array(repeating: false, count: vectorCount)
    }

    package var vectorCount: Int { entries.count }

    /// The capability's body after id and next pointer, with table and PBA in BAR `bar`.
    package func capabilityBody(bar: UInt8, tableOffset: UInt32, pendingOffset: UInt32) -> [UInt8] {
        var writer = StateWriter()
        writer.write(UInt16(vectorCount - 1))
        writer.write(tableOffset | UInt32(bar & 7))
        writer.write(pendingOffset | UInt32(bar & 7))
        return writer.bytes
    }

    /// The writable bits of `capabilityBody`: enable and function mask.
    package static let capabilityMask: [UInt8] = [0x00, 0xC0]

    /// Follows the message control register.
    package mutating func setControl(_ control: UInt16) {
        isEnabled = control & Self.enable != 0
        isFunctionMasked = control & Self.functionMask != 0
    }

    /// Reads `width` bytes of the table; outside of it, or misaligned, zero.
    package func readTable(offset: Int, width: AccessWidth) -> UInt64 {
        if width == .quadWord {
            return readTable(offset: offset, width: .doubleWord)
                | readTable(offset: offset + 4, width: .doubleWord) << 32
        }
        guard let (entry, register) = locate(offset), width == .doubleWord else { return 0 }
        switch register {
        case 0: return UInt64(entries[entry].addressLow)
        case 1: return UInt64(entries[entry].addressHigh)
        case 2: return UInt64(entries[entry].data)
        default: return UInt64(entries[entry].control)
        }
    }

    /// Writes the table in double or quad words (others are undefined by the specification, and ignored). Returns the
    /// vector written.
    package mutating func writeTable(offset: Int, width: AccessWidth, value: UInt64) -> Int? {
        if width == .quadWord {
            _ = writeTable(offset: offset, width: .doubleWord, value: value & 0xFFFF_FFFF)
            return writeTable(offset: offset + 4, width: .doubleWord, value: value >> 32)
        }
        guard let (entry, register) = locate(offset), width == .doubleWord else { return nil }
        let word = UInt32(truncatingIfNeeded: value)
        switch register {
        case 0: entries[entry].addressLow = word & ~3
        case 1: entries[entry].addressHigh = word
        case 2: entries[entry].data = word
        default: entries[entry].control = word & 1
        }
        return entry
    }

    /// Reads the pending bit array; outside of it, zero.
    package func readPending(offset: Int, width: AccessWidth) -> UInt64 {
        guard offset >= 0 else { return 0 }
        var value: UInt64 = 0
        for bit in 0..<(width.byteCount * 8) {
            let vector = offset * 8 + bit
            if vector < pending.count, pending[vector] { value |= 1 << UInt64(bit) }
        }
        return value
    }

    /// What `vector` sends now, or nil while it is masked, MSI-X is off, or there is no such vector.
    package func message(for vector: Int) -> InterruptMessage? {
        guard isEnabled, !isFunctionMasked, entries.indices.contains(vector), entries[vector].control & 1 == 0 else {
            return nil
        }
        let entry = entries[vector]
        return InterruptMessage(
            address: UInt64(entry.addressHigh) << 32 | UInt64(entry.addressLow), data: entry.data)
    }

    /// Remembers an interrupt of a masked vector. Without effect while MSI-X is off.
    package mutating func setPending(_ vector: Int) {
        guard isEnabled, pending.indices.contains(vector) else { return }
        pending[vector] = true
    }

    /// Takes a remembered interrupt.
    package mutating func takePending(_ vector: Int) -> Bool {
        guard pending.indices.contains(vector), pending[vector] else { return false }
        pending[vector] = false
        return true
    }

    package mutating func reset() {
        self = MSIXTable(vectorCount: vectorCount)
    }

    private func locate(_ offset: Int) -> (entry: Int, register: Int)? {
        guard offset >= 0, offset & 3 == 0, offset / Self.entryByteCount < entries.count else { return nil }
        return (offset / Self.entryByteCount, (offset % Self.entryByteCount) / 4)
    }

    // MARK: saved state

    package func save(into writer: inout StateWriter) {
        writer.write(UInt16(entries.count))
        writer.write(isEnabled)
        writer.write(isFunctionMasked)
        for (entry, isPending) in zip(entries, pending) {
            writer.write(entry.addressLow)
            writer.write(entry.addressHigh)
            writer.write(entry.data)
            writer.write(entry.control)
            writer.write(isPending)
        }
    }

    package mutating func restore(from reader: inout StateReader) throws(DeviceStateError) {
        let count = Int(try reader.read(UInt16.self))
        guard count == entries.count else {
            throw DeviceStateError(
                section: reader.section, reason: "has \(count) MSI-X vectors, this device \(entries.count)")
        }
        isEnabled = try reader.readBool()
        isFunctionMasked = try reader.readBool()
        for index in 0..<count {
            entries[index] = Entry(
                addressLow: try reader.read(), addressHigh: try reader.read(), data: try reader.read(),
                control: try reader.read(UInt32.self) & 1)
            pending[index] = try reader.readBool()
        }
    }
}
