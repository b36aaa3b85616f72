// The description of one machine that the service hands to the monitor: values only. GuestConfiguration+JSON.swift is its text.

/// One virtual machine. Every descriptor is a number that is open in the monitor when it starts.
package struct GuestConfiguration: Sendable, Equatable {
    /// The version of the text this program writes and reads.
    package static let version = 1

    package var name: String
    package var uuid: MachineUUID
    package var memoryMiB: Int
    package var cpu: CPUConfiguration
    /// How both lie in nodes; nil: the guest is told of none.
    package var numa: NUMAConfiguration?
    /// The pages of the host that RAM is of, all of them taken at the start; nil: small ones, as they are touched.
    package var hugePages: HugePageSize?
    package var type: MachineType
    /// What a machine of a PC type starts with.
    package var firmware: FirmwareConfiguration?
    /// A bzImage; a machine without firmware needs one, and takes a PVH ELF or multiboot image, too.
    package var kernel: Int?
    package var initrd: Int?
    package var commandLine: String
    package var system: SystemConfiguration
    package var disks: [DiskConfiguration]
    package var networks: [NetworkConfiguration]
    /// virtio-rng.
    package var rng: Bool
    /// virtio-balloon with statistics.
    package var balloon: Bool
    package var console: ConsoleConfiguration
    /// A listening stream socket for MonitorProtocol; nil: nobody asks.
    package var control: Int?
    /// An open /dev/kvm; nil: the monitor opens it before anything else.
    package var kvm: Int?
    package var startPaused: Bool
    /// A saved state of this very machine to go on from, open for reading, in place of a start by firmware or kernel. RAM is mapped
    /// from it: the file must stay as it is until the machine has ended. RAM of huge pages or bound to a node is read from it instead.
    package var restore: Int?
    package var onGuestReset: GuestResetPolicy
    package var onGuestCrash: GuestCrashPolicy
    package var board: BoardConfiguration

    package init(
        name: String, uuid: MachineUUID, memoryMiB: Int, cpu: CPUConfiguration, type: MachineType = .direct, firmware: FirmwareConfiguration? = nil,
        kernel: Int? = nil, initrd: Int? = nil,
        commandLine: String = "console=ttyS0", system: SystemConfiguration = SystemConfiguration(),
        disks: [DiskConfiguration] = [],
        networks: [NetworkConfiguration] = [], rng: Bool = false, balloon: Bool = false,
        console: ConsoleConfiguration = ConsoleConfiguration(), control: Int? = nil, kvm: Int? = nil,
        startPaused: Bool = false, restore: Int? = nil,
        onGuestReset: GuestResetPolicy = .reset, onGuestCrash: GuestCrashPolicy = .preserve, board: BoardConfiguration = BoardConfiguration(),
        numa: NUMAConfiguration? = nil, hugePages: HugePageSize? = nil
    ) {
        self.numa = numa
        self.hugePages = hugePages
        self.name = name
        self.uuid = uuid
        self.memoryMiB = memoryMiB
        self.cpu = cpu
        self.type = type
        self.firmware = firmware
        self.kernel = kernel
        self.initrd = initrd
        self.commandLine = commandLine
        self.system = system
        self.disks = disks
        self.networks = networks
        self.rng = rng
        self.balloon = balloon
        self.console = console
        self.control = control
        self.kvm = kvm
        self.startPaused = startPaused
        self.restore = restore
        self.onGuestReset = onGuestReset
        self.onGuestCrash = onGuestCrash
        self.board = board
    }
}

/// The board, with the version of what a guest sees of it: a later version never changes an earlier one.
package enum MachineType: String, Sendable, CaseIterable {
    /// Starts a kernel itself: a root complex and virtio devices, no firmware, no legacy disk controllers.
    case direct = "direct-1.0"
    /// i440FX and PIIX, as SeaBIOS and OVMF know them.
    case pc = "pc-1.0"
    /// Q35 and ICH9.
    case q35 = "q35-1.0"

    /// Nova's `hw_machine_type` and the names of other monitors' boards: "q35", "pc-q35-7.2", "pc", "pc-i440fx-7.2".
    package init?(named name: String) {
        if let known = MachineType(rawValue: name) {
            self = known
        } else if name == "q35" || name.hasPrefix("pc-q35-") {
            self = .q35
        } else if name == "pc" || name.hasPrefix("pc-i440fx-") {
            self = .pc
        } else {
            return nil
        }
    }
}

/// Firmware images as descriptors.
package struct FirmwareConfiguration: Sendable, Equatable {
    /// SeaBIOS, or OVMF's code: mapped to end at 4 GiB, or below the variables' end.
    package var code: Int
    /// OVMF's variables, open for reading and writing; nil where the firmware keeps none.
    package var variables: Int?
    /// A file for what the firmware says at its debug port; nil: nobody listens, and firmware says less.
    package var log: Int?

    package init(code: Int, variables: Int? = nil, log: Int? = nil) {
        self.code = code
        self.log = log
        self.variables = variables
    }
}

/// How many vCPUs, and how they lie in packages, cores and threads: the product is the count.
package struct CPUConfiguration: Sendable, Equatable {
    package var count: Int
    package var sockets: Int
    package var cores: Int
    package var threads: Int
    /// "host-passthrough", "host-model" or a processor by libvirt's name; nil: the host's.
    package var model: String?
    /// By libvirt's names: whether the guest must have it or must not.
    package var features: [String: Bool] = [:]
    /// The guest does not see that KVM runs it.
    package var hidesKVM = false
    /// Hyper-V's interfaces by libvirt's names.
    package var enlightenments: [String] = []
    /// What Nova asks libvirt for where a guest is a Windows.
    package static let windowsEnlightenments = [
        "relaxed", "vapic", "spinlocks", "vpindex", "runtime", "time", "synic", "stimer", "reset", "frequencies", "tlbflush", "ipi",
    ]

    /// One socket for each vCPU.
    package init(count: Int) { self.init(count: count, sockets: count, cores: 1, threads: 1) }

    package init(count: Int, sockets: Int, cores: Int, threads: Int) {
        self.count = count
        self.sockets = sockets
        self.cores = cores
        self.threads = threads
    }
}

/// SMBIOS type 1, what the guest sees as its maker. An absent UUID is the machine's, an absent serial number too.
package struct SystemConfiguration: Sendable, Equatable {
    package var manufacturer: String
    package var product: String
    package var version: String
    package var serial: String?
    package var uuid: MachineUUID?
    package var family: String

    package init(
        manufacturer: String = "OpenStack Foundation", product: String = "OpenStack Nova", version: String = "",
        serial: String? = nil,
        uuid: MachineUUID? = nil, family: String = "Virtual Machine"
    ) {
        self.manufacturer = manufacturer
        self.product = product
        self.version = version
        self.serial = serial
        self.uuid = uuid
        self.family = family
    }
}

/// What a disk is attached to.
package enum DiskBus: String, Sendable, CaseIterable {
    case virtio
    /// AHCI.
    case sata
    /// PIIX, two disks a channel; a machine of type pc only.
    case ide
    case nvme
    /// virtio-scsi.
    case scsi
    /// The floppy controller, two drives; its disks have 720 KiB, 1200 KiB, 1440 KiB or 2880 KiB. Not on direct machines.
    case fdc
}

/// A disk or, on sata, ide and scsi, a CD drive.
package struct DiskConfiguration: Sendable, Equatable {
    package var id: String
    package var fd: Int
    package var readOnly: Bool
    /// What the guest reads as the disk's serial number; the device keeps 20 bytes of it. Absent: the id.
    package var serial: String?
    package var bus: DiskBus
    package var isOptical: Bool
    /// Firmware tries the least first; absent: after those that have one.
    package var bootIndex: Int?
    /// The image's format, by Nova's name for it; never guessed.
    package var format: String
    /// The images below, the next first.
    package var backing: [BackingConfiguration]
    package var limits = DiskLimits()
    /// The root port that a virtio or NVMe disk is behind; nil: none.
    package var port: Int?

    package init(
        id: String, fd: Int, readOnly: Bool = false, serial: String? = nil, bus: DiskBus = .virtio, isOptical: Bool = false,
        bootIndex: Int? = nil, format: String = "raw", backing: [BackingConfiguration] = [], port: Int? = nil
    ) {
        self.port = port
        self.format = format
        self.backing = backing
        self.bus = bus
        self.isOptical = isOptical
        self.bootIndex = bootIndex
        self.id = id
        self.fd = fd
        self.readOnly = readOnly
        self.serial = serial
    }
}

/// An image that another one stands on: only read.
package struct BackingConfiguration: Sendable, Equatable {
    package var fd: Int
    package var format: String

    package init(fd: Int, format: String) {
        self.fd = fd
        self.format = format
    }
}

/// A virtio-net on a tap.
package struct NetworkConfiguration: Sendable, Equatable {
    package var id: String
    /// One queue of the tap (IFF_VNET_HDR; IFF_MULTI_QUEUE where there are several) for each pair of virtio queues.
    package var fds: [Int]
    package var mac: MACAddress
    package var mtu: Int
    /// An open /dev/vhost-net for a tap with one queue; nil: the monitor moves the frames.
    package var vhostFd: Int?
    /// As a disk's.
    package var bootIndex: Int?
    /// An option ROM's file, by which a BIOS boots from this network: iPXE for virtio-net. OVMF needs none. Nil: it has none.
    package var rom: Int?
    /// As a disk's.
    package var port: Int?

    package init(
        id: String, fds: [Int], mac: MACAddress, mtu: Int = 1500, vhostFd: Int? = nil, bootIndex: Int? = nil, rom: Int? = nil,
        port: Int? = nil
    ) {
        self.port = port
        self.bootIndex = bootIndex
        self.rom = rom
        self.id = id
        self.fds = fds
        self.mac = mac
        self.mtu = mtu
        self.vhostFd = vhostFd
    }
}

/// Where the serial console goes.
package struct ConsoleConfiguration: Sendable, Equatable {
    /// A file for all that the guest writes, kept below `logLimitBytes`.
    package var log: Int?
    package var logLimitBytes: Int
    /// A listening stream socket for one client at a time.
    package var listen: Int?

    package init(log: Int? = nil, logLimitBytes: Int = 1 << 20, listen: Int? = nil) {
        self.log = log
        self.logLimitBytes = logLimitBytes
        self.listen = listen
    }
}

/// What a reset that the guest asks for does.
package enum GuestResetPolicy: String, Sendable, CaseIterable {
    case reset
    /// The machine goes to shutdown and stays there.
    case shutdown
}
