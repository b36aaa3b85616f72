// One machine with everything that may move it, on one thread: what the guest did, what clients of the control socket ask, and the
// signals that end the process. The caller's thread becomes that thread in `run`.
package import HostSystem
import MachineConfiguration
package import MonitorProtocol

/// @unchecked: made and used on one thread; only `GuestRequests` and the device loop are reached from others.
package final class MachineMonitor: @unchecked Sendable {
    private let machine: GuestMachine
    private let loop: EventLoop
    private let signals: EndingSignals
    private let complain: (String) -> Void
    private let staysWhenOff: Bool
    private var driver: StateDriver
    private var server: ControlServer?
    private var commands: MachineCommands?

    /// - Parameters:
    ///   - log: where the console goes, for the command that shows it.
    ///   - begin: CLOCK_MONOTONIC when the process began.
    ///   - staysWhenOff: a machine that is off waits for a client's `quit`.
    ///   - complain: takes what the operator should read.
    package init(
        _ machine: GuestMachine, log: ConsoleOutput?, signals: consuming EndingSignals, begin: UInt64,
        staysWhenOff: Bool,
        complain: @escaping (String) -> Void
    ) throws(HostError) {
        self.machine = machine
        self.signals = signals
        self.complain = complain
        self.staysWhenOff = staysWhenOff
        loop = try EventLoop()
        // Replaced at once: the observer needs the object that this makes.
        driver = StateDriver(machine, requests: machine.requests, policies: MachinePolicies()) { _ in }
        driver = StateDriver(machine, requests: machine.requests, policies: MachinePolicies(machine.configuration)) { [weak self] notice in
            self?.heard(notice)
        }
        commands = MachineCommands(machine, driver: driver, log: log, begin: begin, loop: loop)
        try loop.add(machine.requests.descriptor, for: .readable) { [weak self] _ in
            self?.driver.serveGuestRequests()
            self?.endIfDone()
        }
        try loop.add(self.signals.rawValue, for: .readable) { [weak self] _ in
            guard let self, self.signals.drain() else { return }
            perform(.terminate)
        }
    }

    package var state: RunState { driver.state }
    /// The exit status that the guest asked for; nil: it asked for none.
    package var guestExitStatus: UInt8? { driver.guestExitStatus }

    /// Lets clients in; they may have connected before.
    package func serve(listening socket: consuming OwnedDescriptor) throws(HostError) {
        server = try ControlServer(listening: socket, on: loop) { [weak self] command, client, later in
            guard let self, let commands else {
                return .failure(MonitorRefusal(.genericError, "the monitor is ending"))
            }
            let answer = commands.perform(command, for: client, later: later)
            endIfDone()
            return answer
        }
    }

    /// Asks as an operator would; a refusal is complained about.
    package func perform(_ request: MachineRequest) {
        do throws(RequestRefusal) { try driver.perform(request) } catch { complain("\(error)") }
        endIfDone()
    }

    /// Makes a machine that was never started what was saved in `file`: paused, until it is asked to run. RAM is mapped from the
    /// file, which must stay as it is; the descriptor stays its owner's.
    package func restore(from file: CInt, began begin: UInt64) throws {
        let state = try machine.openState(file)
        try driver.perform(.pause)
        try driver.replaceState { try machine.restore(state, isFresh: true, began: begin) }
        if driver.state == .internalError { throw MachineStateError("restore", reason: driver.breakdown ?? "it failed") }
    }

    /// Serves until the machine has ended. The answer is the state it was in before that.
    package func run() throws(HostError) -> RunState {
        endIfDone()
        try loop.run()
        commands?.abandonSave()
        if driver.state != .ended { perform(.quit) }
        return lastState
    }

    private var lastState = RunState.configured

    private func endIfDone() {
        if driver.state != .ended { lastState = driver.state }
        switch driver.state {
        case .ended: loop.stop()
        case .shutdown, .internalError: if !staysWhenOff { loop.stop() }
        case .configured, .running, .paused: break
        }
    }

    private func heard(_ notice: MachineNotice) {
        switch notice {
        case .brokeDown(let vcpu, let reason): complain(vcpu.map { "vcpu \($0): \(reason) (guest)" } ?? reason)
        // Where the machine stays as it is, the breakdown that follows says it.
        case .guestPanicked(let reason): if machine.configuration.onGuestCrash != .preserve { complain("\(reason) (guest)") }
        case .watchdogExpired(let action): complain("the watchdog ran out, action \(action.rawValue) (guest)")
        default: break
        }
        server?.announce(notice.news)
    }
}

extension MachineNotice {
    /// As clients of the control socket are told.
    var news: MonitorEvent.News {
        switch self {
        case .resumed: .resume
        case .paused: .stop
        case .powerButtonPressed: .powerdown
        case .reset(let way, let byGuest): .reset(guest: byGuest, reason: way)
        case .shutdown(let reason, let byGuest): .shutdown(guest: byGuest, reason: reason)
        case .guestPanicked(let reason): .guestPanicked(reason: reason)
        case .guestCrashLoaded: .guestCrashLoaded
        case .watchdogExpired(let action): .watchdog(action: action.rawValue)
        case .brokeDown(let vcpu, let reason): .internalError(reason: vcpu.map { "vcpu \($0): \(reason)" } ?? reason)
        }
    }
}
