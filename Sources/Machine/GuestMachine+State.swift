// Saving and restoring a whole stopped machine: interrupt controllers and clock, processors, then the board's devices. RAM is
// not in it: that is the memory file's content.
//
// Layout: magic, version, RAM in MiB, number of vCPUs, then byte strings. A state is refused in words where it does not fit.
import GuestMemory
import MachineCore

/// A machine that cannot be saved or restored as asked.
package struct MachineStateError: Error, Sendable, CustomStringConvertible {
    package let operation: String
    package let reason: String

    package var description: String { "\(operation) the machine: \(reason) (caller)" }
}

extension GuestMachine {
    private static let magic: UInt64 = 0x4554_4154_5350_4141  // "AAPSTATE"
    private static let version: UInt32 = 1
    /// More than any one part holds; bounds what a damaged length may ask for.
    private static let partLimit = 16 << 20

    /// Stopped only.
    package func saveState() throws -> [UInt8] {
        if let obstacle = saveObstacle { throw MachineStateError(operation: "save", reason: obstacle) }
        var writer = StateWriter()
        writer.write(Self.magic)
        writer.write(Self.version)
        writer.write(board.memory.byteCount)
        writer.write(UInt32(processors.vcpus.count))
        writer.write(try machine.saveState())
        for vcpu in processors.vcpus { writer.write(try vcpu.saveState()) }
        writer.write(board.saveState())
        return writer.bytes
    }

    /// On a stopped machine made from the same description, whose RAM holds what it held.
    package func restoreState(_ state: [UInt8]) throws {
        var reader = StateReader(section: "machine", bytes: state)
        guard try reader.read(UInt64.self) == Self.magic else { throw MachineStateError(operation: "restore", reason: "this is no saved state") }
        let version = try reader.read(UInt32.self)
        guard version == Self.version else {
            throw MachineStateError(operation: "restore", reason: "the state has version \(version), this program knows \(Self.version)")
        }
        let memory = try reader.read(UInt64.self), count = try reader.read(UInt32.self)
        guard memory == board.memory.byteCount, Int(count) == processors.vcpus.count else {
            throw MachineStateError(
                operation: "restore",
                reason: "it was saved with \(memory >> 20) MiB and \(count) vCPUs, this one has \(board.memory.byteCount >> 20) MiB and \(processors.vcpus.count)")
        }
        // Devices drive interrupt lines while they are restored: the controllers come after them.
        let controllers = try reader.readBytes(limit: Self.partLimit)
        var vcpuStates: [[UInt8]] = []
        for _ in processors.vcpus { vcpuStates.append(try reader.readBytes(limit: Self.partLimit)) }
        try board.restoreState(try reader.readBytes(limit: Self.partLimit))
        try machine.restoreState(controllers)
        for (vcpu, state) in zip(processors.vcpus, vcpuStates) { try vcpu.restoreState(state) }
    }
}
