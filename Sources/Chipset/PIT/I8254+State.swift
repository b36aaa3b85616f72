// What the 8254 keeps across a save: counters as they stood, to go on from there.
package import MachineCore

extension I8254 {
    package static let stateVersion: UInt32 = 1

    package func save(into writer: inout StateWriter, at now: UInt64) {
        let tick = Self.ticks(now)
        for channel in [channel0, channel1, channel2] { channel.save(into: &writer, at: tick) }
        writer.write(portB)
    }

    package mutating func restore(
        from reader: inout StateReader, version: UInt32, at now: UInt64
    ) throws(DeviceStateError) {
        var copy = I8254(at: now)
        let tick = Self.ticks(now)
        try copy.channel0.restore(from: &reader, at: tick)
        try copy.channel1.restore(from: &reader, at: tick)
        try copy.channel2.restore(from: &reader, at: tick)
        copy.portB = try reader.read(UInt8.self) & PortB.writable
        copy.channel0.gate = true
        copy.channel1.gate = true
        self = copy
    }
}

extension I8254.Channel {
    /// A value out of range stands for none.
    fileprivate func save(into writer: inout StateWriter, at tick: UInt64) {
        for byte in [mode, access] { writer.write(byte) }
        for flag in [isBCD, gate, isRunning, readsHigh, held != nil] { writer.write(flag) }
        writer.write(UInt32(truncatingIfNeeded: count))
        writer.write(UInt32(truncatingIfNeeded: nextCount ?? 0))
        writer.write(held ?? (tick &- start))
        writer.write(lowByte.map(UInt16.init) ?? .max)
        writer.write(latchedCount.map(UInt32.init) ?? .max)
        writer.write(latchedStatus.map(UInt16.init) ?? .max)
    }

    fileprivate mutating func restore(from reader: inout StateReader, at tick: UInt64) throws(DeviceStateError) {
        mode = try reader.read()
        access = try reader.read()
        isBCD = try reader.readBool()
        gate = try reader.readBool()
        isRunning = try reader.readBool()
        readsHigh = try reader.readBool()
        let isHeld = try reader.readBool()
        count = UInt64(try reader.read(UInt32.self))
        let next = UInt64(try reader.read(UInt32.self))
        guard mode <= 5, (1...3).contains(access), (1...65536).contains(count), next <= 65536 else {
            throw DeviceStateError(
                section: reader.section,
                reason: "mode \(mode), access \(access), counts \(count) and \(next) of a channel")
        }
        nextCount = next == 0 ? nil : next
        let elapsed: UInt64 = try reader.read()
        guard elapsed < 1 << 60 else {
            throw DeviceStateError(section: reader.section, reason: "a channel counts for \(elapsed) ticks")
        }
        start = tick &- elapsed
        held = isHeld ? elapsed : nil
        lowByte = UInt8(exactly: try reader.read(UInt16.self))
        latchedCount = UInt16(exactly: try reader.read(UInt32.self))
        latchedStatus = UInt8(exactly: try reader.read(UInt16.self))
    }
}
