// The time that the board's chips live by: it stands still while the machine does, and goes on where it stood when a saved machine is
// restored, here or on another host. The wall clock is the host's.
import Chipset
import HostSystem
import MachineCore
import Synchronization

/// Nanoseconds that the machine ran. Any thread.
final class BoardClock: MachineClock, SavableDevice {
    private struct State: Sendable {
        /// What the host's clock showed when this one showed zero; counts while the clock runs.
        var zero: UInt64 = 0
        /// What this clock shows while it stands still.
        var stoodAt: UInt64 = 0
        var isRunning = false
        var timers: [BoardTimer] = []
    }
    private let state = Mutex(State())

    var nanoseconds: UInt64 { state.withLock { $0.isRunning ? SystemClock.monotonicNanoseconds &- $0.zero : $0.stoodAt } }
    var wallSeconds: Int64 { SystemClock.wallSeconds }

    /// A timer on this clock, whose handler runs on the loop's thread.
    func makeTimer(on loop: EventLoop) throws(HostError) -> BoardTimer {
        let timer = BoardTimer(self, try LoopTimer(on: loop))
        state.withLock { $0.timers.append(timer) }
        return timer
    }

    /// With no processor running.
    func start() {
        let timers = state.withLock { state -> [BoardTimer] in
            guard !state.isRunning else { return [] }
            state.zero = SystemClock.monotonicNanoseconds &- state.stoodAt
            state.isRunning = true
            return state.timers
        }
        for timer in timers { timer.follow() }
    }

    func stop() {
        let timers = state.withLock { state -> [BoardTimer] in
            guard state.isRunning else { return [] }
            state.stoodAt = SystemClock.monotonicNanoseconds &- state.zero
            state.isRunning = false
            return state.timers
        }
        for timer in timers { timer.follow() }
    }

    /// The host's moment for one of this clock; nil while it stands still.
    fileprivate func hostNanoseconds(_ nanoseconds: UInt64) -> UInt64? {
        state.withLock { $0.isRunning ? $0.zero &+ nanoseconds : nil }
    }

    // MARK: Saved state

    static let stateVersion: UInt32 = 1
    var stateName: String { "board-clock" }

    func saveState(into writer: inout StateWriter) { writer.write(nanoseconds) }

    /// While it stands still; first of all devices, which set their timers by it.
    func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        let value = try reader.read(UInt64.self)
        // 292 years: what is later would not survive arithmetic.
        guard value <= UInt64(Int64.max) else { throw DeviceStateError(section: stateName, reason: "\(value) ns") }
        state.withLock { $0.stoodAt = value }
    }
}

/// A timer that waits in the board's time.
final class BoardTimer: DeadlineTimer {
    private weak let clock: BoardClock?
    private let timer: LoopTimer
    private let deadline = Mutex<UInt64?>(nil)

    fileprivate init(_ clock: BoardClock, _ timer: LoopTimer) {
        self.clock = clock
        self.timer = timer
    }

    func onExpiry(_ handler: @escaping @Sendable () -> Void) { timer.onExpiry(handler) }

    func set(to nanoseconds: UInt64?) {
        deadline.withLock { deadline in
            deadline = nanoseconds
            arm(deadline)
        }
    }

    /// The clock started or stopped.
    fileprivate func follow() { deadline.withLock { arm($0) } }

    private func arm(_ deadline: UInt64?) { timer.set(to: deadline.flatMap { clock?.hostNanoseconds($0) }) }
}
