// apus-vmm: reads its options, opens what they name, builds the machine, and drives it until it ends.
import Glibc
import HostSystem
import KVM
import Machine
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
        return try serve(options)
    } catch let error as UsageError {
        complain("\(error)")
        return 2
    } catch {
        complain("\(error)")
        return 1
    }
}

/// The life of the machine: this thread drives it, its vCPUs and its devices have theirs.
func serve(_ options: Options) throws -> CInt {
    let devices = try EventLoop()
    let output = ConsoleOutput(owning: OwnedDescriptor(owning: options.serial))
    let system = try KVMSystem(owning: OwnedDescriptor(owning: try Options.open(options.kvm, O_RDWR, for: "--kvm")))
    let machine = try GuestMachine(options.machine, accelerator: try system.makeVirtualMachine(), output: output, loop: devices)
    let worker = try Thread(named: "io-0") {
        do { try devices.run() } catch { complain("\(error)") }
    }
    let driver = StateDriver(machine, requests: machine.requests, resetsEndMachine: options.machine.endsOnReset) { notice in
        if case .brokeDown(let vcpu, let reason) = notice {
            complain(vcpu.map { "vcpu \($0): \(reason) (guest)" } ?? reason)
        }
    }
    try driver.perform(.resume)
    while driver.state.executes {
        waitUntilReadable(machine.requests.descriptor)
        driver.serveGuestRequests()
    }
    let last = driver.state
    try driver.perform(.quit)
    devices.stop()
    worker.join()
    if options.reportsStart { report(machine) }
    return last == .internalError ? 3 : 0
}

func waitUntilReadable(_ descriptor: CInt) {
    var wanted = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    // SAFETY: one structure, a local. An interrupted wait only means another look.
    _ = unsafe poll(&wanted, 1, -1)
}

/// What the benchmark reads.
func report(_ machine: GuestMachine) {
    complain("first entry \(machine.processors.firstEntryNanoseconds &- begin) ns after main")
}
exit(run())
