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
          --kernel FILE       bzImage; direct-1.0 needs one and takes PVH ELF and multiboot images, too
          --initrd FILE       initial RAM disk
          --cmdline TEXT      kernel command line (default: console=ttyS0)
          --memory MIB        guest RAM, 64 to 1048576 (default: 256)
          --cpus N            vCPUs, 1 to 64 (default: 1)
          --numa WORD[,WORD]… the guest's next node: memory=MIB, cpus=N or cpus=N-M (may be repeated), host=N: its memory is of that
                              node of the host; all nodes together have all vCPUs and all RAM
          --distance A,B,N    from node A to node B, 11 to 254 (default: 20), and back where that is not said itself
          --hugepages SIZE    RAM of huge pages, 2M or 1G, taken at the start
          --cpu MODEL[,WORD]… host-passthrough, host-model or a processor by libvirt's name (default: the host's). Words: +FEATURE,
                              -FEATURE, hide-kvm, hyperv (all that Windows uses of it)
          --disk FILE[,WORD]… a disk; may be repeated. Words: ro, cd, boot=N, format=FORMAT (raw), backing=FORMAT:FILE,
                              bytes=N and operations=N a second, port=N: behind that root port, and what it is attached to:
                              virtio (default), sata, ide, nvme, scsi, fdc (a floppy disk)
          --net TAP,MAC[,WORD]… virtio-net on a tap: its name, or fd:N of an open one; may be repeated. Words: boot=N, port=N, and rom=FILE
                              for an option ROM by which a BIOS boots from it
          --rng               virtio-rng, fed from this host
          --balloon           virtio-balloon with statistics
          --root-ports N      PCI Express root ports of q35-1.0, numbered from 0
          --hpet              the high precision event timer
          --watchdog ACTION   an i6300ESB; where it runs out: reset, poweroff, pause or none
          --panic POLICY      the port where a guest says that it panicked; the machine then: preserve, reset or shutdown
          --generation-id ID  the virtual machine generation id, a UUID
          --debug-console FILE what the guest writes to port 0xE9
          --debug-exit        port 0xF4: a value V written there ends this program with (V << 1) | 1
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
        do throws(ConfigurationError) { try machine.checkMemory() } catch {
            throw Self.fail("\(error.path.hasPrefix("numa") ? "--numa" : "--memory"): \(error.path): \(error.reason)")
        }
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
            (machine.cpu.count, machine.cpu.sockets, machine.cpu.cores, machine.cpu.threads) = (count, count, 1, 1)
        case "--numa": try readNode(try value())
        case "--distance":
            let text = try value()
            let numbers = text.split(separator: ",").map { Int($0) }
            guard numbers.count == 3, let from = numbers[0], let to = numbers[1], let distance = numbers[2] else {
                throw Self.fail("--distance \(text): give two nodes and a number, for example 0,1,25")
            }
            machine.numa = machine.numa ?? NUMAConfiguration()
            machine.numa?.distances.append(NUMAConfiguration.Distance(from: from, to: to, value: distance))
        case "--hugepages": machine.hugePages = try word(option, try value(), HugePageSize.self)
        case "--cpu": try readProcessor(try value())
        case "--disk":
            let text = try value()
            try checkDeviceCount(option, text)
            machine.disks.append(try Self.readDisk(text, id: "disk\(machine.disks.count)"))
        case "--net":
            let text = try value()
            let parts = text.split(separator: ",")
            guard parts.count >= 2, let mac = MACAddress(String(parts[1])) else {
                throw Self.fail("--net \(text): give a tap and a MAC address, for example tap0,fa:16:3e:00:00:01")
            }
            try checkDeviceCount(option, text)
            let name = String(parts[0])
            let tap =
                name.hasPrefix("fd:")
                ? try Self.open(name, O_RDWR, for: option) : try openTap(named: name, isMultiQueue: false).release()
            var network = NetworkConfiguration(id: name, fds: [Int(tap)], mac: mac)
            for word in parts.dropFirst(2) {
                if word.hasPrefix("boot="), let index = Int(word.dropFirst(5)), (0...255).contains(index) {
                    network.bootIndex = index
                } else if word.hasPrefix("port="), let port = Int(word.dropFirst(5)), port >= 0 {
                    network.port = port
                } else if word.hasPrefix("rom=") {
                    network.rom = Int(try Self.open(String(word.dropFirst(4)), O_RDONLY, for: option))
                } else {
                    throw Self.fail("--net \(text): \(word) is none of boot=N, port=N, rom=FILE")
                }
            }
            machine.networks.append(network)
        case "--rng": machine.rng = true
        case "--balloon": machine.balloon = true
        case "--root-ports":
            let text = try value()
            guard let count = Int(text), (0...BoardConfiguration.rootPortLimit).contains(count) else {
                throw Self.fail("--root-ports \(text): give a number up to \(BoardConfiguration.rootPortLimit)")
            }
            machine.board.rootPorts = count
        case "--hpet": machine.board.hpet = true
        case "--watchdog": machine.board.watchdog = try word(option, try value(), WatchdogAction.self)
        case "--panic":
            machine.board.panic = true
            machine.onGuestCrash = try word(option, try value(), GuestCrashPolicy.self)
        case "--generation-id": machine.board.generationID = try uuid(option, try value())
        case "--debug-console": machine.board.debugConsole = Int(try Self.open(try value(), O_RDWR | O_CREAT, for: option))
        case "--debug-exit": machine.board.debugExit = true
        case "--console": machine.console.listen = Int(try listenOnUnixSocket(at: try value()).release())
        case "--control": machine.control = Int(try listenOnUnixSocket(at: try value()).release())
        case "--paused": machine.startPaused = true
        case "--restore": machine.restore = Int(try Self.open(try value(), O_RDONLY, for: option))
        case "--verify-state": stateToVerify = try Self.open(try value(), O_RDONLY, for: option)
        case "--name": machine.name = try value()
        case "--uuid": machine.uuid = try uuid(option, try value())
        case "--no-reboot": machine.onGuestReset = .shutdown
        case "--kvm": kvm = try value()
        default: throw Self.fail("\(option) is no option of this program")
        }
    }

    private func uuid(_ option: String, _ text: String) throws -> MachineUUID {
        guard let uuid = MachineUUID(text) else { throw Self.fail("\(option) \(text): not a UUID") }
        return uuid
    }

    private func word<Word: RawRepresentable & CaseIterable>(_ option: String, _ text: String, _ type: Word.Type) throws -> Word
    where Word.RawValue == String {
        guard let word = Word(rawValue: text) else {
            throw Self.fail("\(option) \(text): give one of \(Word.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        return word
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
            } else if word.hasPrefix("bytes="), let count = UInt64(word.dropFirst(6)), count > 0 {
                disk.limits.limits[.totalBytes] = .init(perSecond: count)
            } else if word.hasPrefix("operations="), let count = UInt64(word.dropFirst(11)), count > 0 {
                disk.limits.limits[.totalOperations] = .init(perSecond: count)
            } else if word.hasPrefix("boot="), let index = Int(word.dropFirst(5)), (0...255).contains(index) {
                disk.bootIndex = index
            } else if word.hasPrefix("port="), let port = Int(word.dropFirst(5)), port >= 0 {
                disk.port = port
            } else {
                break
            }
            name = name[..<comma]
        }
        disk.fd = Int(try open(String(name), disk.readOnly ? O_RDONLY : O_RDWR, for: "--disk"))
        return disk
    }

    /// WORD[,WORD]…
    private mutating func readNode(_ text: String) throws {
        var node = NUMAConfiguration.Node(cpus: [], memoryMiB: 0)
        for word in text.split(separator: ",") {
            let parts = word.split(separator: "=", maxSplits: 1), bounds = (parts.last ?? "").split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
            switch (parts.first, parts.count, bounds.count) {
            case ("memory", 2, 1): node.memoryMiB = bounds[0] ?? 0
            case ("host", 2, 1): node.hostNode = bounds[0] ?? -1
            case ("cpus", 2, 1...2):
                guard let first = bounds[0], let last = bounds[bounds.count - 1], (0...63).contains(first), (first...63).contains(last) else { fallthrough }
                node.cpus += Array(first...last)
            default: throw Self.fail("--numa \(text): \(word) is none of cpus=N, cpus=N-M, memory=MIB, host=N")
            }
        }
        node.cpus.sort()
        machine.numa = machine.numa ?? NUMAConfiguration()
        machine.numa?.nodes.append(node)
    }

    /// MODEL[,WORD]…
    private mutating func readProcessor(_ text: String) throws {
        var words = text.split(separator: ",").map(String.init)[...]
        guard let model = words.popFirst(), !model.hasPrefix("+"), !model.hasPrefix("-") else {
            throw Self.fail("--cpu \(text): give a model first, for example host-passthrough")
        }
        machine.cpu.model = model
        for word in words {
            switch word {
            case "hide-kvm": machine.cpu.hidesKVM = true
            case "hyperv": machine.cpu.enlightenments = CPUConfiguration.windowsEnlightenments
            default:
                guard let sign = word.first, sign == "+" || sign == "-" else {
                    throw Self.fail("--cpu \(text): \(word) is none of +FEATURE, -FEATURE, hide-kvm, hyperv")
                }
                machine.cpu.features[String(word.dropFirst())] = sign == "+"
            }
        }
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
