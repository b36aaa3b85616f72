// The two 8237A of a PC with their page registers: channels 0 to 3 move bytes within 64 KiB, 5 to 7 words within 128
// KiB; channel 4 joins the two.
package import MachineCore

package struct I8237Pair: Sendable {
    /// A run of guest memory.
    package struct Segment: Sendable, Equatable {
        package var address: UInt64
        package var byteCount: Int
    }
    /// What a device's request came to: the memory of the bytes moved, in their order; nothing in a verify transfer.
    package struct Transfer: Sendable, Equatable {
        package var segments: [Segment] = []
        package var byteCount = 0
        /// The channel's count is over: the device stops (its TC input).
        package var isTerminal = false
    }

    package internal(set) var bytes = I8237(), words = I8237()
    /// Ports 0x80 to 0x8F; those that are no channel's page keep what is written.
    var pages: UInt128 = 0

    package init() {}

    private func page(_ port: UInt8) -> UInt8 { UInt8(truncatingIfNeeded: pages >> UInt128((port & 15) * 8)) }

    /// Ports of the channels' page registers, less 0x80.
    private static let pagePorts: [UInt8] = [0x7, 0x3, 0x1, 0x2, 0xF, 0xB, 0x9, 0xA]

    /// Advances `channel` (0 to 7) by at most `byteCount` bytes, which the device then moves. Nothing where the channel
    /// is masked, in the other direction, or channel 4.
    package mutating func request(_ channel: Int, writesMemory: Bool, byteCount: Int) -> Transfer {
        var transfer = Transfer()
        guard (0..<8).contains(channel), channel != 4, byteCount > 0 else { return transfer }
        // Channel 4 passes the first controller's requests on: masked, as after a reset, it lets none through.
        guard channel > 4 || words.command & I8237.Command.disable == 0 && words.masks & 1 == 0 else { return transfer }
        let page = UInt64(page(Self.pagePorts[channel]))
        var segments: [Segment] = []
        if channel < 4 {
            guard bytes.isReady(channel, writesMemory: writesMemory) else { return transfer }
            (transfer.byteCount, transfer.isTerminal) = bytes.move(channel, limit: byteCount) { first, units in
                segments.append(Segment(address: page << 16 | UInt64(first), byteCount: units))
            }
        } else {
            guard words.isReady(channel - 4, writesMemory: writesMemory) else { return transfer }
            let (units, isTerminal) = words.move(channel - 4, limit: byteCount / 2) { first, units in
                segments.append(Segment(address: (page & 0xFE) << 16 | UInt64(first) << 1, byteCount: units * 2))
            }
            transfer.byteCount = units * 2
            transfer.isTerminal = isTerminal
        }
        transfer.segments = segments
        return transfer
    }

    // MARK: Registers

    /// Ports 0x00-0x0F, 0x80-0x8F and 0xC0-0xDF; nil: none of them.
    package mutating func read(_ port: UInt16) -> UInt8? {
        switch port {
        case 0x00...0x0F: bytes.read(UInt8(port))
        case 0x80...0x8F: page(UInt8(port))
        case 0xC0...0xDF: words.read(UInt8(port - 0xC0) >> 1)
        default: nil
        }
    }

    package mutating func write(_ port: UInt16, _ value: UInt8) {
        switch port {
        case 0x00...0x0F: bytes.write(UInt8(port), value)
        case 0x80...0x8F:
            let shift = UInt128((port & 15) * 8)
            pages = pages & ~(0xFF << shift) | UInt128(value) << shift
        case 0xC0...0xDF: words.write(UInt8(port - 0xC0) >> 1, value)
        default: break
        }
    }

    // MARK: Saved state

    package static let stateVersion: UInt32 = 1

    package func save(into writer: inout StateWriter) {
        bytes.save(into: &writer)
        words.save(into: &writer)
        writer.write(pages)
    }

    package mutating func restore(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        var copy = I8237Pair()
        try copy.bytes.restore(from: &reader)
        try copy.words.restore(from: &reader)
        copy.pages = try reader.read()
        self = copy
    }
}

extension I8237 {
    fileprivate func save(into writer: inout StateWriter) {
        for index in 0..<4 {
            let channel = channels[index]
            for word in [channel.baseAddress, channel.baseCount, channel.address, channel.count] { writer.write(word) }
            writer.write(channel.mode)
        }
        for byte in [command, masks, requests, terminalCounts] { writer.write(byte) }
        writer.write(isHighByte)
    }

    fileprivate mutating func restore(from reader: inout StateReader) throws(DeviceStateError) {
        for index in 0..<4 {
            channels[index].baseAddress = try reader.read()
            channels[index].baseCount = try reader.read()
            channels[index].address = try reader.read()
            channels[index].count = try reader.read()
            channels[index].mode = try reader.read(UInt8.self) & 0xFC
        }
        command = try reader.read()
        masks = try reader.read(UInt8.self) & 0x0F
        requests = try reader.read(UInt8.self) & 0x0F
        terminalCounts = try reader.read(UInt8.self) & 0x0F
        isHighByte = try reader.readBool()
    }
}
