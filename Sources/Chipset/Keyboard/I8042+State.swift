// What the keyboard controller keeps across a save. Version 2 adds the devices, the source of the byte in the output
// register and the answer behind it; a state of version 1 is of a controller alone.
package import MachineCore

extension I8042 {
    package static let stateVersion: UInt32 = 2

    package func save(into writer: inout StateWriter) {
        writer.write(commandByte)
        writer.write(outputPort)
        writer.write(wasCommand)
        writer.write(optional: pendingCommand)
        writer.write(optional: output?.byte)
        writer.write(output?.hasTimedOut ?? false)
        writer.write(output?.source.rawValue ?? 0)
        writer.write(optional: reply?.byte)
        writer.write(reply?.hasTimedOut ?? false)
        writer.write(reply?.source.rawValue ?? 0)
        writer.write(translator.isBreak)
        writer.write(keyboard != nil)
        keyboard?.save(into: &writer)
        writer.write(mouse != nil)
        mouse?.save(into: &writer)
    }

    /// Replaces everything but which devices there are: those must be the same.
    package mutating func restore(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        var copy = I8042(hasKeyboardAndMouse: keyboard != nil)
        let mask = copy.mouse == nil ? CommandByte.writableAlone : CommandByte.writable
        copy.commandByte = try reader.read(UInt8.self) & mask
        if copy.mouse == nil { copy.commandByte |= CommandByte.auxiliaryDisabled }
        copy.outputPort = try reader.read()
        copy.wasCommand = try reader.readBool()
        copy.pendingCommand = try reader.readOptionalByte()
        guard version >= 2 else {
            let byte = try reader.readOptionalByte()
            let hasTimedOut = try reader.readBool()
            copy.output = byte.map { Output(byte: $0, source: .controller, hasTimedOut: hasTimedOut) }
            self = copy
            return
        }
        copy.output = try Self.readOutput(&reader)
        copy.reply = try Self.readOutput(&reader)
        copy.translator.isBreak = try reader.readBool()
        if try copy.isPresent(copy.keyboard, &reader) { try copy.keyboard?.restore(from: &reader) }
        if try copy.isPresent(copy.mouse, &reader) { try copy.mouse?.restore(from: &reader) }
        self = copy
    }

    private static func readOutput(_ reader: inout StateReader) throws(DeviceStateError) -> Output? {
        let byte = try reader.readOptionalByte()
        let hasTimedOut = try reader.readBool()
        let source: UInt8 = try reader.read()
        guard let source = Source(rawValue: source) else {
            throw DeviceStateError(
                section: reader.section, reason: "a byte in the output register has source \(source)")
        }
        return byte.map { Output(byte: $0, source: source, hasTimedOut: hasTimedOut) }
    }

    private func isPresent<Device>(_ device: Device?, _ reader: inout StateReader) throws(DeviceStateError) -> Bool {
        let isSaved = try reader.readBool()
        guard isSaved == (device != nil) else {
            throw DeviceStateError(
                section: reader.section,
                reason: "has \(isSaved ? "a" : "no") \(Device.self), this machine has \(isSaved ? "none" : "one")")
        }
        return isSaved
    }
}

extension PS2Keyboard {
    func save(into writer: inout StateWriter) {
        writer.write(replies)
        writer.write(events)
        writer.write(isScanning)
        writer.write(scanCodeSet)
        writer.write(indicators)
        writer.write(typematic)
        writer.write(optional: pendingCommand)
        writer.write(lastSent)
        for keys in [held, owed] {
            writer.write(keys.plain)
            writer.write(keys.extended)
        }
    }

    mutating func restore(from reader: inout StateReader) throws(DeviceStateError) {
        replies = try reader.readQueue()
        events = try reader.readQueue()
        isScanning = try reader.readBool()
        scanCodeSet = try reader.read(UInt8.self) == 1 ? 1 : 2
        indicators = try reader.read(UInt8.self) & 0x07
        typematic = try reader.read()
        pendingCommand = try reader.readOptionalByte()
        lastSent = try reader.read()
        held = KeySet(plain: try reader.read(), extended: try reader.read())
        owed = KeySet(plain: try reader.read(), extended: try reader.read())
    }
}

extension PS2Mouse {
    func save(into writer: inout StateWriter) {
        writer.write(replies)
        writer.write(reports)
        writer.write(kind.rawValue)
        for flag in [isEnabled, isRemote, isWrapping, isScaled2To1] { writer.write(flag) }
        for byte in [resolution, sampleRate, rateBefore, rateBeforeThat] { writer.write(byte) }
        writer.write(optional: pendingCommand)
        writer.write(lastSent)
        writer.write(buttons.rawValue)
        writer.write(reportedButtons.rawValue)
        for count in [x, y, z] { writer.write(Int32(truncatingIfNeeded: count)) }
    }

    mutating func restore(from reader: inout StateReader) throws(DeviceStateError) {
        replies = try reader.readQueue()
        reports = try reader.readQueue()
        let identifier: UInt8 = try reader.read()
        guard let kind = Kind(rawValue: identifier) else {
            throw DeviceStateError(
                section: reader.section, reason: "a mouse has id \(identifier), known are 0, 3 and 4")
        }
        self.kind = kind
        isEnabled = try reader.readBool()
        isRemote = try reader.readBool()
        isWrapping = try reader.readBool()
        isScaled2To1 = try reader.readBool()
        resolution = try reader.read(UInt8.self) & 3
        sampleRate = try reader.read()
        rateBefore = try reader.read()
        rateBeforeThat = try reader.read()
        pendingCommand = try reader.readOptionalByte()
        lastSent = try reader.read()
        buttons = MouseButtons(rawValue: try reader.read())
        reportedButtons = MouseButtons(rawValue: try reader.read())
        x = Int(try reader.read(Int32.self))
        y = Int(try reader.read(Int32.self))
        z = Int(try reader.read(Int32.self))
    }
}

extension StateWriter {
    fileprivate mutating func write(_ queue: PS2Queue) {
        write(queue.bits)
        write(UInt8(queue.count))
    }

    /// A value above 255 stands for none.
    fileprivate mutating func write(optional byte: UInt8?) { write(byte.map(UInt16.init) ?? .max) }
}

extension StateReader {
    fileprivate mutating func readQueue() throws(DeviceStateError) -> PS2Queue {
        let bits: UInt128 = try read(), count: UInt8 = try read()
        guard let queue = PS2Queue(bits: bits, count: Int(count)) else {
            throw DeviceStateError(
                section: section, reason: "a PS/2 queue of \(count) bytes, at most \(PS2Queue.capacity) are possible")
        }
        return queue
    }

    fileprivate mutating func readOptionalByte() throws(DeviceStateError) -> UInt8? {
        UInt8(exactly: try read(UInt16.self))
    }
}
