// All interrupt controllers of a machine whose accelerator has none: a local APIC for each processor, the I/O APIC, the
// 8259A pair, and the way of messages between them. One lock; processors are told after it is released.
//
//     device line --+--> 8259A pair --INTR--> LINT0 of the boot processor's APIC --+
//                   +--> I/O APIC --message--+                                     +--> processor: `acknowledge`
//     MSI ---------------------------------> destination --> IRR of local APICs ---+
//     a processor's command register --------^
//
// ISA interrupt 0 is at input 2 of the I/O APIC, as the MADT's override says; the other lines are at the input of their
// number.
package import MachineCore
import Synchronization

/// The processors, as the controllers see them. Any thread; no lock of the fabric is held, but a device's may be, for a
/// line is a leaf: an implementation notes and wakes, and asks the fabric on the processor's own thread.
package protocol InterruptTarget: AnyObject, Sendable {
    /// Processor `index` has something to take: it leaves a halt, or the guest, and looks.
    func wake(processor index: Int)
    /// Processor `index` gets an INIT, a start-up message, an NMI or an SMI.
    func signal(_ event: LocalAPIC.Event, processor index: Int)
}

package final class InterruptFabric: SavableDevice, Sendable {
    package static let stateVersion: UInt32 = 1
    package var stateName: String { "interrupts" }

    private struct State: Sendable {
        var locals: [LocalAPIC]
        var ioapic = IOAPIC()
        var pic = I8259Pair()
        var deadline: UInt64?
        /// What to tell once the lock is released.
        var wakes = VectorSet()
        var events: [(event: LocalAPIC.Event, processor: Int)] = []
    }
    private let state: Mutex<State>
    private let target: any InterruptTarget
    private let clock: any MachineClock
    private let timer: (any DeadlineTimer)?
    private let processorCount: Int

    /// `apicIDs` by processor, the boot processor first; at most 256.
    package init(
        apicIDs: [UInt32], target: any InterruptTarget, clock: any MachineClock, timer: (any DeadlineTimer)?
    ) {
        let locals = apicIDs.prefix(256).enumerated().map { LocalAPIC(id: $1, isBootProcessor: $0 == 0) }
        processorCount = locals.count
        state = Mutex(State(locals: locals))
        self.target = target
        self.clock = clock
        self.timer = timer
        timer?.onExpiry { [weak self] in self?.timerExpired() }
    }

    private func withState<Result: Sendable>(_ body: (inout State, UInt64) -> Result) -> Result {
        let (result, wakes, events) = state.withLock { state in
            // Taken under the lock, so that no chip sees time go back.
            let now = clock.nanoseconds
            let result = body(&state, now)
            if let timer {
                var deadline: UInt64?
                for index in state.locals.indices {
                    if let next = state.locals[index].nextDeadline { deadline = min(deadline ?? .max, next) }
                }
                if deadline != state.deadline {
                    state.deadline = deadline
                    timer.set(to: deadline)
                }
            }
            defer {
                state.wakes = VectorSet()
                state.events.removeAll(keepingCapacity: true)
            }
            return (result, state.wakes, state.events)
        }
        for (event, processor) in events { target.signal(event, processor: processor) }
        var rest = wakes
        while let index = rest.highest {
            rest.remove(index)
            target.wake(processor: Int(index))
        }
        return result
    }

    /// `body` on the local APIC of `processor`, whose timer was brought up to date; nil where there is no such
    /// processor.
    private func withLocal<Result: Sendable>(
        _ processor: Int, _ body: (inout State, inout LocalAPIC, UInt64) -> Result
    ) -> Result? {
        guard (0..<processorCount).contains(processor) else { return nil }
        return withState { state, now in
            state.locals[processor].advance(to: now)
            var local = state.locals[processor]
            let result = body(&state, &local, now)
            state.locals[processor] = local
            return result
        }
    }

    private func timerExpired() {
        withState { state, now in
            state.deadline = nil
            for index in state.locals.indices {
                state.locals[index].advance(to: now)
                if state.locals[index].pending != nil { state.wakes.insert(UInt8(index)) }
            }
        }
    }

    // MARK: Sources

    /// Global system interrupt `number`, 0 to 23.
    package func line(_ number: UInt8) -> any InterruptLine { Line(self, number: number) }

    /// A message-signalled interrupt.
    package func send(_ message: InterruptMessage) {
        guard let message = APICMessage(message) else { return }
        withState { state, _ in Self.route(message, from: nil, in: &state) }
    }

    /// The platform's NMI, at LINT1 of every processor: where its table says so, the processor takes it.
    package func pulseNMI() {
        withState { state, _ in
            for index in state.locals.indices {
                if let event = state.locals[index].pulseLINT1() { state.events.append((event, index)) }
                state.wakes.insert(UInt8(truncatingIfNeeded: index))
            }
        }
    }

    fileprivate func set(_ number: UInt8, isHigh: Bool) {
        withState { state, _ in
            Self.setINTR(state.pic.setInput(number, isHigh: isHigh), in: &state)
            // Input 2 has the timer; a line 2 would be the cascade, which no device has.
            let input = number == 0 ? 2 : number == 2 ? 0 : Int(number)
            Self.send(state.ioapic.setInput(input, isAsserted: isHigh), in: &state)
        }
    }

    // MARK: The way of messages

    private static func setINTR(_ level: Bool?, in state: inout State) {
        guard let level, !state.locals.isEmpty else { return }
        if let event = state.locals[0].setLINT0(isHigh: level) { state.events.append((event, 0)) }
        if level { state.wakes.insert(0) }
    }

    private static func send(_ inputs: IOAPIC.Inputs, in state: inout State) {
        var rest = inputs
        while rest != 0 {
            let input = rest.trailingZeroBitCount
            rest &= rest - 1
            if let message = state.ioapic.message(of: input) { route(message, from: nil, in: &state) }
        }
    }

    private static func route(_ message: APICMessage, from sender: Int?, in state: inout State) {
        var lowest: Int?
        for index in state.locals.indices {
            let isAddressed =
                switch message.shorthand {
                case .none: state.locals[index].accepts(message)
                case .itself: index == sender
                case .all: true
                case .others: index != sender
                }
            guard isAddressed else { continue }
            guard message.mode == .lowestPriority else {
                give(message, to: index, in: &state)
                continue
            }
            guard state.locals[index].isSoftwareEnabled else { continue }
            if let best = lowest, state.locals[best].processorPriority <= state.locals[index].processorPriority {
                continue
            }
            lowest = index
        }
        if let lowest { give(message, to: lowest, in: &state) }
    }

    private static func give(_ message: APICMessage, to index: Int, in state: inout State) {
        if let event = state.locals[index].receive(message) { state.events.append((event, index)) }
        state.wakes.insert(UInt8(truncatingIfNeeded: index))
    }

    private static func carryOut(_ output: LocalAPIC.Output, of processor: Int, in state: inout State) {
        if let vector = output.endedLevel { send(state.ioapic.endOfInterrupt(vector), in: &state) }
        if let message = output.message { route(message, from: processor, in: &state) }
    }

    // MARK: A processor's side. Its own thread.

    /// Whether `acknowledge` has something for the processor.
    package func hasInterrupt(processor: Int) -> Bool {
        withLocal(processor) { _, local, _ in local.pending != nil || local.isExternalInterruptPending } ?? false
    }

    /// The processor takes an interrupt: its vector, or nil where there is none.
    package func acknowledge(processor: Int) -> UInt8? {
        withLocal(processor) { state, local, _ -> UInt8? in
            if local.pending != nil { return local.acknowledge() }
            guard local.isExternalInterruptPending else { return nil }
            local.acknowledgeExternalInterrupt()
            let (vector, level) = state.pic.acknowledge()
            // The processor is in this very cycle: its LINT0 changes, and it needs no waking.
            if processor == 0, let level { _ = local.setLINT0(isHigh: level) }
            return vector
        } ?? nil
    }

    /// Where the processor's APIC registers are in its memory; nil: nowhere.
    package func localWindow(processor: Int) -> UInt64? { withLocal(processor) { _, local, _ in local.window } ?? nil }

    package func readLocal(_ offset: UInt64, width: AccessWidth, processor: Int) -> UInt64 {
        withLocal(processor) { _, local, now in local.readMemory(offset, width: width, at: now) } ?? width.allOnes
    }

    package func writeLocal(_ offset: UInt64, width: AccessWidth, value: UInt64, processor: Int) {
        changeLocal(processor) { local, now in local.writeMemory(offset, width: width, value: value, at: now) }
    }

    /// MSRs 0x1B and 0x800 to 0x83F. Nil: a general protection fault.
    package func readMSR(_ number: UInt32, processor: Int) -> UInt64? {
        withLocal(processor) { _, local, now in number == 0x1B ? local.baseMSR : local.readMSR(number, at: now) } ?? nil
    }

    /// False: a general protection fault.
    package func writeMSR(_ number: UInt32, _ value: UInt64, processor: Int) -> Bool {
        changeLocal(processor) { local, now in
            guard number == 0x1B else { return local.writeMSR(number, value, at: now) }
            return LocalAPIC.Output(isValid: local.setBaseMSR(value))
        }
    }

    /// MSR 0x6E0, for a time-stamp counter that shows `tsc` now and runs at `hertz`.
    package func setDeadline(_ value: UInt64, tsc: UInt64, hertz: UInt64, processor: Int) {
        changeLocal(processor) { local, now in
            local.setDeadline(value, tsc: tsc, hertz: hertz, at: now)
            return LocalAPIC.Output()
        }
    }

    package func tscDeadline(processor: Int) -> UInt64 {
        withLocal(processor) { _, local, _ in local.tscDeadline } ?? 0
    }

    package func cr8(processor: Int) -> UInt64 { withLocal(processor) { _, local, _ in local.cr8 } ?? 0 }

    package func setCR8(_ value: UInt64, processor: Int) {
        changeLocal(processor) { local, _ in
            local.cr8 = value
            return LocalAPIC.Output()
        }
    }

    @discardableResult
    private func changeLocal(_ processor: Int, _ body: (inout LocalAPIC, UInt64) -> LocalAPIC.Output) -> Bool {
        guard (0..<processorCount).contains(processor) else { return false }
        return withState { state, now in
            state.locals[processor].advance(to: now)
            let output = body(&state.locals[processor], now)
            Self.carryOut(output, of: processor, in: &state)
            return output.isValid
        }
    }

    // MARK: Buses

    /// For `IOAPIC.baseAddress`.
    package var ioapicDevice: any BusDevice { IOAPICWindow(self) }

    /// The 8259A pair's ports, two each.
    package var legacyPorts: [(first: UInt16, device: any BusDevice)] {
        [UInt16(0x20), 0xA0, 0x4D0].map { ($0, LegacyPorts(self, first: $0)) }
    }

    private final class Line: InterruptLine {
        private let fabric: InterruptFabric
        private let number: UInt8
        init(_ fabric: InterruptFabric, number: UInt8) {
            self.fabric = fabric
            self.number = number
        }
        func assert() { fabric.set(number, isHigh: true) }
        func deassert() { fabric.set(number, isHigh: false) }
    }

    private final class IOAPICWindow: BusDevice {
        private let fabric: InterruptFabric
        init(_ fabric: InterruptFabric) { self.fabric = fabric }
        func read(offset: UInt64, width: AccessWidth) -> UInt64 {
            fabric.withState { state, _ in UInt64(state.ioapic.read(offset)) }
        }
        func write(offset: UInt64, width: AccessWidth, value: UInt64) {
            fabric.withState { state, _ in
                InterruptFabric.send(state.ioapic.write(offset, UInt32(truncatingIfNeeded: value)), in: &state)
            }
        }
    }

    private final class LegacyPorts: BusDevice {
        private let fabric: InterruptFabric
        private let first: UInt16
        init(_ fabric: InterruptFabric, first: UInt16) {
            self.fabric = fabric
            self.first = first
        }
        func read(offset: UInt64, width: AccessWidth) -> UInt64 {
            var value: UInt64 = 0
            for index in 0..<UInt64(width.byteCount) {
                let port = I8259Pair.Port(rawValue: first &+ UInt16(truncatingIfNeeded: offset &+ index))
                value |= (port.map(read) ?? 0xFF) << (index * 8)
            }
            return value
        }
        private func read(_ port: I8259Pair.Port) -> UInt64 {
            fabric.withState { state, _ in
                let (value, level) = state.pic.read(port)
                InterruptFabric.setINTR(level, in: &state)
                return UInt64(value)
            }
        }
        func write(offset: UInt64, width: AccessWidth, value: UInt64) {
            for index in 0..<UInt64(width.byteCount) {
                guard let port = I8259Pair.Port(rawValue: first &+ UInt16(truncatingIfNeeded: offset &+ index)) else {
                    return
                }
                fabric.withState { state, _ in
                    InterruptFabric.setINTR(
                        state.pic.write(port, UInt8(truncatingIfNeeded: value >> (index * 8))), in: &state)
                }
            }
        }
    }

    // MARK: Saved state

    package func reset() {
        withState { state, _ in
            let ids = state.locals.map(\.initialID)
            state.locals = ids.enumerated().map { LocalAPIC(id: $1, isBootProcessor: $0 == 0) }
            state.ioapic = IOAPIC()
            state.pic = I8259Pair()
        }
    }

    package func saveState(into writer: inout StateWriter) {
        let (copy, now) = state.withLock { state in (state, clock.nanoseconds) }
        writer.write(UInt16(copy.locals.count))
        for local in copy.locals { local.save(into: &writer, at: now) }
        copy.ioapic.save(into: &writer)
        copy.pic.save(into: &writer)
    }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        let count = Int(try reader.read(UInt16.self))
        guard count == processorCount else {
            throw DeviceStateError(
                section: stateName, reason: "is of \(count) processors, this machine has \(processorCount)")
        }
        let now = clock.nanoseconds
        var locals = state.withLock { $0.locals }
        for index in locals.indices { try locals[index].restore(from: &reader, version: version, at: now) }
        var ioapic = IOAPIC(), pic = I8259Pair()
        try ioapic.restore(from: &reader, version: version)
        try pic.restore(from: &reader, version: version)
        withState { [locals, ioapic, pic] state, _ in
            state.locals = locals
            state.ioapic = ioapic
            state.pic = pic
            for index in locals.indices { state.wakes.insert(UInt8(truncatingIfNeeded: index)) }
        }
    }
}
