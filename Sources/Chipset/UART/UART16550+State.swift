// What a 16550A keeps across a save. Version 2 adds the modem status changes.
package import MachineCore

extension UART16550 {
    package static let stateVersion: UInt32 = 2

    package func save(into writer: inout StateWriter) {
        for value in [interruptEnable, fifoControl, lineControl, modemControl, scratch] { writer.write(value) }
        writer.write(divisor)
        writer.write(received)
        writer.write(hasOverrun)
        writer.write(transmitterEmptyPending)
        writer.write(modemChanges)
    }

    package mutating func restore(
        from reader: inout StateReader, version: UInt32 = UART16550.stateVersion
    ) throws(DeviceStateError) {
        var copy = UART16550()
        copy.interruptEnable = try reader.read(UInt8.self) & 0x0F
        copy.fifoControl = try reader.read(UInt8.self) & 0xC9
        copy.lineControl = try reader.read()
        copy.modemControl = try reader.read(UInt8.self) & 0x1F
        copy.scratch = try reader.read()
        copy.divisor = try reader.read()
        copy.received = try reader.readBytes(limit: Self.fifoByteCount)
        copy.hasOverrun = try reader.readBool()
        copy.transmitterEmptyPending = try reader.readBool()
        if version >= 2 { copy.modemChanges = try reader.read(UInt8.self) & 0x0F }
        self = copy
    }
}
