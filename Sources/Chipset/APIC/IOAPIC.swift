// The I/O APIC (82093AA; version 0x20 with the EOI register, as in the ICH9 §13.5): 24 inputs, a redirection entry
// each. A pure value: each mutation returns the inputs that now send a message, one bit each, and `message(of:)` says
// which.
//
// Polarity is kept and not obeyed: lines here are asserted or not, whatever level stands for it.
package import MachineCore

package struct IOAPIC: Sendable, Equatable {
    package static let inputCount = 24
    package static let baseAddress: UInt64 = 0xFEC0_0000, byteCount: UInt64 = 0x1000

    enum Register {
        /// IOREGSEL, IOWIN, EOIR from the base.
        static let select: UInt64 = 0x00, window: UInt64 = 0x10, endOfInterrupt: UInt64 = 0x40
        /// Behind the window.
        static let identifier: UInt8 = 0x00, version: UInt8 = 0x01, arbitration: UInt8 = 0x02, redirection: UInt8 = 0x10
    }
    static let version: UInt32 = 0x20 | UInt32(inputCount - 1) << 16
    enum Entry {
        static let logical: UInt64 = 1 << 11, deliveryStatus: UInt64 = 1 << 12, remoteIRR: UInt64 = 1 << 14
        static let level: UInt64 = 1 << 15, masked: UInt64 = 1 << 16
        static let writable: UInt64 = 0xFF00_0000_0001_AFFF
    }
    /// Inputs, one bit each.
    package typealias Inputs = UInt32

    var identifier: UInt32 = 0
    var selected: UInt8 = 0
    var entries: [24 of UInt64] = [24 of UInt64](repeating: Entry.masked)
    /// Inputs that are asserted; edges that were not sent yet.
    package internal(set) var asserted: Inputs = 0
    var edges: Inputs = 0

    package init() {}

    package static func == (left: IOAPIC, right: IOAPIC) -> Bool {
        left.identifier == right.identifier && left.selected == right.selected && left.asserted == right.asserted
            && left.edges == right.edges && (0..<inputCount).allSatisfy { left.entries[$0] == right.entries[$0] }
    }

    /// What input `input` sends; nil where there is no such input or its delivery mode is reserved.
    package func message(of input: Int) -> APICMessage? {
        guard (0..<Self.inputCount).contains(input) else { return nil }
        let entry = entries[input]
        guard let mode = APICMessage.DeliveryMode(rawValue: UInt8(entry >> 8 & 7)) else { return nil }
        return APICMessage(
            vector: UInt8(entry & 0xFF), mode: mode, destination: UInt32(entry >> 56),
            isLogical: entry & Entry.logical != 0,
            isLevel: entry & Entry.level != 0)
    }

    /// Sends what input `input` has to say.
    private mutating func service(_ input: Int) -> Inputs {
        let bit: Inputs = 1 << UInt32(input), entry = entries[input]
        guard entry & Entry.masked == 0 else { return 0 }
        if entry & Entry.level != 0 {
            guard asserted & bit != 0, entry & Entry.remoteIRR == 0 else { return 0 }
            entries[input] |= Entry.remoteIRR
        } else {
            guard edges & bit != 0 else { return 0 }
            edges &= ~bit
        }
        return bit
    }

    /// The level of input `input`; the inputs that send.
    @discardableResult
    package mutating func setInput(_ input: Int, isAsserted: Bool) -> Inputs {
        guard (0..<Self.inputCount).contains(input) else { return 0 }
        let bit: Inputs = 1 << UInt32(input)
        // An edge at a masked input is lost (82093AA §3.2.4).
        if isAsserted, asserted & bit == 0, entries[input] & (Entry.level | Entry.masked) == 0 { edges |= bit }
        asserted = isAsserted ? asserted | bit : asserted & ~bit
        return service(input)
    }

    /// A processor ended a level-triggered interrupt: what is still asserted is sent again.
    @discardableResult
    package mutating func endOfInterrupt(_ vector: UInt8) -> Inputs {
        var sending: Inputs = 0
        for input in 0..<Self.inputCount {
            let entry = entries[input]
            guard entry & Entry.level != 0, entry & Entry.remoteIRR != 0, UInt8(entry & 0xFF) == vector else {
                continue
            }
            entries[input] &= ~Entry.remoteIRR
            sending |= service(input)
        }
        return sending
    }

    // MARK: Registers

    package func read(_ offset: UInt64) -> UInt32 {
        switch offset {
        case Register.select: return UInt32(selected)
        case Register.window: break
        default: return 0
        }
        switch selected {
        case Register.identifier, Register.arbitration: return identifier
        case Register.version: return Self.version
        default: break
        }
        guard let (input, isHigh) = entry(selected) else { return 0 }
        return UInt32(truncatingIfNeeded: isHigh ? entries[input] >> 32 : entries[input])
    }

    private func entry(_ register: UInt8) -> (input: Int, isHigh: Bool)? {
        guard register >= Register.redirection else { return nil }
        let place = Int(register - Register.redirection)
        return place / 2 < Self.inputCount ? (place / 2, place & 1 != 0) : nil
    }

    /// The inputs that send.
    @discardableResult
    package mutating func write(_ offset: UInt64, _ value: UInt32) -> Inputs {
        switch offset {
        case Register.select: selected = UInt8(truncatingIfNeeded: value)
        case Register.endOfInterrupt: return endOfInterrupt(UInt8(truncatingIfNeeded: value))
        case Register.window where selected == Register.identifier: identifier = value & 0x0F00_0000
        case Register.window:
            guard let (input, isHigh) = entry(selected) else { return 0 }
            let mask: UInt64 = isHigh ? 0xFFFF_FFFF_0000_0000 : 0xFFFF_FFFF,
                bits = isHigh ? UInt64(value) << 32 : UInt64(value)
            let writable = mask & Entry.writable
            var entry = entries[input] & ~writable | bits & writable
            // An edge has no remote IRR: drivers of old versions clear it by a change of the mode and back.
            if entry & Entry.level == 0 {
                entry &= ~Entry.remoteIRR
            } else {
                edges &= ~(1 << UInt32(input))
            }
            entries[input] = entry
            return service(input)
        default: break
        }
        return 0
    }

    // MARK: Saved state

    package static let stateVersion: UInt32 = 1

    package func save(into writer: inout StateWriter) {
        writer.write(identifier)
        writer.write(selected)
        writer.write(asserted)
        writer.write(edges)
        for input in 0..<Self.inputCount { writer.write(entries[input]) }
    }

    package mutating func restore(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        var copy = IOAPIC()
        let inputs: Inputs = 1 << Inputs(Self.inputCount) - 1
        copy.identifier = try reader.read(UInt32.self) & 0x0F00_0000
        copy.selected = try reader.read()
        copy.asserted = try reader.read(UInt32.self) & inputs
        copy.edges = try reader.read(UInt32.self) & inputs
        for input in 0..<Self.inputCount {
            copy.entries[input] = try reader.read(UInt64.self) & (Entry.writable | Entry.remoteIRR)
        }
        self = copy
    }
}
