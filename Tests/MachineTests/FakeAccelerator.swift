// An accelerator without a processor: each vCPU returns the exits a test gives it, then waits to be kicked.
import GuestMemory
import HostSystem
import MachineCore
import Synchronization

final class FakeVCPU: VirtualCPU {
    struct State: Sendable {
        var exits: [VMExit] = []
        var isKicked = false
        var values: [UInt64] = []
        var supplied: [UInt64] = []
        var boots = 0
        var restores = 0
        var interruptions = 0
    }
    let index: Int
    let state = Monitor(State())

    init(index: Int) { self.index = index }

    func give(_ exits: [VMExit], values: [UInt64] = []) {
        state.update {
            $0.exits += exits
            $0.values = values
        }
    }

    func run() throws(AcceleratorError) -> VMExit {
        let exit = state.wait { state -> VMExit? in
            if state.isKicked {
                state.isKicked = false
                state.interruptions += 1
                return .interrupted
            }
            return state.exits.isEmpty ? nil : state.exits.removeFirst()
        }
        if case .systemEvent(99) = exit {
            throw AcceleratorError("KVM_RUN", subject: "vcpu \(index)", errno: 14, reason: "as the test asked")
        }
        return exit
    }

    func portValue(_ index: Int) -> UInt64 { state.update { $0.values.indices.contains(index) ? $0.values[index] : 0 } }
    func supply(_ value: UInt64, at index: Int) { state.update { $0.supplied.append(value) } }
    func kick() { state.update { $0.isKicked = true } }
    func notePause() {}
    func setBootRegisters(_ registers: BootRegisters) throws(AcceleratorError) { state.update { $0.boots += 1 } }
    func saveState() throws(AcceleratorError) -> [UInt8] { [UInt8(index), 7] }
    func restoreState(_ state: [UInt8], at occasion: RestoreOccasion) throws(AcceleratorError) {
        guard state == [UInt8(index), 7] else { throw AcceleratorError("restore", subject: "vcpu", fault: .caller, reason: "\(state)") }
        self.state.update { $0.restores += 1 }
    }
}

final class FakeInterrupt: MessageInterrupt {
    func setMessage(_ message: InterruptMessage?) throws(AcceleratorError) {}
    func trigger() {}
    var eventDescriptor: CInt? { nil }
}

final class FakeAccelerator: VirtualMachine {
    let vcpus = Mutex<[FakeVCPU]>([])
    let lines = Mutex<[UInt32: Bool]>([:])
    let isClockStopped = Mutex(false)
    let isTimerConnected = Mutex(true)

    func register(eventDescriptor: CInt, at address: DoorbellAddress, width: AccessWidth?) throws(AcceleratorError) {}
    func unregister(eventDescriptor: CInt, at address: DoorbellAddress, width: AccessWidth?) throws(AcceleratorError) {}
    func makeMessageInterrupt() throws(AcceleratorError) -> any MessageInterrupt { FakeInterrupt() }
    func map(_ memory: GuestMemory) throws(AcceleratorError) {}
    func mapWindow(_ window: Int, _ pages: HostPages, at base: GuestAddress, isReadOnly: Bool) throws(AcceleratorError) {}
    func unmapWindow(_ window: Int) throws(AcceleratorError) {}
    func show(_ model: ProcessorModel) throws(AcceleratorError) {}
    func makeVCPU(index: Int, topology: ProcessorTopology) throws(AcceleratorError) -> any VirtualCPU {
        let vcpu = FakeVCPU(index: index)
        vcpus.withLock { $0.append(vcpu) }
        return vcpu
    }
    func setLine(gsi: UInt32, isAsserted: Bool) { lines.withLock { $0[gsi] = isAsserted } }
    func setTimerInterrupt(isConnected: Bool) throws(AcceleratorError) { isTimerConnected.withLock { $0 = isConnected } }
    func stopClock() throws(AcceleratorError) { isClockStopped.withLock { $0 = true } }
    func startClock() throws(AcceleratorError) { isClockStopped.withLock { $0 = false } }
    func saveState() throws(AcceleratorError) -> [UInt8] { [1, 2, 3] }
    func restoreState(_ state: [UInt8]) throws(AcceleratorError) {}
}
