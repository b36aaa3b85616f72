// apus-vmm: reads its options, opens what they name, builds the machine, and drives it until it ends.
import Chipset
import Glibc
import HostSystem
import KVM
import Machine
import MachineConfiguration
import MonitorProtocol

func complain(_ text: String) {
    var line = Array("apus-vmm: \(text)\n".utf8)
    // SAFETY: the array's own bytes; what stderr does not take is lost.
    _ = unsafe write(2, &line, line.count)
}

/// CLOCK_MONOTONIC when this program's code began.
let begin = SystemClock.monotonicNanoseconds

func run() -> CInt {
    do {
        let options = try Options(Array(CommandLine.arguments.dropFirst()))
        if options.wantsHelp {
            print(Options.help)
            return 0
        }
        if let state = options.stateToVerify { return try verify(state) }
        return try serve(options)
    } catch let error as UsageError {
        complain("\(error)")
        return 2
    } catch {
        complain("\(error)")
        return 1
    }
}

/// Says what a saved state is of, and whether every byte of it is as it was written.
func verify(_ descriptor: CInt) throws -> CInt {
    let state = try StateFile(reading: descriptor)
    try state.verify()
    print("\(state.summary): whole")
    return 0
}

/// The console as the options want it: a log, a socket, both or neither.
func makeConsole(_ options: Options, on loop: EventLoop) throws -> (log: ConsoleOutput?, listener: ConsoleListener?) {
    let console = options.machine.console
    var log: ConsoleOutput?
    if let number = options.serial ?? console.log.map({ CInt($0) }) {
        log = try ConsoleOutput(owning: OwnedDescriptor(owning: number), limit: console.logLimitBytes, on: loop)
        // A pipe that nobody reads would hold the guest up.
        guard options.serial != nil || log?.isRegularFile == true else {
            throw ConfigurationError(path: "console.log", reason: "not a regular file")
        }
    }
    guard let number = console.listen else { return (log, nil) }
    return (log, try ConsoleListener(listening: OwnedDescriptor(owning: CInt(number)), on: loop, log: log))
}

/// When each step of the start was done, for --report-start.
struct Steps {
    private var done: [(name: String, nanoseconds: UInt64)] = []

    mutating func note(_ name: String) { done.append((name, SystemClock.monotonicNanoseconds)) }

    /// What the benchmark reads, and where the time went.
    func report(firstEntry: UInt64) {
        complain("first entry \(firstEntry &- begin) ns after main")
        var last = begin
        for (name, nanoseconds) in done + [("first entry", firstEntry)] {
            complain("start: \(name) took \((nanoseconds &- last) / 1000) us")
            last = nanoseconds
        }
    }
}

/// The life of the machine: this thread drives it, its vCPUs and its devices have theirs.
func serve(_ options: Options) throws -> CInt {
    var steps = Steps()
    steps.note("options")
    // A service that restarts closes the pipe behind stderr; its guests go on.
    _ = signal(SIGPIPE, SIG_IGN)
    let signals = try EndingSignals()
    let devices = try EventLoop()
    let (log, listener) = try makeConsole(options, on: devices)
    let kvm = try options.machine.kvm.map { CInt($0) } ?? Options.open(options.kvm, O_RDWR, for: "--kvm")
    steps.note("console")
    let system = try KVMSystem(owning: OwnedDescriptor(owning: kvm))
    let accelerator = try system.makeVirtualMachine()
    steps.note("kvm")
    let output: any SerialOutput = if let listener { listener } else if let log { log } else { NoConsole() }
    let machine = try GuestMachine(
        options.machine, accelerator: accelerator, output: output, loop: devices, isToBeRestored: options.machine.restore != nil)
    steps.note("machine")
    listener?.connect(to: machine.board.serial)
    let worker = try Thread(named: "io-0") {
        do { try devices.run() } catch { complain("\(error)") }
    }
    let monitor = try MachineMonitor(
        machine, log: log, signals: signals, begin: begin, staysWhenOff: options.machine.control != nil,
        complain: complain)
    if let state = options.machine.restore.map({ CInt($0) }) {
        try monitor.restore(from: state, began: begin)
        // The mapping keeps the file.
        _ = close(state)
        steps.note("restore")
    }
    monitor.perform(options.machine.startPaused ? .pause : .resume)
    if let control = options.machine.control { try monitor.serve(listening: OwnedDescriptor(owning: CInt(control))) }
    let last = try monitor.run()
    devices.stop()
    worker.join()
    for failure in machine.board.closeImages() { complain(failure) }
    log?.flush()
    machine.board.flushLogs()
    if options.reportsStart { steps.report(firstEntry: machine.processors.firstEntryNanoseconds) }
    if let status = monitor.guestExitStatus { return CInt(status) }
    return last == .internalError ? 3 : 0
}

exit(run())
