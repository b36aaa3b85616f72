// apus-vmm: reads its options, opens what they name, builds the machine, and drives it until it ends.
import Glibc
import HostSystem
import KVM
import Machine

func complain(_ text: String) {
    var line = Array("apus-vmm: \(text)\n".utf8)
    // SAFETY: the array's own bytes; what stderr does not take is lost.
    _ = unsafe write(2, &line, line.count)
}

/// CLOCK_MONOTONIC nanoseconds at which this process was executed, in ticks of 10 ms from /proc, so the later of that and main.
let begin = SystemClock.monotonicNanoseconds

func run() -> CInt {
    do {
        let options = try Options(Array(CommandLine.arguments.dropFirst()))
        if options.wantsHelp {
            print(Options.help)
            return 0
        }
        let loop = try EventLoop()
        let output = ConsoleOutput(owning: OwnedDescriptor(owning: options.serial))
        let system = try KVMSystem(owning: OwnedDescriptor(owning: try Options.open(options.kvm, O_RDWR, for: "--kvm")))
        let machine = try GuestMachine(options.machine, system: system, output: output, loop: loop)
        let worker = try Thread(named: "io-0") {
            do { try loop.run() } catch { complain("\(error)") }
        }
        let last = try machine.run { event in
            switch event {
            case .internalError(let vcpu, let reason): complain("vcpu \(vcpu): \(reason) (guest)"); machine.post(.quit)
            case .reset, .shutdown, .quit: break
            }
        }
        loop.stop()
        worker.join()
        if options.reportsStart {
            complain("first entry \(machine.firstEntryNanoseconds &- begin) ns after main")
        }
        return last == .quit ? 3 : 0
    } catch let error as UsageError {
        complain("\(error)")
        return 2
    } catch {
        complain("\(error)")
        return 1
    }
}
exit(run())
