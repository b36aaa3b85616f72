// MSI-X wired up: the table's registers drive message interrupts of the accelerator.
//
// Hot path: `trigger` on an I/O thread reads one atomic and sends. Only a masked vector, or the guest writing the table,
// takes the lock.
package import MachineCore
import Synchronization

/// The MSI-X vectors of one function.
package final class MSIXInterrupts: Sendable {
    private final class Vector: Sendable {
        let interrupt: any MessageInterrupt
        /// Mirrors `table.message(for:) != nil`, for `trigger`.
        let isDeliverable = Atomic<Bool>(false)
        /// Somebody other than `trigger` (vhost) sends through the event descriptor.
        let isDirect = Atomic<Bool>(false)

        init(_ interrupt: any MessageInterrupt) { self.interrupt = interrupt }
    }
    private struct State: Sendable {
        var table: MSIXTable
        /// What the accelerator was last told, by vector.
        var programmed: [InterruptMessage?]
    }

    private let vectors: [Vector]
    private let state: Mutex<State>
    private let failures = Atomic<UInt64>(0)

    package init(vectorCount: Int, factory: any MessageInterruptFactory) throws(AcceleratorError) {
        var vectors: [Vector] = []
        for _ in 0..<vectorCount { vectors.append(Vector(try factory.makeMessageInterrupt())) }
        self.vectors = vectors
        state = Mutex(
            State(
                table: MSIXTable(vectorCount: vectorCount), programmed: Array(repeating: nil, count: vectorCount)))
    }

    package var vectorCount: Int { vectors.count }
    /// Table entries that the accelerator refused to route, so far.
    package var routingFailures: UInt64 { failures.load(ordering: .relaxed) }
    package var table: MSIXTable { state.withLock { $0.table } }
    package var isEnabled: Bool { state.withLock { $0.table.isEnabled } }

    /// Sends `vector`, or remembers it while masked. No such vector: nothing.
    package func trigger(_ vector: Int) {
        guard vectors.indices.contains(vector) else { return }
        let target = vectors[vector]
        if target.isDeliverable.load(ordering: .acquiring) {
            target.interrupt.trigger()
            return
        }
        state.withLock { state in
            // Unmasked between the load and the lock.
            if state.table.message(for: vector) != nil {
                target.interrupt.trigger()
            } else {
                state.table.setPending(vector)
            }
        }
    }

    /// The eventfd that sends `vector`, for vhost. From here on the vector is taken to be pending whenever it was
    /// masked, since a message sent meanwhile is lost: a spurious interrupt is harmless, a lost one is a hang.
    package func directDescriptor(_ vector: Int) -> CInt? {
        guard vectors.indices.contains(vector), let descriptor = vectors[vector].interrupt.eventDescriptor else {
            return nil
        }
        vectors[vector].isDirect.store(true, ordering: .releasing)
        return descriptor
    }

    package func setControl(_ control: UInt16) {
        state.withLock { state in
            state.table.setControl(control)
            for vector in vectors.indices { program(vector, &state) }
        }
    }

    package func readTable(offset: Int, width: AccessWidth) -> UInt64 {
        state.withLock { $0.table.readTable(offset: offset, width: width) }
    }

    package func writeTable(offset: Int, width: AccessWidth, value: UInt64) {
        state.withLock { state in
            guard let vector = state.table.writeTable(offset: offset, width: width, value: value) else { return }
            program(vector, &state)
        }
    }

    package func readPending(offset: Int, width: AccessWidth) -> UInt64 {
        state.withLock { $0.table.readPending(offset: offset, width: width) }
    }

    package func reset() {
        state.withLock { state in
            state.table.reset()
            for vector in vectors.indices {
                program(vector, &state)
                vectors[vector].isDirect.store(false, ordering: .releasing)
            }
        }
    }

    /// Brings one vector in line with the table: called with the lock held.
    private func program(_ vector: Int, _ state: inout State) {
        let target = vectors[vector]
        let message = state.table.message(for: vector)
        let wasDeliverable = target.isDeliverable.load(ordering: .relaxed)
        guard let message else {
            target.isDeliverable.store(false, ordering: .releasing)
            // Re-routing is expensive for the accelerator, and a guest that moves an interrupt masks it for a moment:
            // `trigger` obeys isDeliverable, so only a vector somebody else sends must really be cut off.
            if target.isDirect.load(ordering: .acquiring), state.programmed[vector] != nil {
                route(vector, nil, &state)
            }
            return
        }
        if state.programmed[vector] != message { route(vector, message, &state) }
        target.isDeliverable.store(true, ordering: .releasing)
        let wasPending = state.table.takePending(vector)
        let mayHaveMissed = !wasDeliverable && target.isDirect.load(ordering: .acquiring)
        if wasPending || mayHaveMissed { target.interrupt.trigger() }
    }

    private func route(_ vector: Int, _ message: InterruptMessage?, _ state: inout State) {
        do {
            try vectors[vector].interrupt.setMessage(message)
            state.programmed[vector] = message
        } catch {
            failures.wrappingAdd(1, ordering: .relaxed)
            state.programmed[vector] = nil
        }
    }

    // MARK: saved state

    package func save(into writer: inout StateWriter) {
        table.save(into: &writer)
    }

    package func restore(from reader: inout StateReader) throws(DeviceStateError) {
        var restored = table
        try restored.restore(from: &reader)
        state.withLock { [restored] state in
            state.table = restored
            for vector in vectors.indices { program(vector, &state) }
        }
    }
}
