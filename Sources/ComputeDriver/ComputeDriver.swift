// What Compute asks of the thing that runs machines (nova.virt.driver.ComputeDriver, cut to what this service uses).
// Compute decides, records and reports; the driver makes, finds and ends machines. It never talks to the cloud's services,
// with the one exception of image data, which it is handed as a closure.
package import JSON
package import NovaObjects

/// Nova's power states (nova.compute.power_state).
package enum PowerState: Int, Sendable {
    case noState = 0
    case running = 1
    case paused = 3
    case shutdown = 4
    case crashed = 6
    case suspended = 7
}

/// A driver's refusal or failure, with the Nova exception it becomes.
package struct DriverError: Error, Sendable, CustomStringConvertible {
    package enum Fault: String, Sendable { case guest, host, peer, caller }
    /// Class of nova.exception that callers expect, for example "InstanceNotFound", "FlavorDiskTooSmall".
    package let novaClass: String
    /// What a tenant may read: what was being done, why it failed, what to do. No host paths.
    package let tenantMessage: String
    /// What the operator reads: with paths, commands, errno.
    package let operatorMessage: String
    package let fault: Fault

    package init(novaClass: String = "NovaException", tenantMessage: String, operatorMessage: String? = nil, fault: Fault) {
        self.novaClass = novaClass
        self.tenantMessage = tenantMessage
        self.operatorMessage = operatorMessage ?? tenantMessage
        self.fault = fault
    }

    package var description: String { "\(operatorMessage) (\(fault.rawValue))" }

    /// There is no machine of this instance on this host.
    package static func instanceNotFound(_ instanceUUID: String) -> DriverError {
        DriverError(
            novaClass: "InstanceNotFound", tenantMessage: "Instance \(instanceUUID) could not be found.", fault: .caller)
    }
}

/// One network interface to plug: the VIF as the network info cache holds it (contract §7.6).
package struct InterfaceRequest: Sendable, Equatable {
    package var portID: String
    package var macAddress: String
    /// binding:vif_type: "bridge", "ovs", "tap".
    package var type: String
    /// Linux bridge or OVS bridge name.
    package var bridge: String?
    /// "tap" and the first 11 characters of the port id.
    package var deviceName: String
    package var mtu: Int?
    /// vif_details as Neutron gave them.
    package var details: [String: JSONValue]

    package init(portID: String, macAddress: String, type: String, bridge: String?, deviceName: String, mtu: Int?, details: [String: JSONValue]) {
        self.portID = portID
        self.macAddress = macAddress
        self.type = type
        self.bridge = bridge
        self.deviceName = deviceName
        self.mtu = mtu
        self.details = details
    }
}

/// Everything a driver needs to make a machine.
package struct SpawnRequest: Sendable {
    package var instance: Instance
    /// The image dict of the request, in Nova's form (contract §8.1); empty for boot from volume.
    package var image: JSONValue
    package var interfaces: [InterfaceRequest]
    /// Content of the config drive: path → bytes ("openstack/latest/meta_data.json", …); nil: none wanted.
    package var configDrive: [String: [UInt8]]?
    /// Writes the data of the image of this id to a descriptor, verified; returns the byte count. The driver asks for the root
    /// image and for the kernel and RAM disk that it names (`kernel_id`, `ramdisk_id`). What it throws, `spawn` throws.
    package var fetchImage: @Sendable (String, CInt) async throws -> Int64
    /// True: make it paused, so that Compute can wait for its ports before `resume`.
    package var startsPaused: Bool

    package init(
        instance: Instance, image: JSONValue, interfaces: [InterfaceRequest], configDrive: [String: [UInt8]]?,
        fetchImage: @escaping @Sendable (String, CInt) async throws -> Int64, startsPaused: Bool
    ) {
        self.instance = instance
        self.image = image
        self.interfaces = interfaces
        self.configDrive = configDrive
        self.fetchImage = fetchImage
        self.startsPaused = startsPaused
    }
}

/// A copy of a root disk at one moment, for as long as `withSnapshot`'s body runs.
package struct DiskSnapshot: Sendable {
    /// Glance's disk_format.
    package enum Format: String, Sendable { case raw, qcow2 }
    /// Open for reading; the driver closes it.
    package let descriptor: CInt
    package let byteCount: Int64
    package let format: Format

    package init(descriptor: CInt, byteCount: Int64, format: Format) {
        self.descriptor = descriptor
        self.byteCount = byteCount
        self.format = format
    }
}

/// What the host has, for the ComputeNode record and Placement.
package struct HostResources: Sendable {
    package var vcpus: Int
    package var memoryMiB: Int
    package var diskGiB: Int
    package var diskFreeGiB: Int
    /// hypervisor_type, hypervisor_version, cpu_info (JSON text), supported_hv_specs.
    package var hypervisorType: String
    package var hypervisorVersion: Int
    package var cpuInfo: JSONValue
    package var supportedInstances: [[String]]
    package var hypervisorHostname: String

    package init(
        vcpus: Int, memoryMiB: Int, diskGiB: Int, diskFreeGiB: Int, hypervisorType: String, hypervisorVersion: Int,
        cpuInfo: JSONValue, supportedInstances: [[String]], hypervisorHostname: String
    ) {
        self.vcpus = vcpus
        self.memoryMiB = memoryMiB
        self.diskGiB = diskGiB
        self.diskFreeGiB = diskFreeGiB
        self.hypervisorType = hypervisorType
        self.hypervisorVersion = hypervisorVersion
        self.cpuInfo = cpuInfo
        self.supportedInstances = supportedInstances
        self.hypervisorHostname = hypervisorHostname
    }
}

/// A machine found on this host.
package struct MachineSummary: Sendable {
    package var instanceUUID: String
    package var powerState: PowerState

    package init(instanceUUID: String, powerState: PowerState) {
        self.instanceUUID = instanceUUID
        self.powerState = powerState
    }
}

/// Counters of one machine since it started. Times in nanoseconds, sizes in bytes.
package struct MachineStatistics: Sendable {
    package struct Disk: Sendable {
        package var name = ""
        package var readRequests: Int64 = 0, readBytes: Int64 = 0
        package var writeRequests: Int64 = 0, writeBytes: Int64 = 0
        package var errors: Int64 = 0
        package init() {}
    }
    package struct Interface: Sendable {
        package var name = "", macAddress = ""
        package var receivedBytes: Int64 = 0, receivedPackets: Int64 = 0, receiveDrops: Int64 = 0, receiveErrors: Int64 = 0
        package var sentBytes: Int64 = 0, sentPackets: Int64 = 0, sendDrops: Int64 = 0, sendErrors: Int64 = 0
        package init() {}
    }
    package var vcpuTimes: [UInt64] = []
    package var disks: [Disk] = []
    package var interfaces: [Interface] = []
    package var memoryMiB: Int = 0
    /// Resident memory of the monitor in KiB.
    package var residentKiB: Int = 0
    package var uptimeSeconds: Int = 0
    /// Statistics the guest's balloon driver reports, by their virtio names; empty where there is no driver.
    package var balloon: [String: UInt64] = [:]
    package init() {}
}

/// Something a machine did by itself.
package enum LifecycleEvent: Sendable, Equatable {
    case started(String), stopped(String), paused(String), resumed(String), crashed(String)
}

/// Makes, finds and ends machines. Every method may throw `DriverError`; each obeys cancellation and has a deadline of its own.
package protocol ComputeDriver: Sendable {
    /// Prepares the host (directories, finds running machines). Once, before anything else.
    func initialize() async throws
    func hostResources() async throws -> HostResources
    /// Traits this driver can vouch for (COMPUTE_NET_VIF_MODEL_VIRTIO, COMPUTE_IMAGE_TYPE_RAW, …).
    var traits: Set<String> { get }
    func machines() async throws -> [MachineSummary]
    /// `.noState` plus InstanceNotFound when there is no such machine.
    func powerState(of instanceUUID: String) async throws -> PowerState
    func spawn(_ request: SpawnRequest) async throws
    /// Ends the machine, removes its interfaces and, with `destroysDisks`, its directory. None is no error.
    func destroy(instance: Instance, interfaces: [InterfaceRequest], destroysDisks: Bool) async throws
    /// Graceful first when `timeout` > 0: power button, then after `timeout` (retried every `retryInterval`) the plug.
    func powerOff(instance: Instance, timeout: Duration, retryInterval: Duration) async throws
    func powerOn(instance: Instance, interfaces: [InterfaceRequest]) async throws
    /// Soft: ACPI, true when the guest came back within `timeout`. Hard is `powerOff` and `powerOn` by Compute.
    func softReboot(instance: Instance, timeout: Duration) async throws -> Bool
    /// Copies the root disk and hands the copy over. The machine goes on running, or stands still while it is copied; the copy is
    /// gone afterwards.
    func withSnapshot(of instance: Instance, format: DiskSnapshot.Format, _ body: (DiskSnapshot) async throws -> Void) async throws
    /// Starts the machine, which is off, from the request's image, with its own root disk as a further one.
    func rescue(_ request: SpawnRequest) async throws
    /// Ends a rescued machine and starts it again as it was.
    func unrescue(instance: Instance, interfaces: [InterfaceRequest]) async throws
    /// Writes the whole machine to disk and ends it: it uses no memory and no CPU until `resume`.
    func suspend(instance: Instance) async throws
    /// Goes on where `suspend` stopped. A failure leaves it suspended.
    func resume(instance: Instance, interfaces: [InterfaceRequest]) async throws
    /// A non-maskable interrupt on every vCPU: a guest that is set up for it writes a crash dump.
    func injectNMI(instanceUUID: String) async throws
    /// Refuses, in words and with nothing changed, a size that cannot be given: ResizeError where a disk would become smaller.
    func checkResize(_ request: ResizeRequest) async throws
    /// Keeps the machine, which is off, as it is for `revertResize`. Failed or cancelled, it has kept nothing.
    func beginResize(_ request: ResizeRequest) async throws
    /// Gives the machine, which is off, its new size; a second time does no harm.
    func finishResize(_ request: ResizeRequest) async throws
    /// Drops what `beginResize` kept. None is no error.
    func confirmResize(instanceUUID: String) async throws
    /// Ends the machine and puts back what `beginResize` kept; where nothing is kept, the machine stays as it is.
    func revertResize(instanceUUID: String) async throws
    func pause(instanceUUID: String) async throws
    func unpause(instanceUUID: String) async throws
    /// The last `byteCount` bytes of the serial console.
    func consoleOutput(instanceUUID: String, byteCount: Int) async throws -> [UInt8]
    func statistics(of instanceUUID: String) async throws -> MachineStatistics
    /// What machines did by themselves, until the driver ends.
    var events: AsyncStream<LifecycleEvent> { get }
    /// `uptime`'s line.
    func hostUptime() async throws -> String
    /// Removes cached images that no machine was made from and that nobody has used for `minimumAge`. - Returns: how many.
    func cleanImageCache(minimumAge: Duration) async throws -> Int
}

extension ComputeDriver {
    /// For drivers that keep no images.
    package func cleanImageCache(minimumAge: Duration) async throws -> Int { 0 }
}
