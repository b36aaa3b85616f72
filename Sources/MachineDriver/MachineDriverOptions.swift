// What of nova.conf and of the command line this driver obeys, as plain values.

/// How this host runs machines. `nova-compute` fills it from nova.conf.
package struct MachineDriverOptions: Sendable, Equatable {
    /// [DEFAULT] instances_path: one directory per instance.
    package var instancesPath: String
    /// [image_cache] subdirectory_name, below `instancesPath`.
    package var cacheSubdirectory: String
    /// The monitor's program.
    package var monitorPath: String
    package var kvmPath: String
    /// Firmware of the distribution's packages seabios and ovmf.
    package var biosPath = "/usr/share/seabios/bios-256k.bin"
    package var firmwareCodePath = "/usr/share/OVMF/OVMF_CODE_4M.fd"
    package var firmwareVariablesPath = "/usr/share/OVMF/OVMF_VARS_4M.fd"
    /// [DEFAULT] config_drive_format is vfat, and not iso9660.
    package var isConfigDriveFAT = false
    package var processor = ProcessorOptions()
    var formatting = DiskFormatting()
    /// [DEFAULT] default_ephemeral_format; nil: Nova's choice.
    package var ephemeralFormat: String? {
        get { formatting.defaultFileSystem }
        set { formatting.defaultFileSystem = newValue }
    }
    /// How long writing a guest's memory to disk may take.
    package var saveTimeout: Duration = .seconds(1800)
    /// [apus] run_directory: the monitors' sockets. Short: a socket's path has at most 107 bytes.
    package var runDirectory: String
    /// [DEFAULT] instance_name_template, "instance-%08x".
    package var instanceNameTemplate: String
    /// hypervisor_hostname; nil: this host's name.
    package var hostname: String?
    /// ovs-vsctl, for ports on an Open vSwitch.
    package var ovsPath: String
    /// What a guest reads in SMBIOS as product version: the release of Nova this service stands for.
    package var productVersion: String
    /// hypervisor_version: major · 10⁶ + minor · 10³ + micro.
    package var hypervisorVersion: Int
    /// How much of a console is kept.
    package var consoleLimitBytes: Int
    /// How long a monitor may take until it answers, and until it is gone after `quit`.
    package var startTimeout: Duration
    package var commandTimeout: Duration
    package var quitTimeout: Duration

    package init(
        instancesPath: String, cacheSubdirectory: String = "_base", monitorPath: String, kvmPath: String = "/dev/kvm",
        runDirectory: String, instanceNameTemplate: String = "instance-%08x", hostname: String? = nil,
        ovsPath: String = "/usr/bin/ovs-vsctl", productVersion: String = "26.2.2", hypervisorVersion: Int = 1_000_000,
        consoleLimitBytes: Int = 1 << 20, startTimeout: Duration = .seconds(60),
        commandTimeout: Duration = .seconds(10),
        quitTimeout: Duration = .seconds(10)
    ) {
        self.instancesPath = instancesPath
        self.cacheSubdirectory = cacheSubdirectory
        self.monitorPath = monitorPath
        self.kvmPath = kvmPath
        self.runDirectory = runDirectory
        self.instanceNameTemplate = instanceNameTemplate
        self.hostname = hostname
        self.ovsPath = ovsPath
        self.productVersion = productVersion
        self.hypervisorVersion = hypervisorVersion
        self.consoleLimitBytes = consoleLimitBytes
        self.startTimeout = startTimeout
        self.commandTimeout = commandTimeout
        self.quitTimeout = quitTimeout
    }

    /// [DEFAULT] instance_name_template with an instance's database id: "%d", "%x" and a zero-padded width ("%08x").
    package func instanceName(id: Int) -> String {
        guard let percent = instanceNameTemplate.firstIndex(of: "%") else { return "\(instanceNameTemplate)\(id)" }
        let rest = instanceNameTemplate[instanceNameTemplate.index(after: percent)...]
        let width = rest.prefix { $0.isASCII && $0.isNumber }
        guard let kind = rest.dropFirst(width.count).first, kind == "x" || kind == "d" else {
            return "\(instanceNameTemplate)\(id)"
        }
        let digits = String(id, radix: kind == "x" ? 16 : 10)
        let padding = max(0, min(Int(width) ?? 0, 64) - digits.count)
        return instanceNameTemplate[..<percent] + String(repeating: width.hasPrefix("0") ? "0" : " ", count: padding)
            + digits
            + rest.dropFirst(width.count + 1)
    }
}
