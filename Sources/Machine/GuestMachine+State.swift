// Saving and restoring a whole stopped machine: its devices, interrupt controllers, clock and processors as sections, its RAM beside
// them. State/ has the file; the article "Saved state" says what is in it and why.
import GuestMemory
import HostSystem
import MachineConfiguration
import MachineCore
import Synchronization

/// A saved state that fits a machine: every section but RAM's was read, found whole, and is of a version that its owner knows.
package struct RestorableState: Sendable {
    fileprivate let file: StateFile
    fileprivate let devices: [StateSection]
    fileprivate let controllers: StateSection
    fileprivate let vcpus: [StateSection]

    /// RAM is mapped from it: see `GuestMemory.adopt`.
    package var descriptor: CInt { file.descriptor }
}

extension GuestMachine {
    /// Versions of the accelerator's parts are inside of them; these are of how they lie in the file.
    private static let controllersVersion: UInt32 = 1, vcpuVersion: UInt32 = 1

    private func facts(savedAt: Int64) -> MachineFacts { MachineFacts(configuration, savedAt: savedAt) }

    /// All but RAM, as it is now. Stopped only, and it must stay stopped while the writer writes.
    package func collectState() throws -> StateFileWriter {
        if let obstacle = saveObstacle {
            throw MachineStateError("save", reason: obstacle, remedy: "resume, and save again when the disk answers")
        }
        let facts = facts(savedAt: SystemClock.wallSeconds)
        var sections = [facts.section]
        if let nodes = facts.nodesSection { sections.append(nodes) }
        sections += board.stateSections
        sections.append(
            StateSection(name: StateSectionName.controllers, version: Self.controllersVersion, bytes: try machine.saveState()))
        for (index, vcpu) in processors.vcpus.enumerated() {
            sections.append(StateSection(name: StateSectionName.vcpu(index), version: Self.vcpuVersion, bytes: try vcpu.saveState()))
        }
        return StateFileWriter(sections: sections, memory: board.memory)
    }

    /// Reads a saved state and refuses one that is damaged, newer, or of another machine. Changes nothing.
    package func openState(_ descriptor: CInt) throws -> RestorableState {
        let file = try StateFile(reading: descriptor)
        try file.facts.check(against: facts(savedAt: 0))
        guard file.memory.regions == board.memory.regions else {
            throw MachineStateError(
                "restore", section: StateSectionName.layout, reason: "its RAM lies elsewhere than this machine's", remedy: "give the description of the saved machine")
        }
        let vcpuNames = processors.vcpus.indices.map { StateSectionName.vcpu($0) }
        let own = Set([StateSectionName.machine, StateSectionName.nodes, StateSectionName.layout, StateSectionName.ram, StateSectionName.controllers] + vcpuNames)
        try board.checkDevices(of: file.entries.filter { !own.contains($0.name) })
        return RestorableState(
            file: file, devices: try board.savable.map { try file.section($0.stateName, upTo: type(of: $0).stateVersion) },
            controllers: try file.section(StateSectionName.controllers, upTo: Self.controllersVersion),
            vcpus: try vcpuNames.map { try file.section($0, upTo: Self.vcpuVersion) })
    }

    /// Takes the place of what the machine was. Stopped only; where this throws, the machine is neither what it was nor what it
    /// should have become.
    ///
    /// - Parameters:
    ///   - isFresh: nothing ran on the machine yet.
    ///   - begin: CLOCK_MONOTONIC when the restore was asked for.
    package func restore(_ state: RestorableState, isFresh: Bool, began begin: UInt64) throws {
        if !isFresh { board.reset() }
        try board.memory.adopt(state.file.descriptor, at: state.file.memoryOffset)
        // Devices drive interrupt lines while they are restored: the controllers come after them.
        try board.restoreDevices(state.devices)
        try machine.restoreState(state.controllers.bytes)
        for (vcpu, section) in zip(processors.vcpus, state.vcpus) { try vcpu.restoreState(section.bytes, at: .savedState) }
        processors.forgetFirstEntry()
        restoreBegan.store(begin, ordering: .relaxed)
    }

    /// From the restore that was asked for last to the first entry into the guest after it; nil before.
    package var restoreNanoseconds: UInt64? {
        let began = restoreBegan.load(ordering: .relaxed), entered = processors.firstEntryNanoseconds
        return began == 0 || entered == 0 ? nil : entered &- began
    }
}

extension Board {
    /// All devices' state.
    var stateSections: [StateSection] {
        savable.map { device in
            var writer = StateWriter()
            device.saveState(into: &writer)
            return StateSection(name: device.stateName, version: type(of: device).stateVersion, bytes: writer.bytes)
        }
    }

    /// Refuses what was saved of other devices than these.
    func checkDevices(of entries: [StateTableEntry]) throws(MachineStateError) {
        let remedy = "give the description of the saved machine"
        let saved = Set(entries.map(\.name)), present = Set(savable.map(\.stateName))
        if let name = saved.subtracting(present).min() {
            throw MachineStateError("restore", section: name, reason: "this machine has no such device", remedy: remedy)
        }
        if let name = present.subtracting(saved).min() {
            throw MachineStateError("restore", section: name, reason: "the saved machine had no such device", remedy: remedy)
        }
    }

    /// Into devices as after power on, made from the same description, in the order of `savable`.
    func restoreDevices(_ sections: [StateSection]) throws(MachineStateError) {
        for (device, section) in zip(savable, sections) {
            var reader = StateReader(section: section.name, bytes: section.bytes)
            do throws(DeviceStateError) {
                try device.restoreState(from: &reader, version: section.version)
                guard reader.remaining == 0 else {
                    throw DeviceStateError(section: section.name, reason: "\(reader.remaining) bytes more than its fields")
                }
            } catch {
                throw MachineStateError(
                    "restore", section: section.name, reason: error.reason, remedy: "give the description of the saved machine, and its disks as they were")
            }
        }
        followRestoredDevices()
    }
}
