// The vCPU threads and the gate before guest code.
//
// A vCPU is either in the guest or parked at the gate. Closing the gate kicks every vCPU and waits until all are parked; no lock
// is held meanwhile. The order makes a lost kick impossible: the gate is shut before the kick, and a vCPU that returns
// interrupted looks at the gate after it took the kick back.
package import GuestMemory
package import HostSystem
package import MachineCore
import Synchronization

/// Answers what guest code asks of the board, on the vCPU's thread.
package protocol ExitHandler: AnyObject, Sendable {
    func readPort(_ port: UInt16, width: AccessWidth) -> UInt64
    /// `count` reads of one port, each handed to `body` with its number.
    func readPorts(_ port: UInt16, width: AccessWidth, count: Int, _ body: (Int, UInt64) -> Void)
    func writePort(_ port: UInt16, width: AccessWidth, value: UInt64)
    func readMemory(_ address: GuestAddress, byteCount: Int) -> UInt64
    func writeMemory(_ address: GuestAddress, byteCount: Int, value: UInt64)
    /// A vCPU cannot go on by itself. It is parked when this is called, and the gate is shut.
    func processorStopped(_ request: MachineRequest)
}

package final class Processors: Sendable {
    private struct Gate: Sendable {
        var isOpen = false
        var isEnding = false
        var parkedCount: Int
    }

    package let vcpus: [any VirtualCPU]
    private let handler: any ExitHandler
    private let gate: Monitor<Gate>
    private let threads = Mutex<[JoinableThread]>([])
    /// CLOCK_MONOTONIC when the first vCPU entered the guest, 0 before.
    private let firstEntry = Atomic<UInt64>(0)
    private let exitCount = Atomic<UInt64>(0)
    /// The kernel's numbers of the threads, by vCPU; 0 before a thread runs.
    private let numbers: Mutex<[CInt]>

    package init(_ vcpus: [any VirtualCPU], handler: any ExitHandler) {
        self.vcpus = vcpus
        self.handler = handler
        gate = Monitor(Gate(parkedCount: vcpus.count))
        numbers = Mutex([CInt](repeating: 0, count: vcpus.count))
    }

    /// By vCPU.
    package var threadNumbers: [CInt] { numbers.withLock { $0 } }

    package var firstEntryNanoseconds: UInt64 { firstEntry.load(ordering: .relaxed) }
    /// The next entry counts as the first. Parked.
    func forgetFirstEntry() { firstEntry.store(0, ordering: .relaxed) }
    /// Exits that this process handled, all vCPUs.
    package var exits: UInt64 { exitCount.load(ordering: .relaxed) }

    /// Starts the threads; they wait at the gate. Once.
    package func start() throws(HostError) {
        for vcpu in vcpus {
            let thread = JoinableThread(try Thread(named: "vcpu-\(vcpu.index)") { [self] in serve(vcpu) })
            threads.withLock { $0.append(thread) }
        }
    }

    /// Lets the vCPUs into the guest.
    package func open() {
        gate.update { $0.isOpen = !$0.isEnding }
    }

    /// Returns when no vCPU executes guest code.
    package func close() {
        gate.update { $0.isOpen = false }
        for vcpu in vcpus { vcpu.kick() }
        gate.wait { [vcpus] in $0.parkedCount == vcpus.count ? () : nil }
    }

    /// Ends the threads.
    package func end() {
        gate.update {
            $0.isOpen = false
            $0.isEnding = true
        }
        for vcpu in vcpus { vcpu.kick() }
        for thread in threads.withLock({ $0 }) { thread.join() }
    }

    private func serve(_ vcpu: any VirtualCPU) {
        numbers.withLock { if $0.indices.contains(vcpu.index) { $0[vcpu.index] = ThreadNumber.current } }
        while true {
            let goesOn = gate.wait { gate -> Bool? in
                if gate.isEnding { return false }
                guard gate.isOpen else { return nil }
                gate.parkedCount -= 1
                return true
            }
            guard goesOn else { return }
            let request = execute(vcpu)
            gate.update {
                $0.parkedCount += 1
                if request != nil { $0.isOpen = false }
            }
            if let request { handler.processorStopped(request) }
        }
    }

    /// Runs guest code until the gate is shut or the vCPU cannot go on.
    private func execute(_ vcpu: any VirtualCPU) -> MachineRequest? {
        if firstEntry.load(ordering: .relaxed) == 0 {
            _ = firstEntry.compareExchange(expected: 0, desired: SystemClock.monotonicNanoseconds, ordering: .relaxed)
        }
        while true {
            let exit: VMExit
            do throws(AcceleratorError) { exit = try vcpu.run() } catch { return .breakdown(vcpu: vcpu.index, reason: "\(error)") }
            exitCount.wrappingAdd(1, ordering: .relaxed)
            switch exit {
            case .portRead(let port, let width, let count):
                if count == 1 {
                    vcpu.supply(handler.readPort(port, width: width), at: 0)
                } else {
                    handler.readPorts(port, width: width, count: count) { index, value in vcpu.supply(value, at: index) }
                }
            case .portWrite(let port, let width, let count):
                for index in 0..<max(count, 0) { handler.writePort(port, width: width, value: vcpu.portValue(index)) }
            case .memoryRead(let address, let byteCount): vcpu.supply(handler.readMemory(address, byteCount: byteCount), at: 0)
            case .memoryWrite(let address, let byteCount, let value): handler.writeMemory(address, byteCount: byteCount, value: value)
            case .interrupted, .halted: if !gate.update({ $0.isOpen }) { return nil }
            case .shutdown: return .guestReset(way: "triple fault")
            case .internalError(let code, let detail): return .breakdown(vcpu: vcpu.index, reason: "\(detail) (\(code))")
            case .failedEntry(let reason):
                return .breakdown(vcpu: vcpu.index, reason: "the processor refused the guest's state (0x\(String(reason, radix: 16)))")
            case .systemEvent(let kind):
                // KVM_SYSTEM_EVENT_SHUTDOWN, _RESET, _CRASH.
                switch kind {
                case 1: return .guestShutdown
                case 2: return .guestReset(way: "system event")
                default: return .guestCrash(reason: "the guest reported a crash (system event \(kind))")
                }
            }
        }
    }
}

/// A thread that a list can hold: joined once.
private final class JoinableThread: Sendable {
    private let thread: Mutex<Thread?>

    init(_ thread: consuming Thread) {
        self.thread = Mutex(thread)
    }

    func join() {
        if let thread = thread.withLock({ $0.take() }) { thread.join() }
    }
}
