// The states of a machine and who may move it between them.
//
//                    ┌───────────── resume ─────────────┐
//                    ▼                                  │
//   configured ──► running ──────── pause ───────────► paused ◄── configured, where the start is to be paused
//                  │ │ │ ▲                              │ │ │
//                  │ │ │ └── reset (stays running) ──┐  │ │ └── reset (stays paused)
//                  │ │ └── guest resets itself ──────┘  │ │
//                  │ ├── guest S5, or a reset where resets end the machine ──► shutdown
//                  │ └── accelerator or monitor cannot go on ───────────────► internalError
//   shutdown, internalError ── reset ──► paused   any ── quit, SIGTERM ──► ended
//
// The moves are decided here and nowhere else; StateDriver carries them out. While a reset is carried out no vCPU runs and the
// state that is shown is the one it ends in. "States and threads" in this target's documentation has the table.
package import MonitorProtocol

/// What a machine is asked to do, by its operator or by its guest.
package enum MachineRequest: Sendable, Equatable {
    case pause
    case resume
    case pressPowerButton
    case reset
    case quit
    /// A signal asks the process to end.
    case terminate
    case guestReset(way: String)
    case guestShutdown
    /// The guest says that it crashed.
    case guestCrash(reason: String)
    case breakdown(vcpu: Int?, reason: String)
}

/// What the driver does about a request, in this order: vCPUs stop, the machine is reset, vCPUs go on.
package struct Transition: Sendable, Equatable {
    package var next: RunState
    package var resets = false
    package var pressesPowerButton = false
    /// What observers hear.
    package var notice: MachineNotice?
}

/// News of a machine, for whoever watches it.
package enum MachineNotice: Sendable, Equatable {
    case resumed
    case paused
    case powerButtonPressed
    case reset(way: String, byGuest: Bool)
    case shutdown(reason: String, byGuest: Bool)
    case guestPanicked(reason: String)
    case brokeDown(vcpu: Int?, reason: String)
}

/// A request that the machine's state does not allow.
package struct RequestRefusal: Error, Sendable, Equatable, CustomStringConvertible {
    package let state: RunState
    package let reason: String

    package var description: String { "the machine is in state \(state.rawValue): \(reason) (caller)" }
}

extension RunState {
    /// What a request leads to. Nil: nothing is to be done. An operator's request that makes no sense is refused; what the guest
    /// did is never refused, at most too late to matter.
    package func transition(for request: MachineRequest, resetsEndMachine: Bool) throws(RequestRefusal) -> Transition? {
        if self == .ended {
            if request == .quit || request == .terminate { return nil }
            throw RequestRefusal(state: self, reason: "nothing is left to do")
        }
        switch request {
        case .quit, .terminate:
            // Reasons are QMP's. A guest that is off already does not go down a second time.
            let reason = request == .quit ? "host-qmp-quit" : "host-signal"
            return Transition(next: .ended, notice: self == .shutdown ? nil : .shutdown(reason: reason, byGuest: false))
        case .pause:
            guard self != .paused else { return nil }
            guard self == .running || self == .configured else { throw RequestRefusal(state: self, reason: "it does not run") }
            return Transition(next: .paused, notice: .paused)
        case .resume:
            guard self != .running else { return nil }
            guard self == .paused || self == .configured else { throw RequestRefusal(state: self, reason: "reset it first") }
            return Transition(next: .running, notice: .resumed)
        case .pressPowerButton:
            guard self == .running || self == .paused else { throw RequestRefusal(state: self, reason: "no guest is there to hear it") }
            return Transition(next: self, pressesPowerButton: true, notice: .powerButtonPressed)
        case .reset:
            guard self != .configured else { return nil }
            return Transition(next: executes ? .running : .paused, resets: true, notice: .reset(way: "host-qmp-system-reset", byGuest: false))
        case .guestReset(let way):
            guard self == .running || self == .paused else { return nil }
            if resetsEndMachine { return Transition(next: .shutdown, notice: .shutdown(reason: "guest-reset", byGuest: true)) }
            return Transition(next: self, resets: true, notice: .reset(way: way, byGuest: true))
        case .guestShutdown:
            guard self == .running || self == .paused else { return nil }
            return Transition(next: .shutdown, notice: .shutdown(reason: "guest-shutdown", byGuest: true))
        case .guestCrash(let reason):
            guard self == .running || self == .paused else { return nil }
            return Transition(next: .internalError, notice: .guestPanicked(reason: reason))
        case .breakdown(let vcpu, let reason):
            guard self != .internalError else { return nil }
            return Transition(next: .internalError, notice: .brokeDown(vcpu: vcpu, reason: reason))
        }
    }
}
