// What a local APIC keeps across a save: counts as they stood, to go on from there.
package import MachineCore

extension LocalAPIC {
    package static let stateVersion: UInt32 = 1

    package func save(into writer: inout StateWriter, at now: UInt64) {
        writer.write(baseMSR)
        for value in [
            identifier, taskPriority, logicalDestination, destinationFormat, spurious, errorStatus, pendingErrors,
            commandLow,
            commandHigh,
        ] { writer.write(value) }
        for set in [requests, inService, triggerModes] {
            writer.write(set.low)
            writer.write(set.high)
        }
        for index in 0..<6 { writer.write(localVectors[index]) }
        for flag in [lint0IsHigh, hasExternalInterrupt, waitsForStartUp, timer.isOver] { writer.write(flag) }
        writer.write(timer.initialCount)
        writer.write(timer.divideConfiguration)
        writer.write(now &- timer.start)
        writer.write(timer.deadline)
        writer.write(timer.deadlineNanoseconds == .max ? .max : timer.deadlineNanoseconds &- now)
    }

    package mutating func restore(
        from reader: inout StateReader, version: UInt32, at now: UInt64
    ) throws(DeviceStateError) {
        var copy = LocalAPIC(id: initialID, isBootProcessor: isBootProcessor)
        let mask = BaseMSR.address | BaseMSR.isBootProcessor | BaseMSR.extended | BaseMSR.enabled
        copy.baseMSR = try reader.read(UInt64.self) & mask
        copy.identifier = try reader.read()
        copy.taskPriority = try reader.read(UInt32.self) & 0xFF
        copy.logicalDestination = try reader.read()
        copy.destinationFormat = try reader.read()
        copy.spurious = try reader.read(UInt32.self) & Spurious.writable
        copy.errorStatus = try reader.read()
        copy.pendingErrors = try reader.read()
        copy.commandLow = try reader.read()
        copy.commandHigh = try reader.read()
        copy.requests = try reader.readVectors()
        copy.inService = try reader.readVectors()
        copy.triggerModes = try reader.readVectors()
        for index in 0..<6 { copy.localVectors[index] = try reader.read(UInt32.self) & 0x0007_FFFF }
        copy.lint0IsHigh = try reader.readBool()
        copy.hasExternalInterrupt = try reader.readBool()
        copy.waitsForStartUp = try reader.readBool()
        copy.timer.isOver = try reader.readBool()
        copy.timer.initialCount = try reader.read()
        copy.timer.divideConfiguration = try reader.read(UInt32.self) & 0x0B
        copy.timer.start = now &- (try reader.read(UInt64.self))
        copy.timer.deadline = try reader.read()
        let rest: UInt64 = try reader.read()
        copy.timer.deadlineNanoseconds = rest == .max ? .max : now &+ rest
        self = copy
    }
}

extension StateReader {
    fileprivate mutating func readVectors() throws(DeviceStateError) -> VectorSet {
        var set = VectorSet()
        set.low = try read()
        set.high = try read()
        return set
    }
}
