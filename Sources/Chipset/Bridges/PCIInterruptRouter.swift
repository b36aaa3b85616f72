// From the INTx pins of slots to the inputs of the interrupt controllers: pin -> PIRQA..H -> ISA interrupts as the bridge's PIRQ
// registers say, and on ICH9 I/O APIC pins 16-23 besides (ICH9 data sheet §5.8.6; PIIX3 data sheet §2.2.9).
//
// A PIRQ is wired OR of the pins on it, and an ISA interrupt of the PIRQs routed there.
package import MachineCore
import Synchronization

package final class PCIInterruptRouter: Sendable {
    /// How the board wires slots to PIRQs.
    package enum Wiring: Sendable {
        /// i440FX: four PIRQs, rotated by the slot, from slot 1 on.
        case piix
        /// Q35: slots 0-24 rotate over E-H, slots 25-31 have A-D as they are.
        case ich9

        /// PIRQ number (A = 0) of `pin` (INTA = 1) of a device on bus 0.
        package func pirq(device: UInt8, pin: UInt8) -> Int {
            let pin = Int(pin &- 1) & 3, device = Int(device)
            return switch self {
            case .piix: (pin + device + 3) & 3
            case .ich9: device < 25 ? 4 + (pin + device) & 3 : pin
            }
        }
    }

    private enum Place: Sendable {
        case pirq(Int)
        /// An input of the I/O APIC that PIRQs may be on, too.
        case input(UInt32)
    }
    private struct State: Sendable {
        /// By source: where it is, and its level.
        var places: [Place] = []
        var levels: [Bool] = []
        /// ISA interrupt of each PIRQ; nil while not routed.
        var routes: [UInt8?] = Array(repeating: nil, count: 8)
        /// What each global system interrupt was last driven to.
        var driven: [Bool] = Array(repeating: false, count: 24)
    }

    package let wiring: Wiring
    private let machine: any VirtualMachine
    private let state = Mutex(State())

    package init(_ wiring: Wiring, machine: any VirtualMachine) {
        self.wiring = wiring
        self.machine = machine
    }

    /// The line of a function, before the guest starts. A leaf.
    package func line(device: UInt8, pin: UInt8 = 1) -> any InterruptLine {
        line(at: .pirq(wiring.pirq(device: device, pin: pin)))
    }

    /// Another source on an input of the I/O APIC (16 to 23), wired to those of the PIRQs. Before the guest starts. A leaf.
    package func line(input: UInt8) -> any InterruptLine { line(at: .input(UInt32(min(input, 23)))) }

    private func line(at place: Place) -> any InterruptLine {
        let source = state.withLock { state -> Int in
            state.places.append(place)
            state.levels.append(false)
            return state.levels.count - 1
        }
        return PCIInterruptLine(router: self, source: source)
    }

    /// A PIRQ routing register: bit 7 set is off, bits 3-0 the ISA interrupt.
    package func route(pirq: Int, register: UInt8) {
        state.withLock { state in
            guard state.routes.indices.contains(pirq) else { return }
            state.routes[pirq] = register & 0x80 != 0 ? nil : register & 0x0F
            drive(&state)
        }
    }

    fileprivate func set(_ source: Int, _ level: Bool) {
        state.withLock { state in
            guard state.levels.indices.contains(source), state.levels[source] != level else { return }
            state.levels[source] = level
            drive(&state)
        }
    }

    private func drive(_ state: inout State) {
        var wanted: UInt32 = 0
        for (place, level) in zip(state.places, state.levels) where level {
            switch place {
            case .pirq(let pirq):
                if let irq = state.routes[pirq] { wanted |= 1 << UInt32(irq) }
                if case .ich9 = wiring { wanted |= 1 << UInt32(16 + pirq) }
            case .input(let gsi): wanted |= 1 << gsi
            }
        }
        for gsi in state.driven.indices {
            let level = wanted >> UInt32(gsi) & 1 != 0
            guard level != state.driven[gsi] else { continue }
            state.driven[gsi] = level
            machine.setLine(gsi: UInt32(gsi), isAsserted: level)
        }
    }
}

private final class PCIInterruptLine: InterruptLine {
    private let router: PCIInterruptRouter
    private let source: Int

    init(router: PCIInterruptRouter, source: Int) {
        self.router = router
        self.source = source
    }

    func assert() { router.set(source, true) }
    func deassert() { router.set(source, false) }
}
