// The command line. A service gives one descriptor with the whole configuration; by hand every file may be given as a path,
// opened here before the guest exists, or as fd:N, a descriptor handed over by whoever started this process.
import Glibc
import HostSystem
import MachineConfiguration
import NetworkBackend

struct UsageError: Error, CustomStringConvertible {
    let description: String
}

struct Options {
    var machine: GuestConfiguration
    /// Where the console is written: standard output, by hand; nil: what the configuration says.
    var serial: CInt?
    var kvm = "/dev/kvm"
    var reportsStart = false
    var wantsHelp = false
    /// A saved state to look at, and nothing else to do.
    var stateToVerify: CInt?

    static let help = """
        apus-vmm: one virtual machine on KVM

          --machine fd:N      the whole machine as JSON in descriptor N (MachineConfiguration); no other option but --report-start

        By hand:
          --type TYPE         direct-1.0 (default), pc-1.0 or q35-1.0
          --firmware FILE     SeaBIOS or OVMF's code, for the PC types (default: the distribution's SeaBIOS)
          --variables FILE    OVMF's variables, written to
          --firmware-log FILE what the firmware says at its debug port
          --kernel FILE       bzImage or PVH ELF; direct-1.0 needs one
          --initrd FILE       initial RAM disk
          --cmdline TEXT      kernel command line (default: console=ttyS0)
          --memory MIB        guest RAM, 64 to 1048576 (default: 256)
          --cpus N            vCPUs, 1 to 64 (default: 1)
          --disk FILE[,WORD]… a disk; may be repeated. Words: ro, cd, boot=N, format=FORMAT (raw), backing=FORMAT:FILE, and what it
                              is attached to: virtio (default), sata, ide, nvme, scsi
          --net TAP,MAC       virtio-net on a tap: its name, or fd:N of an open one; may be repeated
          --rng               virtio-rng, fed from this host
          --balloon           virtio-balloon with statistics
          --serial WHERE      stdio (default) or a file, kept below 1 MiB
          --console PATH      a socket to type at the serial port
          --control PATH      a socket for commands (MonitorProtocol); the process then stays until `quit`
          --paused            wait for `resume`
          --restore FILE      go on from a state that `save` wrote, with the options of the machine that was saved
          --name NAME         the machine's name
          --uuid UUID         the machine's UUID
          --no-reboot         end where the guest asks for a reset
          --kvm FILE          the KVM device (default: /dev/kvm)
          --report-start      print the nanoseconds from exec to the first entry into the guest, at the end, on stderr

        Alone:
          --verify-state FILE compares every checksum of a saved state, RAM's too

        FILE may be fd:N, a descriptor this process inherited. SIGTERM pulls the plug.
        Exit status: 0 the guest shut down, 1 the host or the description is at fault, 2 wrong usage, 3 the guest broke down.
        """

    /// Debian's package seabios.
    private static let bios = "/usr/share/seabios/bios-256k.bin"

    private static func fail(_ text: String) -> UsageError { UsageError(description: text + "; see apus-vmm --help") }

    init(_ arguments: [String]) throws {
        machine = GuestConfiguration(
            name: "guest", uuid: .zero, memoryMiB: 256, cpu: CPUConfiguration(count: 1))
        var rest = arguments[...]
        var serial = "stdio"
        var isByHand = false, wholeMachine: String?
        while let option = rest.popFirst() {
            func value() throws -> String {
                guard let value = rest.popFirst() else { throw Self.fail("\(option) needs a value") }
                return value
            }
            switch option {
            case "--help", "-h":
                wantsHelp = true
                return
            case "--machine": wholeMachine = try value()
            case "--report-start": reportsStart = true
            case "--serial":
                serial = try value()
                isByHand = true
            default:
                isByHand = true
                try read(option, value)
            }
        }
        if let wholeMachine {
            guard !isByHand else { throw Self.fail("--machine says all, another option was given too") }
            machine = try Self.readMachine(wholeMachine)
            return
        }
        if stateToVerify != nil { return }
        if machine.type == .direct, machine.kernel == nil { throw Self.fail("--kernel is missing") }
        if machine.type != .direct, machine.firmware == nil {
            machine.firmware = FirmwareConfiguration(code: Int(try Self.open(Self.bios, O_RDONLY, for: "--firmware")))
        }
        self.serial = serial == "stdio" ? dup(1) : try Self.open(serial, O_RDWR | O_CREAT, for: "--serial")
    }

    private mutating func read(_ option: String, _ value: () throws -> String) throws {
        switch option {
        case "--type":
            let text = try value()
            guard let type = MachineType(named: text) else {
                throw Self.fail("--type \(text): give one of \(MachineType.allCases.map(\.rawValue).joined(separator: ", "))")
            }
            machine.type = type
        case "--firmware":
            let code = Int(try Self.open(try value(), O_RDONLY, for: option))
            machine.firmware = FirmwareConfiguration(code: code)
        case "--variables":
            guard machine.firmware != nil else { throw Self.fail("--variables: give --firmware first") }
            machine.firmware?.variables = Int(try Self.open(try value(), O_RDWR, for: option))
        case "--firmware-log":
            guard machine.firmware != nil else { throw Self.fail("--firmware-log: give --firmware first") }
            machine.firmware?.log = Int(try Self.open(try value(), O_RDWR | O_CREAT | O_TRUNC, for: option))
        case "--kernel": machine.kernel = Int(try Self.open(try value(), O_RDONLY, for: option))
        case "--initrd": machine.initrd = Int(try Self.open(try value(), O_RDONLY, for: option))
        case "--cmdline": machine.commandLine = try value()
        case "--memory":
            let text = try value()
            guard let mib = Int(text), (64...1_048_576).contains(mib) else {
                throw Self.fail("--memory \(text): give MiB from 64 to 1048576")
            }
            machine.memoryMiB = mib
        case "--cpus":
            let text = try value()
            guard let count = Int(text), (1...64).contains(count) else {
                throw Self.fail("--cpus \(text): give a number from 1 to 64")
            }
            machine.cpu = CPUConfiguration(count: count)
        case "--disk":
            let text = try value()
            try checkDeviceCount(option, text)
            machine.disks.append(try Self.readDisk(text, id: "disk\(machine.disks.count)"))
        case "--net":
            let text = try value()
            let parts = text.split(separator: ",")
            guard parts.count == 2, let mac = MACAddress(String(parts[1])) else {
                throw Self.fail("--net \(text): give a tap and a MAC address, for example tap0,fa:16:3e:00:00:01")
            }
            try checkDeviceCount(option, text)
            let name = String(parts[0])
            let tap =
                name.hasPrefix("fd:")
                ? try Self.open(name, O_RDWR, for: option) : try openTap(named: name, isMultiQueue: false).release()
            machine.networks.append(NetworkConfiguration(id: name, fds: [Int(tap)], mac: mac))
        case "--rng": machine.rng = true
        case "--balloon": machine.balloon = true
        case "--console": machine.console.listen = Int(try listenOnUnixSocket(at: try value()).release())
        case "--control": machine.control = Int(try listenOnUnixSocket(at: try value()).release())
        case "--paused": machine.startPaused = true
        case "--restore": machine.restore = Int(try Self.open(try value(), O_RDONLY, for: option))
        case "--verify-state": stateToVerify = try Self.open(try value(), O_RDONLY, for: option)
        case "--name": machine.name = try value()
        case "--uuid":
            let text = try value()
            guard let uuid = MachineUUID(text) else { throw Self.fail("--uuid \(text): not a UUID") }
            machine.uuid = uuid
        case "--no-reboot": machine.onGuestReset = .shutdown
        case "--kvm": kvm = try value()
        default: throw Self.fail("\(option) is no option of this program")
        }
    }

    /// FILE[,WORD]…: a file name may hold commas as long as what follows them is no word of ours.
    private static func readDisk(_ text: String, id: String) throws -> DiskConfiguration {
        var disk = DiskConfiguration(id: id, fd: -1)
        var name = Substring(text)
        while let comma = name.lastIndex(of: ",") {
            let word = name[name.index(after: comma)...]
            if word == "ro" {
                disk.readOnly = true
            } else if word == "cd" {
                (disk.isOptical, disk.readOnly) = (true, true)
            } else if let bus = DiskBus(rawValue: String(word)) {
                disk.bus = bus
            } else if word.hasPrefix("format=") {
                disk.format = String(word.dropFirst(7))
            } else if word.hasPrefix("backing=") {
                // FORMAT:FILE
                let parts = word.dropFirst(8).split(separator: ":", maxSplits: 1)
                guard parts.count == 2 else { throw fail("--disk \(text): give backing=FORMAT:FILE") }
                let number = Int(try open(String(parts[1]), O_RDONLY, for: "--disk"))
                disk.backing.insert(BackingConfiguration(fd: number, format: String(parts[0])), at: 0)
            } else if word.hasPrefix("boot="), let index = Int(word.dropFirst(5)), (0...255).contains(index) {
                disk.bootIndex = index
            } else {
                break
            }
            name = name[..<comma]
        }
        disk.fd = Int(try open(String(name), disk.readOnly ? O_RDONLY : O_RDWR, for: "--disk"))
        return disk
    }

    private func checkDeviceCount(_ option: String, _ value: String) throws {
        guard machine.disks.count + machine.networks.count < 28 else {
            throw Self.fail("\(option) \(value): 28 disks and networks are the limit")
        }
    }

    /// The JSON in a descriptor, and every descriptor that it names, made close-on-exec and known to be open.
    private static func readMachine(_ name: String) throws -> GuestConfiguration {
        guard name.hasPrefix("fd:") else { throw fail("--machine \(name): give fd:N") }
        let number = try open(name, O_RDONLY, for: "--machine")
        defer { _ = close(number) }
        let limit = 1 << 20
        var text = [UInt8](repeating: 0, count: limit + 1)
        var count = 0
        while count < text.count {
            // A file from its start, wherever its maker left off writing; a pipe as it comes.
            // SAFETY: fills the rest of the array and no more.
            var got = unsafe text.withUnsafeMutableBytes {
                unsafe pread(number, $0.baseAddress.map { unsafe $0 + count }, $0.count - count, off_t(count))
            }
            if got < 0, errno == ESPIPE {
                got = unsafe text.withUnsafeMutableBytes {
                    unsafe Glibc.read(number, $0.baseAddress.map { unsafe $0 + count }, $0.count - count)
                }
            }
            if got < 0, errno == EINTR { continue }
            guard got >= 0 else { throw HostError("read", subject: "the machine's configuration", errno: errno) }
            if got == 0 { break }
            count += got
        }
        let machine = try GuestConfiguration(parsing: Array(text.prefix(count)))
        for (path, named) in machine.namedDescriptors {
            // The text's own descriptor is closed here.
            guard named != Int(number), fcntl(CInt(named), F_GETFD) >= 0 else {
                throw ConfigurationError(path: path, reason: "descriptor \(named) is not open")
            }
            _ = fcntl(CInt(named), F_SETFD, FD_CLOEXEC)
        }
        return machine
    }

    /// A path opened now, or a descriptor that is open already.
    static func open(_ name: String, _ flags: CInt, for option: String) throws -> CInt {
        if name.hasPrefix("fd:") {
            guard let number = CInt(name.dropFirst(3)), fcntl(number, F_GETFD) >= 0 else {
                throw UsageError(description: "\(option) \(name): no such open descriptor")
            }
            _ = fcntl(number, F_SETFD, FD_CLOEXEC)
            return number
        }
        let number = unsafe Glibc.open(name, flags | O_CLOEXEC, 0o600)
        guard number >= 0 else { throw HostError("open", subject: "\(name) for \(option)", errno: errno) }
        return number
    }
}
