// What the watchdog keeps across a save: the rest of its stage, to go on from there.
package import MachineCore

extension I6300ESB {
    package static let stateVersion: UInt32 = 1

    package func save(into writer: inout StateWriter, at now: UInt64) {
        writer.write(configuration)
        writer.write(lock)
        writer.write(preload1)
        writer.write(preload2)
        writer.write(interruptStatus)
        writer.write(hasTimedOut)
        writer.write(unlockStep)
        writer.write(stage.rawValue)
        writer.write(end > now ? end - now : 0)
    }

    package mutating func restore(
        from reader: inout StateReader, version: UInt32, at now: UInt64
    ) throws(DeviceStateError) {
        var copy = I6300ESB()
        copy.configuration = try reader.read(UInt16.self) & Configuration.writable
        copy.lock = try reader.read(UInt8.self) & Lock.writable
        copy.preload1 = try reader.read(UInt32.self) & 0x000F_FFFF
        copy.preload2 = try reader.read(UInt32.self) & 0x000F_FFFF
        copy.interruptStatus = try reader.readBool()
        copy.hasTimedOut = try reader.readBool()
        copy.unlockStep = min(try reader.read(UInt8.self), 2)
        let number: UInt8 = try reader.read()
        guard let stage = Stage(rawValue: number) else {
            throw DeviceStateError(
                section: reader.section, reason: "the watchdog is in stage \(number), there are 0 to 2")
        }
        copy.stage = stage
        copy.end = now &+ (try reader.read(UInt64.self))
        self = copy
    }
}
