// Carries out what RunState decides. One thread drives: requests of the operator are calls on that thread, what the guest does
// arrives as a queue with an eventfd, so that the driver can sit in an epoll loop beside its control socket.
package import HostSystem
package import MonitorProtocol
import Synchronization

/// What the driver moves: the machine behind the states.
package protocol DrivenMachine: AnyObject, Sendable {
    /// Starts devices, then vCPUs.
    func setRunning() throws
    /// Stops vCPUs, then devices. Idempotent.
    func setStopped() throws
    /// Everything as after power on. Stopped.
    func resetStopped() throws
    func pressPowerButton()
    /// No vCPU thread is left afterwards.
    func end()
}

/// What the guest did, on its way to the driver. Any thread.
package final class GuestRequests: Sendable {
    private let queue = Mutex<[MachineRequest]>([])
    private let event: EventDescriptor

    package init() throws(HostError) { event = try EventDescriptor() }

    /// Readable while something waits.
    package var descriptor: CInt { event.rawValue }

    /// A guest that asks again and again before it is heard fills nothing: the first request of a kind is kept.
    package func post(_ request: MachineRequest) {
        queue.withLock { if !$0.contains(where: { Self.isSameKind($0, request) }) { $0.append(request) } }
        event.signal()
    }

    package func takeAll() -> [MachineRequest] {
        event.drain()
        return queue.withLock { queue in
            defer { queue = [] }
            return queue
        }
    }

    private static func isSameKind(_ first: MachineRequest, _ second: MachineRequest) -> Bool {
        switch (first, second) {
        case (.guestReset, .guestReset), (.breakdown, .breakdown), (.guestCrash, .guestCrash), (.guestExit, .guestExit): true
        default: first == second
        }
    }
}

/// Drives one machine. Every member but `requests` is for the driver's thread.
package final class StateDriver {
    package private(set) var state = RunState.configured
    /// Why the last breakdown happened, for status.
    package private(set) var breakdown: String?
    /// Why the machine went off: the reason of the SHUTDOWN event.
    package private(set) var shutdownReason: String?
    /// The exit status that the guest asked for.
    package private(set) var guestExitStatus: UInt8?
    /// Why the machine must stand still for now, whoever asks; nil: it may move.
    package var hold: String?
    package let requests: GuestRequests
    private let machine: any DrivenMachine
    private let policies: MachinePolicies
    private let observer: (MachineNotice) -> Void

    package init(
        _ machine: any DrivenMachine, requests: GuestRequests, policies: MachinePolicies, observer: @escaping (MachineNotice) -> Void
    ) {
        self.machine = machine
        self.requests = requests
        self.policies = policies
        self.observer = observer
    }

    /// Does what an operator asks, after what the guest did before.
    package func perform(_ request: MachineRequest) throws(RequestRefusal) {
        serveGuestRequests()
        try carryOut(request)
    }

    /// Call when `requests.descriptor` is readable.
    package func serveGuestRequests() {
        for request in requests.takeAll() {
            // Only an ended machine refuses a guest's request, and then nothing is lost.
            try? carryOut(request)
        }
    }

    /// Puts another state in the place of a paused machine's. One that fails half-way does not go on.
    package func replaceState(_ body: () throws -> Void) throws(RequestRefusal) {
        serveGuestRequests()
        guard state == .paused, hold == nil else { throw RequestRefusal(state: state, reason: hold ?? "pause it first") }
        do { try body() } catch { fail("\(error)") }
        // What the guest asked for before belongs to the guest that is gone.
        _ = requests.takeAll()
    }

    private func carryOut(_ request: MachineRequest) throws(RequestRefusal) {
        if let hold, request != .quit, request != .terminate, request != .pressPowerButton {
            throw RequestRefusal(state: state, reason: hold)
        }
        guard let transition = try state.transition(for: request, policies: policies) else { return }
        switch request {
        case .breakdown(let vcpu, let reason): breakdown = vcpu.map { "vcpu \($0): \(reason)" } ?? reason
        case .guestCrash(let reason): breakdown = reason
        case .guestExit(let status): guestExitStatus = status
        default: break
        }
        do {
            if transition.pressesPowerButton { machine.pressPowerButton() }
            if transition.resets || !transition.next.executes { try machine.setStopped() }
            if transition.resets {
                breakdown = nil
                shutdownReason = nil
                try machine.resetStopped()
                // What the guest asked for on its way down belongs to the guest that is gone.
                _ = requests.takeAll()
            }
            if transition.next == .ended { machine.end() }
            if transition.next.executes, transition.resets || !state.executes { try machine.setRunning() }
            state = transition.next
        } catch {
            return fail("\(error)")
        }
        for notice in transition.notices {
            if case .shutdown(let reason, _) = notice { shutdownReason = reason }
            observer(notice)
        }
    }

    /// The monitor could not do its part: the guest stands still and says why.
    private func fail(_ reason: String) {
        // Whatever stopping failed at, the vCPUs are parked first.
        try? machine.setStopped()
        state = .internalError
        breakdown = reason
        observer(.brokeDown(vcpu: nil, reason: reason))
    }
}
