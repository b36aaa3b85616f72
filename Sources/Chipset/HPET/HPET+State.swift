// What the HPET keeps across a save: the counter as it stood, to go on from there.
package import MachineCore

extension HPET {
    package static let stateVersion: UInt32 = 1

    package func save(into writer: inout StateWriter, at now: UInt64) {
        writer.write(configuration)
        writer.write(status)
        writer.write(counter(at: now))
        for index in 0..<Self.timerCount {
            writer.write(timers[index].configuration)
            writer.write(timers[index].comparator)
            writer.write(timers[index].period)
        }
    }

    package mutating func restore(
        from reader: inout StateReader, version: UInt32, at now: UInt64
    ) throws(DeviceStateError) {
        var copy = HPET(routes: routes)
        copy.configuration = try reader.read(UInt64.self) & Configuration.writable
        copy.status = try reader.read(UInt64.self) & 7
        let counter: UInt64 = try reader.read()
        copy.counterBase = copy.isRunning ? counter &- now / Self.nanosecondsPerTick : counter
        copy.seen = counter
        for index in 0..<Self.timerCount {
            var timer = Timer()
            timer.configuration = try reader.read(UInt64.self) & TimerConfiguration.writable
            timer.comparator = try reader.read(UInt64.self) & timer.mask
            timer.period = try reader.read(UInt64.self) & timer.mask
            copy.timers[index] = timer
        }
        self = copy
    }
}
