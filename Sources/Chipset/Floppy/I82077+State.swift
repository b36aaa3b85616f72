// What the floppy controller keeps across a save. A transfer under way does not survive: it ends with an overrun after
// the restore, which drivers answer by trying again.
package import MachineCore

extension I82077 {
    package static let stateVersion: UInt32 = 1

    package func save(into writer: inout StateWriter) {
        for byte in [
            digitalOutput, tapeDrive, rate, phase.rawValue, command, polled, specify.0, specify.1, configuration,
            precompensation, perpendicular,
        ] { writer.write(byte) }
        writer.write(bytes.bits)
        writer.write(UInt8(bytes.count))
        writer.write(hasInterrupt)
        writer.write(isLocked)
        writer.write(seekStatus.map(UInt16.init) ?? .max)
        for index in 0..<Self.driveCount {
            writer.write(drives[index].cylinder)
            writer.write(drives[index].isChanged)
        }
        for byte in [
            UInt8(transfer.drive & 3), transfer.cylinder, transfer.head, transfer.sector, transfer.sizeCode,
            transfer.last,
        ] { writer.write(byte) }
    }

    /// The disks are those in the drives now.
    package mutating func restore(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        var copy = self
        copy.digitalOutput = try reader.read()
        copy.tapeDrive = try reader.read(UInt8.self) & 3
        copy.rate = try reader.read(UInt8.self) & 3
        let number: UInt8 = try reader.read()
        copy.command = try reader.read()
        copy.polled = try reader.read(UInt8.self) & 0x0F
        copy.specify.0 = try reader.read()
        copy.specify.1 = try reader.read()
        copy.configuration = try reader.read()
        copy.precompensation = try reader.read()
        copy.perpendicular = try reader.read()
        let bits: UInt128 = try reader.read(), count: UInt8 = try reader.read()
        copy.hasInterrupt = try reader.readBool()
        copy.isLocked = try reader.readBool()
        copy.seekStatus = UInt8(exactly: try reader.read(UInt16.self))
        for index in 0..<Self.driveCount {
            copy.drives[index].cylinder = try reader.read()
            copy.drives[index].isChanged = try reader.readBool()
        }
        copy.transfer = Transfer()
        copy.transfer.drive = Int(try reader.read(UInt8.self) & 3)
        copy.transfer.cylinder = try reader.read()
        copy.transfer.head = try reader.read()
        copy.transfer.sector = try reader.read()
        copy.transfer.sizeCode = try reader.read()
        copy.transfer.last = try reader.read()
        copy.expected = 1 + Self.parameterCount(of: copy.command)
        let isComplete = count >= copy.expected || count == 0
        guard let phase = Phase(rawValue: number), let bytes = PS2Queue(bits: bits, count: Int(count)),
            phase != .result || count > 0, phase != .command || count == 0 || !isComplete
        else {
            throw DeviceStateError(
                section: reader.section, reason: "\(count) bytes in phase \(number) of command \(copy.command)")
        }
        copy.phase = phase
        copy.bytes = bytes
        copy.serial = serial &+ 1
        if phase == .execution {
            let operation = Operation(kind: .read, drive: copy.transfer.drive, sector: 0, serial: copy.serial)
            _ = copy.finish(operation, .overrun)
        }
        self = copy
    }
}
