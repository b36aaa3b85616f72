// A machine that runs: its vCPU threads and the state driver. States and moves: RunState.swift.
package import Chipset
import Firmware
import GuestMemory
package import HostSystem
package import KVM
import MachineCore
import Synchronization

package final class GuestMachine: Sendable {
    private struct Control: Sendable {
        var state = RunState.configured
        /// vCPUs out of guest code, waiting for the state to let them in.
        var parked = 0
        var events: [MachineEvent] = []
    }

    /// Turns a device's request into an event of the driver.
    private final class Requests: PowerRequests {
        let control: Monitor<Control>
        init(_ control: Monitor<Control>) { self.control = control }
        func guestRequestsReset(by way: String) { control.update { $0.events.append(.reset(way: way)) } }
        func guestRequestsShutdown() { control.update { $0.events.append(.shutdown) } }
    }

    private let description: MachineDescription
    private let machine: any VirtualMachine
    package let board: Board
    private let vcpus: [any VirtualCPU]
    private let control: Monitor<Control>
    /// CLOCK_MONOTONIC when the first vCPU entered the guest, 0 before.
    private let firstEntry = Atomic<UInt64>(0)

    package init(_ description: MachineDescription, system: KVMSystem, output: any SerialOutput, loop: EventLoop) throws {
        self.description = description
        control = Monitor(Control())
        let memory = try GuestMemory(byteCount: description.memoryMiB << 20)
        let machine = try system.makeVirtualMachine()
        try machine.map(memory)
        board = try Board(description, machine: machine, memory: memory, output: output, power: Requests(control), loop: loop)
        let topology = ProcessorTopology(sockets: description.vcpuCount, cores: 1, threads: 1)
        var vcpus: [any VirtualCPU] = []
        for index in 0..<description.vcpuCount { vcpus.append(try machine.makeVCPU(index: index, topology: topology)) }
        self.vcpus = vcpus
        self.machine = machine
        initialProcessorStates = try vcpus.map { try $0.saveState() }
        initialMachineState = try machine.saveState()
        try load()
    }

    /// Processors and interrupt controllers as after power on, for reset.
    private let initialProcessorStates: [[UInt8]]
    private let initialMachineState: [UInt8]

    package var state: RunState { control.update { $0.state } }
    package var firstEntryNanoseconds: UInt64 { firstEntry.load(ordering: .relaxed) }

    /// Tables, kernel and the boot processor's registers.
    private func load() throws {
        let high = max(description.memoryMiB << 20, MemoryMap.lowMemoryEnd) - MemoryMap.lowMemoryEnd + MemoryMap.fourGiB
        let ids = (0..<description.vcpuCount).map { UInt32($0) }
        let rsdp = try ACPITables.place(ACPIDescription(apicIDs: ids, hasSerialPort: true, highMemoryEnd: high), in: board.memory)
        try SMBIOSTables.place(description.system, processors: description.vcpuCount, in: board.memory)
        let kernel = try ImageFile(descriptor: description.kernel, named: "kernel")
        var initrd: ImageFile?
        if let descriptor = description.initrd { initrd = try ImageFile(descriptor: descriptor, named: "initrd") }
        let source = BootSource(kernel: kernel, initrd: initrd, commandLine: description.commandLine, rsdp: rsdp)
        try vcpus[0].setBootRegisters(try loadKernel(source, into: board.memory))
    }

    // MARK: Requests, from any thread

    package func post(_ event: MachineEvent) { control.update { $0.events.append(event) } }

    /// Moves to `next` and waits until every vCPU obeys. False where the state does not allow it.
    @discardableResult
    package func enter(_ next: RunState) -> Bool {
        let moved = control.update { control -> Bool in
            guard control.state.mayBecome(next) else { return false }
            control.state = next
            return true
        }
        guard moved else { return false }
        if !next.executes { park() }
        return true
    }

    /// Kicks every vCPU out of the guest and waits until all of them are.
    private func park() {
        for vcpu in vcpus { vcpu.kick() }
        control.wait { $0.parked == vcpus.count ? () : nil }
    }

    // MARK: Threads

    /// Starts the vCPUs and drives the machine until it ends; the last event is the answer.
    package func run(startingPaused: Bool = false, observer: (MachineEvent) -> Void) throws -> MachineEvent {
        control.update {
            $0.parked = vcpus.count
            $0.state = startingPaused ? .paused : .running
        }
        let running = try vcpus.map { vcpu in try VCPUThread(vcpu, self) }
        defer {
            control.update { $0.state = .ended }
            for vcpu in vcpus { vcpu.kick() }
            for thread in running { thread.join() }
        }
        while true {
            let event = control.wait { control -> MachineEvent? in control.events.isEmpty ? nil : control.events.removeFirst() }
            observer(event)
            switch event {
            case .quit: return event
            case .shutdown:
                enter(.shutdown)
                return event
            case .internalError: enter(.internalError)
            case .reset:
                if description.endsOnReset { return event }
                try reset()
            }
        }
    }

    private func reset() throws {
        let wasRunning = control.update { control -> Bool in
            defer { control.state = .paused }
            return control.state != .paused
        }
        park()
        board.reset()
        try machine.restoreState(initialMachineState)
        for (vcpu, state) in zip(vcpus, initialProcessorStates) { try vcpu.restoreState(state) }
        try load()
        control.update {
            $0.events.removeAll { if case .reset = $0 { true } else { false } }
            if wasRunning { $0.state = .running }
        }
    }

    /// The life of one vCPU's thread: in the guest while the state says so, parked otherwise.
    fileprivate func serve(_ vcpu: any VirtualCPU) {
        while true {
            let goesOn = control.wait { control -> Bool? in
                switch control.state {
                case .running:
                    control.parked -= 1
                    return true
                case .ended: return false
                default: return nil
                }
            }
            guard goesOn else { return }
            let event = execute(vcpu)
            control.update {
                $0.parked += 1
                guard let event else { return }
                // Nothing runs until the driver has looked at it.
                if $0.state == .running { $0.state = .paused }
                $0.events.append(event)
            }
        }
    }

    /// Runs guest code until the state changes or the guest does something the driver must hear.
    private func execute(_ vcpu: any VirtualCPU) -> MachineEvent? {
        _ = firstEntry.compareExchange(expected: 0, desired: SystemClock.monotonicNanoseconds, ordering: .relaxed)
        while true {
            let exit: VMExit
            do throws(AcceleratorError) { exit = try vcpu.run() } catch { return .internalError(vcpu: vcpu.index, reason: "\(error)") }
            switch exit {
            case .portRead(let port, let width, let count):
                for index in 0..<count { vcpu.supply(board.ports.read(port, width: width), at: index) }
            case .portWrite(let port, let width, let count):
                for index in 0..<count { board.ports.write(port, width: width, value: vcpu.portValue(index)) }
            case .memoryRead(let address, let byteCount): vcpu.supply(board.addresses.read(address, byteCount: byteCount), at: 0)
            case .memoryWrite(let address, let byteCount, let value): board.addresses.write(address, byteCount: byteCount, value: value)
            case .interrupted, .halted: if control.update({ !$0.state.executes }) { return nil }
            case .shutdown: return .reset(way: "triple fault")
            case .internalError(let code, let detail): return .internalError(vcpu: vcpu.index, reason: "\(detail) (\(code))")
            case .failedEntry(let reason): return .internalError(vcpu: vcpu.index, reason: "the processor refused the guest's state (\(reason))")
            case .systemEvent(let kind): return kind == 1 ? .shutdown : .reset(way: "system event \(kind)")
            }
        }
    }
}

/// One vCPU's thread, joined once.
private final class VCPUThread {
    private var thread: Thread?

    init(_ vcpu: any VirtualCPU, _ machine: GuestMachine) throws(HostError) {
        thread = try Thread(named: "vcpu-\(vcpu.index)") { machine.serve(vcpu) }
    }

    func join() {
        if let thread = thread.take() { thread.join() }
    }
}
