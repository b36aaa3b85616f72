// The command line. Every file may be given as a path, opened here before the guest exists, or as fd:N, a descriptor handed
// over by whoever started this process.
import Firmware
import Glibc
import HostSystem
import Machine
import NetworkBackend

struct UsageError: Error, CustomStringConvertible {
    let description: String
}

struct Options {
    var machine = MachineDescription()
    var serial: CInt = -1
    var kvm = "/dev/kvm"
    var reportsStart = false
    var wantsHelp = false

    static let help = """
        apus-vmm: one virtual machine on KVM

          --kernel FILE       bzImage or PVH ELF (required)
          --initrd FILE       initial RAM disk
          --cmdline TEXT      kernel command line (default: console=ttyS0)
          --memory MIB        guest RAM, 64 to 1048576 (default: 256)
          --cpus N            vCPUs, 1 to 64 (default: 1)
          --disk FILE[,ro]    raw disk on virtio-blk; may be repeated
          --net TAP,MAC       virtio-net on a tap: its name, or fd:N of an open one; may be repeated
          --rng               virtio-rng, fed from this host
          --balloon           virtio-balloon with statistics
          --serial WHERE      stdio (default) or a file, kept below 1 MiB
          --uuid UUID         the machine's SMBIOS UUID
          --no-reboot         end where the guest asks for a reset
          --kvm FILE          the KVM device (default: /dev/kvm)
          --report-start      print the nanoseconds from exec to the first entry into the guest, at the end, on stderr

        FILE may be fd:N, a descriptor this process inherited.
        Exit status: 0 the guest shut down, 1 the host or the description is at fault, 2 wrong usage, 3 the guest broke down.
        """

    init(_ arguments: [String]) throws {
        var rest = arguments[...]
        var serial = "stdio"
        func fail(_ text: String) -> UsageError { UsageError(description: text + "; see apus-vmm --help") }
        while let option = rest.popFirst() {
            func value() throws -> String {
                guard let value = rest.popFirst() else { throw fail("\(option) needs a value") }
                return value
            }
            switch option {
            case "--help", "-h": wantsHelp = true
            case "--kernel": machine.kernel = try Self.open(try value(), O_RDONLY, for: option)
            case "--initrd": machine.initrd = try Self.open(try value(), O_RDONLY, for: option)
            case "--cmdline": machine.commandLine = try value()
            case "--memory":
                let text = try value()
                guard let mib = UInt64(text), (64...1_048_576).contains(mib) else { throw fail("--memory \(text): give MiB from 64 to 1048576") }
                machine.memoryMiB = mib
            case "--cpus":
                let text = try value()
                guard let count = Int(text), (1...64).contains(count) else { throw fail("--cpus \(text): give a number from 1 to 64") }
                machine.vcpuCount = count
            case "--disk":
                var name = try value()
                let isReadOnly = name.hasSuffix(",ro")
                if isReadOnly { name.removeLast(3) }
                guard machine.disks.count + machine.networks.count < 28 else { throw fail("--disk \(name): 28 disks and networks are the limit") }
                let descriptor = try Self.open(name, isReadOnly ? O_RDONLY : O_RDWR, for: option)
                machine.disks.append((descriptor: descriptor, name: "disk\(machine.disks.count)", isReadOnly: isReadOnly))
            case "--net":
                let text = try value()
                let parts = text.split(separator: ",")
                let mac = parts.count == 2 ? parts[1].split(separator: ":").compactMap { UInt8($0, radix: 16) } : []
                guard mac.count == 6 else { throw fail("--net \(text): give a tap and a MAC address, for example tap0,fa:16:3e:00:00:01") }
                guard machine.disks.count + machine.networks.count < 28 else { throw fail("--net \(text): 28 disks and networks are the limit") }
                let name = String(parts[0])
                let tap = name.hasPrefix("fd:") ? try Self.open(name, O_RDWR, for: option) : try openTap(named: name, isMultiQueue: false).release()
                machine.networks.append((tap: tap, name: name, mac: mac))
            case "--rng": machine.hasEntropy = true
            case "--balloon": machine.hasBalloon = true
            case "--serial": serial = try value()
            case "--uuid":
                let text = try value()
                let digits = Array(text.utf8.filter { $0 != UInt8(ascii: "-") })
                let bytes = stride(from: 0, to: digits.count - 1, by: 2).compactMap { UInt8(String(decoding: digits[$0...($0 + 1)], as: UTF8.self), radix: 16) }
                guard digits.count == 32, bytes.count == 16 else { throw fail("--uuid \(text): not a UUID") }
                machine.system.uuid = bytes
            case "--no-reboot": machine.endsOnReset = true
            case "--kvm": kvm = try value()
            case "--report-start": reportsStart = true
            default: throw fail("\(option) is no option of this program")
            }
        }
        guard !wantsHelp else { return }
        guard machine.kernel >= 0 else { throw fail("--kernel is missing") }
        self.serial = serial == "stdio" ? dup(1) : try Self.open(serial, O_RDWR | O_CREAT, for: "--serial")
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
