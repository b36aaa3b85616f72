// A machine put together: memory, board, processors, and how they start, stop and reset. StateDriver says when.
package import Chipset
import Firmware
import GuestMemory
package import HostSystem
package import MachineConfiguration
package import MachineCore
import Synchronization

package final class GuestMachine: DrivenMachine, Sendable {
    /// Puts a program into guest memory and says how the boot processor starts. Called again at each reset.
    package typealias Loader = @Sendable (Board) throws -> BootRegisters

    package let configuration: GuestConfiguration
    let machine: any VirtualMachine
    package let board: Board
    package let processors: Processors
    package let requests: GuestRequests
    private let load: Loader
    /// Processors and interrupt controllers as after power on, for reset.
    private let initialProcessorStates: [[UInt8]]
    private let initialMachineState: [UInt8]
    /// Devices that still had requests in flight when the machine was stopped.
    private let busyDevices = Mutex<[String]>([])
    let nmiButton = Mutex(NMIButton())
    /// CLOCK_MONOTONIC when the last restore was asked for; 0 where there was none.
    let restoreBegan = Atomic<UInt64>(0)

    /// - Parameters:
    ///   - loader: nil boots the configuration's kernel.
    ///   - isToBeRestored: RAM stays empty, and no processor knows where to begin: `restore` must follow.
    package init(
        _ configuration: GuestConfiguration, accelerator machine: any VirtualMachine, output: any SerialOutput, loop: EventLoop,
        isToBeRestored: Bool = false, loader: Loader? = nil
    ) throws {
        self.configuration = configuration
        self.machine = machine
        load = loader ?? { try Self.load(configuration, on: $0) }
        requests = try GuestRequests()
        let memory = try GuestMemory(
            byteCount: UInt64(configuration.memoryMiB) << 20, lowMemoryEnd: Board.lowMemoryEnd(configuration),
            placement: configuration.memoryPlacement)
        try machine.map(memory)
        board = try Board(configuration, machine: machine, memory: memory, output: output, requests: requests, loop: loop)
        let topology = configuration.cpu.topology
        if configuration.cpu.isSpecial { try machine.show(try configuration.cpu.processorModel()) }
        var vcpus: [any VirtualCPU] = []
        for index in 0..<topology.count { vcpus.append(try machine.makeVCPU(index: index, topology: topology)) }
        initialProcessorStates = try vcpus.map { try $0.saveState() }
        initialMachineState = try machine.saveState()
        processors = Processors(vcpus, handler: BoardExits(board, requests))
        if !isToBeRestored { try loadProgram() }
        try processors.start()
    }

    private func loadProgram() throws {
        let registers = try load(board)
        guard let bootProcessor = processors.vcpus.first else { return }
        try bootProcessor.setBootRegisters(registers)
    }

    /// A kernel by ourselves, or firmware, which finds its own way.
    private static func load(_ configuration: GuestConfiguration, on board: Board) throws -> BootRegisters {
        guard let firmware = board.firmware else { return try loadKernel(of: configuration, on: board) }
        try firmware.shadow(into: board.memory)
        return BootRegisters(mode: .reset)
    }

    /// Tables, kernel, RAM disk.
    private static func loadKernel(of configuration: GuestConfiguration, on board: Board) throws -> BootRegisters {
        let high = max(board.memory.byteCount, MemoryMap.lowMemoryEnd) - MemoryMap.lowMemoryEnd + MemoryMap.fourGiB
        let topology = configuration.cpu.topology
        var tables = ACPIDescription(
            apicIDs: (0..<topology.count).map(topology.apicID), hasSerialPort: true, highMemoryEnd: high, hasKeyboardController: true)
        tables.proximity = configuration.proximityDomains(board.memory.regions)
        board.extras.describe(&tables)
        try board.extras.generation?.place()
        let rsdp = try ACPITables.place(tables, in: board.memory)
        try SMBIOSTables.place(SystemInformation(configuration), processors: topology.count, in: board.memory)
        guard let descriptor = configuration.kernel else { throw LoaderError("the kernel", "there is none") }
        let kernel = try ImageFile(descriptor: CInt(descriptor), named: "kernel")
        var initrd: ImageFile?
        if let descriptor = configuration.initrd { initrd = try ImageFile(descriptor: CInt(descriptor), named: "initrd") }
        let source = BootSource(kernel: kernel, initrd: initrd, commandLine: configuration.commandLine, rsdp: rsdp)
        return try Firmware.loadKernel(source, into: board.memory)
    }

    // MARK: For the driver, on its thread

    package func setRunning() throws {
        try machine.startClock()
        for vcpu in processors.vcpus { vcpu.notePause() }
        board.resume()
        processors.open()
    }

    package func setStopped() throws {
        processors.close()
        // A disk that does not answer leaves the machine stopped all the same; only saving needs its devices idle.
        let busy = board.pause()
        busyDevices.withLock { $0 = busy }
        try machine.stopClock()
    }

    package func resetStopped() throws {
        board.reset()
        try machine.restoreState(initialMachineState)
        for (vcpu, state) in zip(processors.vcpus, initialProcessorStates) { try vcpu.restoreState(state, at: .reset) }
        try loadProgram()
    }

    package func pressPowerButton() {
        board.powerManagement.pressPowerButton()
    }

    package func end() {
        processors.end()
    }

    /// Why the machine cannot be saved now; nil where it can.
    var saveObstacle: String? {
        let busy = busyDevices.withLock { $0 }
        return busy.isEmpty ? nil : "requests in flight on \(busy.joined(separator: ", "))"
    }
}

extension CPUConfiguration {
    /// Something else than the host's processor as it is.
    var isSpecial: Bool { model != nil || !features.isEmpty || hidesKVM || !enlightenments.isEmpty }

    func processorModel() throws(AcceleratorError) -> ProcessorModel {
        var wanted = ProcessorModel(features: features, hidesAccelerator: hidesKVM)
        if let model, model != "host-passthrough", model != "host-model" { wanted.base = .named(model) }
        for name in enlightenments {
            guard let one = Enlightenment(rawValue: name) else {
                throw AcceleratorError(
                    "find Hyper-V enlightenment", subject: name, fault: .caller,
                    reason: "there are: " + Enlightenment.allCases.map(\.rawValue).joined(separator: ", "))
            }
            wanted.enlightenments.insert(one)
        }
        return wanted
    }

    var topology: ProcessorTopology { ProcessorTopology(sockets: sockets, cores: cores, threads: threads) }
}

extension SystemInformation {
    /// A server's UUID stands where nothing else is said: Nova's guests look for it in both places.
    init(_ configuration: GuestConfiguration) {
        let system = configuration.system
        self.init(
            manufacturer: system.manufacturer, product: system.product, version: system.version,
            serial: system.serial ?? configuration.uuid.description, uuid: (system.uuid ?? configuration.uuid).bytes, family: system.family)
    }
}

extension GuestRequests: PowerRequests {
    package func guestRequestsReset(by way: String) { post(.guestReset(way: way)) }
    package func guestRequestsShutdown() { post(.guestShutdown) }
}

/// The board's side of an exit.
private final class BoardExits: ExitHandler {
    private let ports: PortBus
    private let addresses: MemoryBus
    private let requests: GuestRequests

    init(_ board: Board, _ requests: GuestRequests) {
        ports = board.ports
        addresses = board.addresses
        self.requests = requests
    }

    func readPort(_ port: UInt16, width: AccessWidth) -> UInt64 { ports.read(port, width: width) }
    func readPorts(_ port: UInt16, width: AccessWidth, count: Int, _ body: (Int, UInt64) -> Void) {
        ports.readString(port, width: width, count: count, body)
    }
    func writePort(_ port: UInt16, width: AccessWidth, value: UInt64) { ports.write(port, width: width, value: value) }
    func readMemory(_ address: GuestAddress, byteCount: Int) -> UInt64 { addresses.read(address, byteCount: byteCount) }
    func writeMemory(_ address: GuestAddress, byteCount: Int, value: UInt64) { addresses.write(address, byteCount: byteCount, value: value) }
    func processorStopped(_ request: MachineRequest) { requests.post(request) }
}
