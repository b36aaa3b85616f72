// The states of a machine and who may move it between them.
//
//   configured ──start──► running ◄──resume── paused
//                          │  ▲ └────pause────►
//                          │  └── reset (from running, paused, shutdown: vCPUs parked, devices reset, kernel loaded again)
//                          ├── guest S5 ──────► shutdown      ends the process unless it is told to stay
//                          ├── triple fault ──► reset, or shutdown where resets end the machine
//                          └── KVM gives up ──► internalError  the guest stays for inspection; only reset and quit leave it
//   any ──quit──► ended

/// What a machine is doing, by the names that QMP gives these states.
package enum RunState: String, Sendable {
    case configured = "prelaunch"
    case running
    case paused
    case shutdown
    case internalError = "internal-error"
    case ended

    /// Whether vCPUs execute guest code.
    package var executes: Bool { self == .running }

    /// Valid moves; everything else is refused.
    package func mayBecome(_ next: RunState) -> Bool {
        switch (self, next) {
        case (.ended, _): false
        case (_, .ended): true
        case (.configured, .running), (.configured, .paused): true
        case (.running, .paused), (.paused, .running): true
        case (.running, .shutdown), (.paused, .shutdown): true
        case (.running, .internalError): true
        case (.shutdown, .running), (.internalError, .running), (.running, .running): true
        default: false
        }
    }
}

/// What the state driver is asked to do.
package enum MachineEvent: Sendable, Equatable {
    case reset(way: String)
    case shutdown
    case internalError(vcpu: Int, reason: String)
    case quit
}
