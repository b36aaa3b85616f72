// What devices are wired to here: one RAM, one loop that the fuzzer's thread serves itself, a clock that the input moves. Made once,
// cleared for each input, so that an input says all that happens.
import Chipset
import Glibc
import GuestMemory
import HostSystem
import MachineCore
import PCI
import Synchronization

enum Bench {
    static let memory = must { try GuestMemory(byteCount: 1 << 20) }
    static let loop = must { try EventLoop() }
    static let clock = FuzzClock()
    static let line = FuzzLine()

    /// As before the first input.
    static func clear() {
        must { try memory.fill(0, at: GuestAddress(0), count: memory.byteCount) }
        clock.clear()
        FuzzDisk.clear()
    }

    /// Serves the loop until nothing is ready: what the I/O thread would have done by now.
    static func serve() {
        // A device that has more to do than its share of a turn rings itself, so a bound that honest work does not reach.
        for _ in 0..<4096 where must({ try loop.serve(waiting: 0) }) == 0 { return }
        finding("the loop does not come to rest")
    }

    /// The input writes RAM: a place and up to 64 bytes.
    static func writeMemory(_ input: inout Input) {
        let address = UInt64(input.below(1 << 20))
        try? memory.write(input.take(Int(input.byte() & 63)), at: GuestAddress(address))
    }
}

final class FuzzLine: InterruptLine {
    func assert() {}
    func deassert() {}
}

final class FuzzClock: MachineClock {
    private let now = Mutex<UInt64>(0)
    private let timers = Mutex<[WeakTimer]>([])
    private struct WeakTimer: Sendable { weak let timer: FuzzTimer? }

    var nanoseconds: UInt64 { now.withLock { $0 } }
    var wallSeconds: Int64 { 1_700_000_000 + Int64(nanoseconds / 1_000_000_000) }

    func clear() {
        now.withLock { $0 = 0 }
        timers.withLock { $0.removeAll() }
    }

    func makeTimer() -> FuzzTimer {
        let timer = FuzzTimer()
        timers.withLock { $0.append(WeakTimer(timer: timer)) }
        return timer
    }

    /// Moves on by what the input says, up to some hours, and fires what comes due, at most 64 times.
    func advance(_ input: inout Input) {
        let target = min(nanoseconds + UInt64(input.number(UInt16.self)) << UInt64(input.byte() % 32), 1 << 60)
        let timers = timers.withLock { $0.compactMap(\.timer) }
        for _ in 0..<64 {
            guard let next = timers.min(by: { $0.deadline ?? .max < $1.deadline ?? .max }), let deadline = next.deadline, deadline <= target
            else { break }
            now.withLock { $0 = max($0, deadline) }
            next.fire()
        }
        now.withLock { $0 = target }
    }
}

final class FuzzTimer: DeadlineTimer {
    private let state = Mutex<(deadline: UInt64?, handler: (@Sendable () -> Void)?)>((nil, nil))
    var deadline: UInt64? { state.withLock { $0.deadline } }
    func onExpiry(_ handler: @escaping @Sendable () -> Void) { state.withLock { $0.handler = handler } }
    func set(to nanoseconds: UInt64?) { state.withLock { $0.deadline = nanoseconds } }
    func fire() {
        state.withLock { $0.deadline = nil }
        state.withLock { $0.handler }?()
    }
}

final class FuzzPower: PowerRequests {
    func guestRequestsReset(by way: String) {}
    func guestRequestsShutdown() {}
}

final class FuzzInterrupts: MessageInterruptFactory {
    private final class Interrupt: MessageInterrupt {
        func setMessage(_ message: InterruptMessage?) throws(AcceleratorError) {
            // KVM refuses what no APIC can take.
            if let message, message.address >> 20 != 0xFEE { throw AcceleratorError("route", subject: "message", reason: "no APIC there") }
        }
        func trigger() {}
        var eventDescriptor: CInt? { nil }
    }
    func makeMessageInterrupt() throws(AcceleratorError) -> any MessageInterrupt { Interrupt() }
}

extension PCIEndpoint {
    /// A controller and its endpoint hold each other for as long as a machine lives: here they go with the input.
    func unplug() {
        for index in 0..<6 { setWindow(NoRegisters(), forBAR: index) }
    }
}

private final class NoRegisters: BusDevice {
    func read(offset: UInt64, width: AccessWidth) -> UInt64 { 0 }
    func write(offset: UInt64, width: AccessWidth, value: UInt64) {}
}

/// Where functions show their BARs: remembered, so that map and unmap must pair up.
final class FuzzAddressSpace: PCIAddressSpace {
    private struct Key: Hashable { let device: ObjectIdentifier, base: UInt64, byteCount: UInt64, isPorts: Bool }
    private let mapped = Mutex<Set<Key>>([])

    private func change(_ window: any BusDevice, _ base: UInt64, _ byteCount: UInt64, isPorts: Bool, maps: Bool) {
        let key = Key(device: ObjectIdentifier(window), base: base, byteCount: byteCount, isPorts: isPorts)
        let isSound = mapped.withLock { maps ? $0.insert(key).inserted : $0.remove(key) != nil }
        if !isSound { finding("a BAR at \(base) is \(maps ? "mapped twice" : "unmapped and was not mapped")") }
    }
    func map(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) {
        change(window, base.rawValue, byteCount, isPorts: false, maps: true)
    }
    func unmap(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) {
        change(window, base.rawValue, byteCount, isPorts: false, maps: false)
    }
    func mapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16) {
        change(window, UInt64(base), UInt64(count), isPorts: true, maps: true)
    }
    func unmapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16) {
        change(window, UInt64(base), UInt64(count), isPorts: true, maps: false)
    }
}
