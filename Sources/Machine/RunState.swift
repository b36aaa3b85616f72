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
package import MachineConfiguration
package import MonitorProtocol

/// What the description says about the moves that a guest makes.
package struct MachinePolicies: Sendable, Equatable {
    package var onReset = GuestResetPolicy.reset
    package var onCrash = GuestCrashPolicy.preserve
    package var onWatchdog = WatchdogAction.reset

    package init() {}

    package init(_ configuration: GuestConfiguration) {
        onReset = configuration.onGuestReset
        onCrash = configuration.onGuestCrash
        onWatchdog = configuration.board.watchdog ?? .none
    }
}

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
    /// The guest crashed and another kernel of its own takes over.
    case guestCrashLoaded
    /// The guest ends the monitor with this exit status (isa-debug-exit).
    case guestExit(status: UInt8)
    case watchdogExpired
    case breakdown(vcpu: Int?, reason: String)
}

/// What the driver does about a request, in this order: vCPUs stop, the machine is reset, vCPUs go on.
package struct Transition: Sendable, Equatable {
    package var next: RunState
    package var resets = false
    package var pressesPowerButton = false
    /// What observers hear, in this order.
    package var notices: [MachineNotice] = []
}

/// News of a machine, for whoever watches it.
package enum MachineNotice: Sendable, Equatable {
    case resumed
    case paused
    case powerButtonPressed
    case reset(way: String, byGuest: Bool)
    case shutdown(reason: String, byGuest: Bool)
    case guestPanicked(reason: String)
    case guestCrashLoaded
    case watchdogExpired(WatchdogAction)
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
    package func transition(for request: MachineRequest, policies: MachinePolicies) throws(RequestRefusal) -> Transition? {
        if self == .ended {
            if request == .quit || request == .terminate { return nil }
            throw RequestRefusal(state: self, reason: "nothing is left to do")
        }
        switch request {
        case .quit, .terminate:
            // Reasons are QMP's. A guest that is off already does not go down a second time.
            let reason = request == .quit ? "host-qmp-quit" : "host-signal"
            return Transition(next: .ended, notices: self == .shutdown ? [] : [.shutdown(reason: reason, byGuest: false)])
        case .pause:
            guard self != .paused else { return nil }
            guard self == .running || self == .configured else { throw RequestRefusal(state: self, reason: "it does not run") }
            return Transition(next: .paused, notices: [.paused])
        case .resume:
            guard self != .running else { return nil }
            guard self == .paused || self == .configured else { throw RequestRefusal(state: self, reason: "reset it first") }
            return Transition(next: .running, notices: [.resumed])
        case .pressPowerButton:
            guard self == .running || self == .paused else { throw RequestRefusal(state: self, reason: "no guest is there to hear it") }
            return Transition(next: self, pressesPowerButton: true, notices: [.powerButtonPressed])
        case .reset:
            guard self != .configured else { return nil }
            return Transition(next: executes ? .running : .paused, resets: true, notices: [.reset(way: "host-qmp-system-reset", byGuest: false)])
        case .breakdown(let vcpu, let reason):
            guard self != .internalError else { return nil }
            return Transition(next: .internalError, notices: [.brokeDown(vcpu: vcpu, reason: reason)])
        case .guestReset, .guestShutdown, .guestCrash, .guestCrashLoaded, .guestExit, .watchdogExpired:
            guard self == .running || self == .paused else { return nil }
            return move(of: request, policies: policies)
        }
    }

    /// What the guest of a machine that is not off yet did.
    private func move(of request: MachineRequest, policies: MachinePolicies) -> Transition? {
        switch request {
        case .guestReset(let way): return reset(way, policies)
        case .guestShutdown: return shutDown("guest-shutdown")
        case .guestCrash(let reason): return crash(reason, policies)
        case .guestCrashLoaded: return Transition(next: self, notices: [.guestCrashLoaded])
        case .guestExit: return Transition(next: .ended, notices: [.shutdown(reason: "guest-shutdown", byGuest: true)])
        case .watchdogExpired:
            var transition: Transition
            switch policies.onWatchdog {
            case .reset: transition = reset("watchdog", policies)
            case .poweroff: transition = shutDown("watchdog")
            case .pause: transition = Transition(next: .paused, notices: self == .paused ? [] : [.paused])
            case .none: transition = Transition(next: self)
            }
            transition.notices.insert(.watchdogExpired(policies.onWatchdog), at: 0)
            return transition
        default: return nil
        }
    }

    private func reset(_ way: String, _ policies: MachinePolicies) -> Transition {
        if policies.onReset == .shutdown { return shutDown("guest-reset") }
        return Transition(next: self, resets: true, notices: [.reset(way: way, byGuest: true)])
    }

    private func shutDown(_ reason: String) -> Transition { Transition(next: .shutdown, notices: [.shutdown(reason: reason, byGuest: true)]) }

    private func crash(_ reason: String, _ policies: MachinePolicies) -> Transition {
        var transition =
            switch policies.onCrash {
            // A client that knows states only hears the one it is in now.
            case .preserve: Transition(next: .internalError, notices: [.brokeDown(vcpu: nil, reason: reason)])
            case .reset: Transition(next: self, resets: true, notices: [.reset(way: "guest-panic", byGuest: true)])
            case .shutdown: shutDown("guest-panic")
            }
        transition.notices.insert(.guestPanicked(reason: reason), at: 0)
        return transition
    }
}
