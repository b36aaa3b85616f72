// What a spawn request asks for, decided before anything is made: pure. Refusals are in words a tenant can act on.
import ComputeDriver
import JSON
import MachineConfiguration
import NovaObjects

/// The machine to make, the images it comes from, the disks it gets.
struct MachinePlan: Sendable {
    var machine: SavedMachine
    var imageID: String
    /// Glance's disk_format where the image is to be converted; nil: it is a raw disk.
    var imageFormat: String?
    /// Nil: the disk boots through firmware.
    var kernelID: String?
    var ramdiskID: String?
    var emptyDisks: [EmptyDisk] = []
    /// 0: the image's size.
    var rootByteCount: Int64
    var configDrive: [String: [UInt8]]?

    static let vcpuLimit = 64, memoryLimitMiB = 1_048_576, minimumMemoryMiB = 16, interfaceLimit = 16

    init(_ request: SpawnRequest, options: MachineDriverOptions) throws(DriverError) {
        let instance = request.instance, uuid = instance.uuid
        func refusal(_ novaClass: String, _ reason: String) -> DriverError {
            DriverError(novaClass: novaClass, tenantMessage: reason, fault: .caller)
        }
        guard MachineUUID(uuid)?.description == uuid else {
            throw refusal("InvalidID", "Invalid ID received \(uuid.prefix(64)).")
        }
        guard let imageID = request.image["id"]?.stringValue ?? instance.imageRef, !imageID.isEmpty else {
            throw refusal(
                "InvalidDiskInfo", "This compute host cannot boot from a volume yet: give the server an image.")
        }
        let properties = ImageFields(request.image)
        var imageFormat: String?
        if let format = request.image["disk_format"]?.stringValue, format != "raw", format != "ami" {
            guard ImageConversion.formats.contains(format) else {
                throw refusal(
                    "InvalidDiskFormat",
                    "Disk format \(format) is not acceptable: this compute host takes raw, ami, \(ImageConversion.formats.joined(separator: ", "))."
                )
            }
            imageFormat = format
        }
        let kernelID = properties.text("kernel_id") ?? instance.kernelID.flatMap { $0.isEmpty ? nil : $0 }
        let specs = instance.flavor?.extraSpecs ?? [:]
        try PropertyRule.check(properties, specs)
        let board = try BoardChoice(properties, hasKernel: kernelID != nil)
        let devices = try BoardDevices(properties, specs)
        let memoryMiB = instance.memoryMiB, vcpus = instance.vcpus
        guard (1...Self.vcpuLimit).contains(vcpus), (Self.minimumMemoryMiB...Self.memoryLimitMiB).contains(memoryMiB)
        else {
            throw refusal(
                "ComputeResourcesUnavailable",
                "Insufficient compute resources: this compute host runs servers of 1 to \(Self.vcpuLimit) VCPUs and \(Self.minimumMemoryMiB) to \(Self.memoryLimitMiB) MiB."
            )
        }
        guard request.interfaces.count <= Self.interfaceLimit else {
            throw refusal(
                "ComputeResourcesUnavailable", "This compute host gives a server at most \(Self.interfaceLimit) ports.")
        }
        func count(_ name: String) -> Int? {
            (specs["hw:cpu_" + name] ?? properties.text("hw_cpu_" + name)).flatMap { Int($0) }.flatMap {
                $0 > 0 ? $0 : nil
            }
        }
        var cores = count("cores") ?? 1, threads = count("threads") ?? 1
        if cores > vcpus || threads > vcpus || vcpus % (cores * threads) != 0 { (cores, threads) = (1, 1) }
        self.imageID = imageID
        self.imageFormat = imageFormat
        self.kernelID = kernelID
        ramdiskID = properties.text("ramdisk_id") ?? instance.ramdiskID.flatMap { $0.isEmpty ? nil : $0 }
        rootByteCount = Int64(max(0, instance.rootGiB)) << 30
        configDrive = request.configDrive
        var disks = [SavedMachine.Disk(id: "", file: "disk", isReadOnly: false, bus: board.diskBus)]
        emptyDisks = [
            EmptyDisk(
                file: "disk.eph0", byteCount: Int64(max(0, instance.ephemeralGiB)) << 30,
                purpose: .ephemeral(label: "ephemeral0", osType: properties.text("os_type"))),
            EmptyDisk(file: "disk.swap", byteCount: Int64(max(0, instance.flavor?.swapMiB ?? 0)) << 20, purpose: .swap),
        ].filter { $0.byteCount > 0 }
        disks += emptyDisks.map { SavedMachine.Disk(id: "", file: $0.file, isReadOnly: false) }
        if configDrive != nil {
            disks.append(SavedMachine.Disk(id: "", file: "disk.config", isReadOnly: true))
        }
        let root = instance.rootDeviceName.flatMap { $0.hasPrefix("/dev/") ? $0 : nil } ?? "/dev/vda"
        let isMultiQueue =
            properties.flag("hw_vif_multiqueue_enabled") || specs["hw:vif_multiqueue_enabled"]?.lowercased() == "true"
        machine = SavedMachine(
            uuid: uuid, name: options.instanceName(id: instance.id ?? 0), memoryMiB: memoryMiB, vcpus: vcpus,
            sockets: vcpus / (cores * threads), cores: cores, threads: threads,
            commandLine: properties.text("os_command_line") ?? "root=\(root) console=tty0 console=ttyS0",
            hasRAMDisk: ramdiskID != nil, hasEntropy: specs["hw_rng:allowed"]?.lowercased() != "false",
            disks: SavedMachine.Disk.numbered(disks),
            queueCount: isMultiQueue ? min(vcpus, 8) : 1, interfaces: request.interfaces)
        machine.processor = ProcessorChoice(options.processor, image: properties, specs: specs)
        let choice = try NodeChoice(instance.numaTopology, vcpus: vcpus, memoryMiB: memoryMiB)
        (machine.nodes, machine.hugePageKiB) = (choice.nodes, choice.hugePageKiB)
        machine.diskLimits = try DiskQuota.read(specs)
        machine.imageIDs = [imageID, kernelID, ramdiskID].compactMap { $0 }
        machine.firmware = board.firmware
        machine.machineType = board.machineType.rawValue
        machine.devices = devices
        guard machine.commandLine.utf8.count <= 2047, !machine.commandLine.utf8.contains(0) else {
            throw refusal(
                "ImageUnacceptable", "Image \(imageID) is unacceptable: os_command_line is longer than 2047 bytes.")
        }
    }

    /// What the new root disk's size is, or why the flavor is too small for the image.
    static func rootByteCount(image: Int64, flavor: Int64) throws(DriverError) -> Int64 {
        guard flavor == 0 || image <= flavor else {
            throw DriverError(
                novaClass: "FlavorDiskTooSmall",
                tenantMessage:
                    "Flavor's disk is too small for requested image. Flavor disk is \(flavor) bytes, image is \(image) bytes.",
                fault: .caller)
        }
        return max(flavor, (image + 511) / 512 * 512)
    }
}

/// An image's properties in Nova's form: below "properties", some releases at the top level; values may be text.
struct ImageFields {
    private let image: JSONValue

    init(_ image: JSONValue) { self.image = image }

    /// Nil where it is missing or empty.
    func text(_ name: String) -> String? {
        guard let value = image["properties"]?[name] ?? image[name] else { return nil }
        let text = value.stringValue ?? value.boolValue.map { "\($0)" } ?? value.intValue.map { "\($0)" }
        return text.flatMap { $0.isEmpty ? nil : $0 }
    }

    func flag(_ name: String) -> Bool { text(name).map(ImageProperties.isTrue) ?? false }
}
