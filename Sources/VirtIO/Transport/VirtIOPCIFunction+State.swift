// Saved state of a virtio function: configuration space, MSI-X, common configuration, queue positions, the device's own.
package import MachineCore
import Synchronization

extension VirtIOPCIFunction: SavableDevice {
    package static var stateVersion: UInt32 { 1 }

    /// Call `pause` first.
    package func saveState(into writer: inout StateWriter) {
        saveConfiguration(into: &writer)
        chip.withLock { chip in
            chip.registers.save(into: &writer)
            writer.write(UInt16(chip.positions.count))
            for position in chip.positions {
                writer.write(position != nil)
                writer.write(position?.nextAvailable ?? 0)
                writer.write(position?.nextUsed ?? 0)
            }
        }
        writer.write(events.savedISR)
        writer.write(events.generation)
        writer.write(events.needsReset)
        device.save(into: &writer)
    }

    /// On a fresh, paused function; `resume` starts the queues where they stood.
    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        guard version == Self.stateVersion else {
            throw DeviceStateError(section: stateName, reason: "has version \(version), newer than this program's 1")
        }
        try restoreConfiguration(from: &reader)
        var registers = chip.withLock { $0.registers }
        try registers.restore(from: &reader)
        let count = Int(try reader.read(UInt16.self))
        guard count == 0 || count == links.count else {
            throw DeviceStateError(section: stateName, reason: "has positions of \(count) queues")
        }
        var positions: [RingPosition?] = []
        for _ in 0..<count {
            let isPresent = try reader.readBool()
            let position = RingPosition(nextAvailable: try reader.read(), nextUsed: try reader.read())
            positions.append(isPresent ? position : nil)
        }
        let isr = try reader.read(UInt8.self)
        let generation = try reader.read(UInt8.self)
        let isBroken = try reader.readBool()
        try device.restore(from: &reader)
        events.restore(isr: isr, generation: generation, isBroken: isBroken)
        chip.withLock { [registers, positions] chip in
            chip.registers = registers
            chip.positions = positions
            chip.isRestored = true
            updateVector(nil, registers)
            for index in links.indices { updateVector(index, registers) }
        }
    }
}
