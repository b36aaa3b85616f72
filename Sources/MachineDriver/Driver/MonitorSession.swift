// One running monitor as this service sees it: its process, its connection (made anew where it breaks), the state of its
// machine, and what it does when the machine ends.
//
//   SHUTDOWN        the guest went off: `quit`, because a monitor that waits keeps its memory
//   INTERNAL_ERROR  the guest cannot go on: `quit`, and the machine counts as crashed
//   pidfd readable  the process is gone: shut down where one of the above or we asked for it, else crashed
//   socket closed   process still there: connect again, ask for the status, go on
import MonitorProtocol
import NIOCore
import NIOPosix
import Synchronization

/// What a machine did that nobody here asked for.
enum MachineNews: Sendable, Equatable {
    case paused, resumed
    /// The process is gone; `isAsked`: by this service's own request.
    case ended(MachineRun.End, isAsked: Bool, status: CInt?)
}

/// Thread-safe. Usage: `begin` once, then commands until `ended`.
final class MonitorSession: Sendable {
    let process: MonitorProcess
    let socketPath: String
    /// Completes when the process is gone.
    let ended: EventLoopFuture<MachineRun.End>
    private let endedPromise: EventLoopPromise<MachineRun.End>
    private let eventLoop: any EventLoop
    private let quitTimeout: Duration
    private let commandTimeout: Duration
    private let report: @Sendable (MonitorSession, MachineNews) -> Void

    private struct State {
        var connection: MonitorConnection?
        var runState: RunState
        /// What this service last asked for: an event that says the same is no news.
        var isPauseWanted: Bool
        var isKnown = false
        /// At first it is: an end before the start succeeded is that start's failure, not news.
        var isEndAsked = true
        var end: MachineRun.End?
        var isGone = false
        /// waitpid's, where the process was our child.
        var endStatus: CInt?
        /// Nobody here wants to know any more.
        var isAbandoned = false
    }
    private let state: Mutex<State>

    init(
        process: MonitorProcess, socketPath: String, runState: RunState, commandTimeout: Duration,
        quitTimeout: Duration,
        report: @escaping @Sendable (MonitorSession, MachineNews) -> Void
    ) {
        self.process = process
        self.socketPath = socketPath
        self.commandTimeout = commandTimeout
        self.quitTimeout = quitTimeout
        self.report = report
        eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        endedPromise = eventLoop.makePromise()
        ended = endedPromise.futureResult
        state = Mutex(State(runState: runState, isPauseWanted: runState != .running))
    }

    deinit {
        // Completed already where the process ended; a session that was never begun has no listener.
        endedPromise.succeed(.shutdown)
    }

    static var anyLoop: any EventLoop { MultiThreadedEventLoopGroup.singleton.any() }

    var runState: RunState { state.withLock { $0.runState } }
    var isGone: Bool { state.withLock { $0.isGone } }
    var endStatus: CInt? { state.withLock { $0.endStatus } }

    /// From here on the process's end is seen.
    func watch() throws(HostFailure) {
        try ProcessWatch.shared.whenEnded(process) { [self] status in processEnded(status) }
    }

    private func processEnded(_ status: CInt?) {
        let (end, isAsked, isAbandoned, connection) = state.withLock { state in
            state.isGone = true
            state.endStatus = status
            state.runState = .ended
            let end = state.end ?? (state.isEndAsked ? .shutdown : .crashed)
            state.end = end
            return (end, state.isEndAsked, state.isAbandoned, state.connection)
        }
        connection?.close()
        if !isAbandoned { report(self, .ended(end, isAsked: isAsked, status: status)) }
        endedPromise.succeed(end)
    }

    // MARK: Connection

    /// Connects, and asks what the machine is doing.
    func connect(timeout: Duration) -> EventLoopFuture<Void> {
        MonitorConnection.open(
            socketPath, on: eventLoop, timeout: timeout, onEvent: { [weak self] in self?.receive($0.news) },
            onClose: { [weak self] in self?.connectionClosed() }
        ).flatMap { [self] connection in
            state.withLock { $0.connection = connection }
            return connection.send(.status, timeout: commandTimeout).flatMapThrowing { [self] answer in
                apply(try MachineStatus(json: answer).state)
            }
        }
    }

    private func connectionClosed() {
        let isOver = state.withLock { state in
            state.connection = nil
            return state.isGone || state.isAbandoned
        }
        if !isOver { reconnectLater() }
    }

    func reconnectLater() {
        eventLoop.scheduleTask(in: .seconds(1)) { [weak self] in
            guard let self, !isGone else { return }
            connect(timeout: commandTimeout).whenFailure { [weak self] _ in
                // A connection that was made and then failed comes through connectionClosed.
                guard let self, state.withLock({ $0.connection == nil }) else { return }
                reconnectLater()
            }
        }
    }

    private func apply(_ runState: RunState) {
        // The first look is no news: nobody knew anything before.
        state.withLock { state in
            if !state.isKnown { (state.isKnown, state.isPauseWanted) = (true, runState != .running) }
        }
        switch runState {
        case .running: receive(.resume)
        case .paused, .configured: receive(.stop)
        case .shutdown, .ended: receive(.shutdown(guest: true, reason: "seen late"))
        case .internalError: receive(.internalError(reason: "seen late"))
        }
    }

    private func receive(_ news: MonitorEvent.News) {
        switch news {
        case .resume:
            let isNews = state.withLock { state in
                defer { (state.runState, state.isPauseWanted) = (.running, false) }
                return state.isPauseWanted
            }
            if isNews { report(self, .resumed) }
        case .stop:
            let isNews = state.withLock { state in
                defer { (state.runState, state.isPauseWanted) = (.paused, true) }
                return !state.isPauseWanted
            }
            if isNews { report(self, .paused) }
        case .shutdown: machineEnded(.shutdown, .shutdown)
        case .internalError: machineEnded(.crashed, .internalError)
        case .reset, .powerdown, .guestPanicked, .guestCrashLoaded, .watchdog, .other: break
        }
    }

    private func machineEnded(_ end: MachineRun.End, _ runState: RunState) {
        let connection = state.withLock { state -> MonitorConnection? in
            guard !state.isGone, !state.isAbandoned else { return nil }
            if state.end == nil { state.end = end }
            state.runState = runState
            return state.connection
        }
        guard let connection else { return }
        // The reply does not matter: the process's end is what is waited for.
        _ = connection.send(.quit, timeout: commandTimeout)
        let process = process
        let expiry = eventLoop.scheduleTask(in: quitTimeout.timeAmount) { process.kill() }
        ended.whenComplete { _ in expiry.cancel() }
    }

    /// Ends the connection for good and leaves the machine alone.
    func abandon() {
        let connection = state.withLock { state in
            state.isAbandoned = true
            return state.connection
        }
        connection?.close()
    }

    // MARK: Commands

    private func connection() throws(MonitorFault) -> MonitorConnection {
        guard let connection = state.withLock({ $0.connection }) else { throw MonitorFault.disconnected }
        return connection
    }

    func pause() async throws {
        state.withLock { $0.isPauseWanted = true }
        try await order(.pause, leadsTo: .paused)
    }

    func resume() async throws {
        state.withLock { $0.isPauseWanted = false }
        try await order(.resume, leadsTo: .running)
    }

    private func order(_ command: MonitorCommand, leadsTo runState: RunState) async throws {
        do {
            _ = try await connection().execute(command, timeout: commandTimeout)
        } catch {
            state.withLock { $0.isPauseWanted = $0.runState == .paused }
            throw error
        }
        state.withLock { state in
            if state.end == nil { state.runState = runState }
        }
    }

    func pressPowerButton() async throws {
        _ = try await connection().execute(.powerButton, timeout: commandTimeout)
    }

    func injectNMI() async throws {
        _ = try await connection().execute(.nmi, timeout: commandTimeout)
    }

    func status() async throws -> MachineStatus {
        try MachineStatus(json: try await connection().execute(.status, timeout: commandTimeout))
    }

    func uptimeSeconds() async throws -> Int { try await status().uptimeNanoseconds / 1_000_000_000 }

    func statistics() async throws -> MonitorStatistics {
        try MonitorStatistics(json: try await connection().execute(.stats, timeout: commandTimeout))
    }

    /// The machine's end is this service's wish from now on, or not any more.
    func setEndAsked(_ isAsked: Bool) { state.withLock { $0.isEndAsked = isAsked } }

    /// Ends the process and waits until it is gone: `quit`, then by force. Not cancellable.
    func end() async throws {
        setEndAsked(true)
        try await uncancelled { [self] in
            if let connection = try? connection() {
                _ = connection.send(.quit, timeout: quitTimeout)
            } else {
                process.kill()
            }
            if try await ended.value(within: quitTimeout) != nil { return }
            process.kill()
            guard try await ended.value(within: .seconds(30)) != nil else {
                throw HostFailure(
                    "end process", "\(process.identity.pid)", errno: 110, remedy: "it does not obey SIGKILL")
            }
        }
    }

    /// Ends it at once and waits a moment for it to be gone. Not cancellable.
    func kill() async {
        setEndAsked(true)
        process.kill()
        _ = try? await uncancelled { [self] in try await ended.value(within: .seconds(10)) }
    }
}
