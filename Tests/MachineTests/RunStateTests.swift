import HostSystem
import MachineConfiguration
import MonitorProtocol
import Synchronization
import Testing

@testable import Machine

struct RunStateTests {
    private func next(_ state: RunState, _ request: MachineRequest, endsOnReset: Bool = false) throws -> RunState? {
        var policies = MachinePolicies()
        policies.onReset = endsOnReset ? .shutdown : .reset
        return try state.transition(for: request, policies: policies)?.next
    }

    @Test func operatorPausesAndResumesARunningMachineOnly() throws {
        #expect(try next(.running, .pause) == .paused)
        #expect(try next(.paused, .resume) == .running)
        #expect(try next(.paused, .pause) == nil && next(.running, .resume) == nil)
        for state in [RunState.shutdown, .internalError] {
            #expect(throws: RequestRefusal.self) { try next(state, .pause) }
            #expect(throws: RequestRefusal.self) { try next(state, .resume) }
            #expect(throws: RequestRefusal.self) { try next(state, .pressPowerButton) }
        }
    }

    @Test func resetKeepsRunningOrPausedAndLeavesShutdownPaused() throws {
        #expect(try next(.running, .reset) == .running)
        for state in [RunState.paused, .shutdown, .internalError] { #expect(try next(state, .reset) == .paused) }
        #expect(try next(.running, .guestReset(way: "0xCF9")) == .running)
        #expect(try next(.running, .guestReset(way: "0xCF9"), endsOnReset: true) == .shutdown)
    }

    @Test func nothingLeavesEndedAndQuitIsAlwaysAllowed() throws {
        for state in RunState.allCases where state != .ended { #expect(try next(state, .quit) == .ended) }
        #expect(try next(.ended, .quit) == nil)
        #expect(throws: RequestRefusal.self) { try next(.ended, .reset) }
    }

    @Test(arguments: [(GuestCrashPolicy.preserve, RunState.internalError), (.reset, .running), (.shutdown, .shutdown)])
    func aGuestThatPanickedIsKeptResetOrSwitchedOff(policy: GuestCrashPolicy, state: RunState) throws {
        var policies = MachinePolicies()
        policies.onCrash = policy
        let transition = try RunState.running.transition(for: .guestCrash(reason: "it panicked"), policies: policies)
        #expect(transition?.next == state && transition?.resets == (policy == .reset))
        #expect(transition?.notices.count == 2 && transition?.notices.first == .guestPanicked(reason: "it panicked"))
        #expect(try RunState.shutdown.transition(for: .guestCrash(reason: ""), policies: policies) == nil)
    }

    @Test(arguments: [(WatchdogAction.reset, RunState.running), (.poweroff, .shutdown), (.pause, .paused), (.none, .running)])
    func aWatchdogThatRanOutDoesWhatTheDescriptionSays(action: WatchdogAction, state: RunState) throws {
        var policies = MachinePolicies()
        policies.onWatchdog = action
        let transition = try RunState.running.transition(for: .watchdogExpired, policies: policies)
        #expect(transition?.next == state && transition?.resets == (action == .reset))
        #expect(transition?.notices.first == .watchdogExpired(action) && transition?.notices.count == (action == .none ? 1 : 2))
        policies.onReset = .shutdown
        let ending = try RunState.running.transition(for: .watchdogExpired, policies: policies)
        #expect(action != .reset || ending?.next == .shutdown)
    }

    @Test func aGuestEndsTheMonitorOrSaysThatACrashKernelGoesOn() throws {
        #expect(try next(.running, .guestExit(status: 3)) == .ended && next(.shutdown, .guestExit(status: 3)) == nil)
        #expect(try next(.running, .guestCrashLoaded) == .running)
    }

    @Test func whatAGuestDidTooLateIsIgnoredNotRefused() throws {
        for state in [RunState.shutdown, .internalError] {
            #expect(try next(state, .guestReset(way: "x")) == nil)
            #expect(try next(state, .guestShutdown) == nil)
        }
    }
}

/// Writes down what the driver did.
private final class Recorder: DrivenMachine {
    struct Broken: Error {}
    let calls = Mutex<[String]>([])
    let failing = Mutex<String>("")
    private func note(_ call: String) throws {
        calls.withLock { $0.append(call) }
        if failing.withLock({ $0 }) == call { throw Broken() }
    }
    func setRunning() throws { try note("run") }
    func setStopped() throws { try note("stop") }
    func resetStopped() throws { try note("reset") }
    func pressPowerButton() { try? note("button") }
    func end() { try? note("end") }
    func take() -> [String] { calls.withLock { calls in defer { calls = [] }; return calls } }
}

struct StateDriverTests {
    private let machine = Recorder()
    private let notices = Monitor<[MachineNotice]>([])
    private let driver: StateDriver

    init() throws {
        driver = StateDriver(machine, requests: try GuestRequests(), policies: MachinePolicies()) { [notices] notice in notices.update { $0.append(notice) } }
        try driver.perform(.resume)
        _ = machine.take()
    }

    @Test func resetStopsResetsAndRunsAgain() throws {
        try driver.perform(.reset)
        #expect(machine.take() == ["stop", "reset", "run"] && driver.state == .running)
    }

    @Test func resetOfAPausedMachineStaysPaused() throws {
        try driver.perform(.pause)
        try driver.perform(.reset)
        #expect(machine.take() == ["stop", "stop", "reset"] && driver.state == .paused)
    }

    @Test func tripleFaultResetsAndRunsAgain() {
        driver.requests.post(.guestReset(way: "triple fault"))
        driver.serveGuestRequests()
        #expect(machine.take() == ["stop", "reset", "run"] && driver.state == .running)
        #expect(notices.update { $0 }.last == .reset(way: "triple fault", byGuest: true))
    }

    @Test func guestThatAsksAThousandTimesIsResetOnce() {
        for _ in 0..<1000 { driver.requests.post(.guestReset(way: "i8042")) }
        driver.serveGuestRequests()
        #expect(machine.take() == ["stop", "reset", "run"])
    }

    @Test func breakdownKeepsTheGuestAndItsReasonUntilReset() throws {
        driver.requests.post(.breakdown(vcpu: 1, reason: "emulation"))
        driver.serveGuestRequests()
        #expect(driver.state == .internalError && driver.breakdown == "vcpu 1: emulation" && machine.take() == ["stop"])
        #expect(throws: RequestRefusal.self) { try driver.perform(.resume) }
        try driver.perform(.reset)
        try driver.perform(.resume)
        #expect(driver.state == .running && driver.breakdown == nil)
    }

    @Test func whatTheGuestDidBeforeComesBeforeWhatTheOperatorAsks() throws {
        driver.requests.post(.guestShutdown)
        #expect(throws: RequestRefusal(state: .shutdown, reason: "it does not run")) { try driver.perform(.pause) }
    }

    @Test func hostThatCannotResetLeavesAGuestThatSaysWhy() throws {
        machine.failing.withLock { $0 = "reset" }
        try driver.perform(.reset)
        #expect(driver.state == .internalError && driver.breakdown?.contains("Broken") == true)
        #expect(notices.update { $0 }.last == .brokeDown(vcpu: nil, reason: "Broken()"))
    }

    @Test func theExitStatusThatAGuestAsksForIsKept() {
        driver.requests.post(.guestExit(status: 33))
        driver.serveGuestRequests()
        #expect(driver.state == .ended && driver.guestExitStatus == 33 && machine.take() == ["stop", "end"])
    }

    @Test func powerButtonNeitherStopsNorStarts() throws {
        try driver.perform(.pressPowerButton)
        #expect(machine.take() == ["button"] && driver.state == .running)
    }
}
