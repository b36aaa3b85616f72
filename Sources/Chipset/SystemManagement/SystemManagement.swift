// System management mode of a Q35 board: the two chips' registers on the bridges, RAM concealed as they say, and interrupts passed on.
//
//     let management = try SystemManagement(machine: machine, memory: memory)
//     let bridges = try Q35Bridges(…, management: management)      // the registers in configuration space
//     management.connect { target in … } onFailure: { … }         // the processors, once there are some
//
// Lock order: configuration hooks -> `state` -> the accelerator's memory. `state` is held while RAM is concealed, so that two
// processors that write the registers at once leave what the later of them said.
package import GuestMemory
package import MachineCore
import Synchronization

package final class SystemManagement: SavableDevice, Sendable {
    package static let stateVersion: UInt32 = 1
    package var stateName: String { "smm" }

    private static let legacy: Range<UInt64> = 0xA_0000..<0xC_0000
    private static let miB: UInt64 = 1 << 20

    private struct State: Sendable {
        var memory = SMRAMControl()
        var interrupts = SMIControl()
        /// What the accelerator was told last, by piece.
        var concealed: Set<Int> = []
    }
    private struct Connections: Sendable {
        var interrupt: (@Sendable (SMIControl.Target) -> Void)?
        var failure: (@Sendable (String) -> Void)?
    }
    private let machine: any VirtualMachine
    private let memory: GuestMemory
    private let pieces: [Range<UInt64>]
    private let state = Mutex(State())
    private let connections = Mutex(Connections())

    /// The pieces of RAM that the registers can conceal, for `VirtualMachine.enableSystemManagement`: 0xA0000-0xBFFFF, and the end of
    /// RAM below 4 GiB cut where TSEG can begin.
    package static func pieces(lowMemoryEnd end: UInt64) -> [Range<UInt64>] {
        let sizes = [UInt64(SMRAMControl.extendedMiB), 8, 2, 1, 0]
        return [legacy] + zip(sizes, sizes.dropFirst()).map { end - $0 * miB..<end - $1 * miB }
    }

    /// `machine` was given `pieces(lowMemoryEnd:)` before it was given `memory`.
    package init(machine: any VirtualMachine, memory: GuestMemory) throws(AcceleratorError) {
        self.machine = machine
        self.memory = memory
        pieces = Self.pieces(lowMemoryEnd: memory.regions.first?.byteCount ?? 0)
        var first = State()
        try conceal(&first)
        state.withLock { [first] in $0 = first }
    }

    /// - Parameters:
    ///   - interrupt: makes the interrupt; called on the thread of the processor that asked, with no lock held.
    ///   - failure: RAM could not be concealed or shown: the machine must not go on.
    package func connect(interrupt: @escaping @Sendable (SMIControl.Target) -> Void, failure: @escaping @Sendable (String) -> Void) {
        connections.withLock { $0 = Connections(interrupt: interrupt, failure: failure) }
    }

    /// Brings the accelerator and device accesses in line with the registers.
    private func conceal(_ state: inout State) throws(AcceleratorError) {
        let end = pieces.last?.upperBound ?? 0, segment = end - UInt64(state.memory.concealedMiB) * Self.miB..<end
        for (index, piece) in pieces.enumerated() {
            let wanted = index == 0 ? state.memory.concealsLegacy : segment.lowerBound <= piece.lowerBound
            guard wanted != state.concealed.contains(index) else { continue }
            try machine.setConcealed(index, wanted)
            if wanted { state.concealed.insert(index) } else { state.concealed.remove(index) }
        }
        memory.conceal(state.memory.concealsLegacy ? Self.legacy : nil, segment.isEmpty ? nil : segment)
    }

    private func update(_ body: (inout State) -> Void) {
        let failure = state.withLock { state -> String? in
            body(&state)
            do throws(AcceleratorError) { try conceal(&state) } catch { return "\(error)" }
            return nil
        }
        if let failure { connections.withLock { $0.failure }?("RAM of system management mode: " + failure) }
    }

    // MARK: Registers in configuration space

    /// The memory controller's registers as they were written; what they show from now on.
    func writeMemoryControl(smram: UInt8, extended: UInt8, extendedSize: UInt16) -> SMRAMControl {
        update {
            $0.memory.write(smram: smram, extended: extended)
            $0.memory.write(extendedSize: extendedSize)
        }
        return state.withLock { $0.memory }
    }

    /// SMI_LOCK as it was written; what it shows from now on.
    func writeLock(_ isSet: Bool) -> Bool {
        state.withLock { state in
            if isSet { state.interrupts.lock() }
            return state.interrupts.isLocked
        }
    }

    /// Before the bridges' registers go back to their first values.
    func resetMemoryControl() { update { $0.memory.reset() } }
    func resetInterrupts() { state.withLock { $0.interrupts.reset() } }

    // MARK: SMI_EN and SMI_STS, from SMI_EN on

    func read(offset: Int, width: AccessWidth) -> UInt64 {
        let interrupts = state.withLock { $0.interrupts }
        return (0..<width.byteCount).reduce(UInt64(0)) { $0 | UInt64(offset + $1 < 8 ? interrupts.byte(at: offset + $1) : 0) << UInt64(8 * $1) }
    }

    func write(offset: Int, width: AccessWidth, value: UInt64) {
        state.withLock { state in
            for index in 0..<width.byteCount where offset + index < 8 {
                state.interrupts.write(UInt8(truncatingIfNeeded: value >> UInt64(8 * index)), at: offset + index)
            }
        }
    }

    // MARK: Commands and features

    /// A command was written to APM_CNT. ACPI's two make no interrupt: the registers followed them already.
    package func note(_ command: UInt8) {
        guard command != SMICommandPort.acpiEnable, command != SMICommandPort.acpiDisable, let target = state.withLock({ $0.interrupts.command() }) else { return }
        connections.withLock { $0.interrupt }?(target)
    }

    package func requestFeatures(_ bytes: [UInt8]) {
        let features = bytes.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        state.withLock { $0.interrupts.request(features) }
    }
    package func agreeOnFeatures() -> UInt8 { state.withLock { $0.interrupts.agree() } }

    // MARK: Saved state: the memory controller's registers are in its configuration space

    package func saveState(into writer: inout StateWriter) { state.withLock { $0.interrupts }.save(into: &writer) }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        let interrupts = try SMIControl(from: &reader)
        state.withLock { $0.interrupts = interrupts }
    }
}
