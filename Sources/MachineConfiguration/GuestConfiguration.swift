// The description of one machine that the service hands to the monitor: values only. GuestConfiguration+JSON.swift is its text.

/// One virtual machine. Every descriptor is a number that is open in the monitor when it starts.
package struct GuestConfiguration: Sendable, Equatable {
    /// The version of the text this program writes and reads.
    package static let version = 1

    package var name: String
    package var uuid: MachineUUID
    package var memoryMiB: Int
    package var cpu: CPUConfiguration
    package var kernel: Int
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
    package var onGuestReset: GuestResetPolicy

    package init(
        name: String, uuid: MachineUUID, memoryMiB: Int, cpu: CPUConfiguration, kernel: Int, initrd: Int? = nil,
        commandLine: String = "console=ttyS0", system: SystemConfiguration = SystemConfiguration(),
        disks: [DiskConfiguration] = [],
        networks: [NetworkConfiguration] = [], rng: Bool = false, balloon: Bool = false,
        console: ConsoleConfiguration = ConsoleConfiguration(), control: Int? = nil, kvm: Int? = nil,
        startPaused: Bool = false,
        onGuestReset: GuestResetPolicy = .reset
    ) {
        self.name = name
        self.uuid = uuid
        self.memoryMiB = memoryMiB
        self.cpu = cpu
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
        self.onGuestReset = onGuestReset
    }
}

/// How many vCPUs, and how they lie in packages, cores and threads: the product is the count.
package struct CPUConfiguration: Sendable, Equatable {
    package var count: Int
    package var sockets: Int
    package var cores: Int
    package var threads: Int

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

/// A raw disk on virtio-blk.
package struct DiskConfiguration: Sendable, Equatable {
    package var id: String
    package var fd: Int
    package var readOnly: Bool
    /// What the guest reads as the disk's serial number; the device keeps 20 bytes of it. Absent: the id.
    package var serial: String?

    package init(id: String, fd: Int, readOnly: Bool = false, serial: String? = nil) {
        self.id = id
        self.fd = fd
        self.readOnly = readOnly
        self.serial = serial
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

    package init(id: String, fds: [Int], mac: MACAddress, mtu: Int = 1500, vhostFd: Int? = nil) {
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
