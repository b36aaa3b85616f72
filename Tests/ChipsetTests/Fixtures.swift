// What chips are wired to in these tests: a line that counts edges, clocks and timers moved by hand, a supply that
// remembers.
import Chipset
import MachineCore
import Synchronization

final class Wire: InterruptLine {
    private let state = Mutex<(level: Bool, edges: Int)>((false, 0))
    var level: Bool { state.withLock { $0.level } }
    /// Rising edges so far.
    var edges: Int { state.withLock { $0.edges } }
    func assert() { state.withLock { $0 = (true, $0.edges + ($0.level ? 0 : 1)) } }
    func deassert() { state.withLock { $0.level = false } }
}

final class HandClock: MachineClock {
    let now = Mutex<(nanoseconds: UInt64, wall: Int64)>((0, 0))
    init(nanoseconds: UInt64 = 0, wall: Int64 = 0) { now.withLock { $0 = (nanoseconds, wall) } }
    var nanoseconds: UInt64 { now.withLock { $0.nanoseconds } }
    var wallSeconds: Int64 { now.withLock { $0.wall } }
    /// Moves both clocks on, as on a host whose wall clock nobody sets.
    func advance(nanoseconds: UInt64) {
        now.withLock {
            let wholeBefore = $0.nanoseconds / 1_000_000_000
            $0.nanoseconds += nanoseconds
            $0.wall += Int64($0.nanoseconds / 1_000_000_000 - wholeBefore)
        }
    }
}

/// A timer that a test fires by moving the clock to its moment.
final class HandTimer: DeadlineTimer {
    private let state = Mutex<(deadline: UInt64?, handler: (@Sendable () -> Void)?)>((nil, nil))
    var deadline: UInt64? { state.withLock { $0.deadline } }
    func onExpiry(_ handler: @escaping @Sendable () -> Void) { state.withLock { $0.handler = handler } }
    func set(to nanoseconds: UInt64?) { state.withLock { $0.deadline = nanoseconds } }
    /// Moves `clock` to the deadline and fires; false where none is set.
    func fire(_ clock: HandClock) -> Bool {
        guard let deadline else { return false }
        if deadline > clock.nanoseconds { clock.advance(nanoseconds: deadline - clock.nanoseconds) }
        state.withLock { $0.deadline = nil }
        state.withLock { $0.handler }?()
        return true
    }
}

final class Supply: PowerRequests {
    private let list = Mutex<[String]>([])
    var asked: [String] { list.withLock { $0 } }
    func guestRequestsReset(by way: String) { list.withLock { $0.append("reset by \(way)") } }
    func guestRequestsShutdown() { list.withLock { $0.append("shutdown") } }
}

final class Sink: SerialOutput {
    private let list = Mutex<[UInt8]>([])
    var bytes: [UInt8] { list.withLock { $0 } }
    func write(_ byte: UInt8) { list.withLock { $0.append(byte) } }
}

/// Saves `device`, and the bytes are what every prefix of must be refused by `restore`.
func savedBytes(_ device: some SavableDevice) -> [UInt8] {
    var writer = StateWriter()
    device.saveState(into: &writer)
    return writer.bytes
}

func restore<Device: SavableDevice>(_ bytes: [UInt8], into device: Device, version: UInt32 = Device.stateVersion) throws
    -> Int
{
    var reader = StateReader(section: device.stateName, bytes: bytes)
    try device.restoreState(from: &reader, version: version)
    return reader.remaining
}

/// Random numbers that a failing test can repeat (SplitMix64).
struct Seeded: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
}
