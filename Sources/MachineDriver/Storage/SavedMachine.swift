// machine.json: everything needed to start a machine again, without its descriptors.
import ComputeDriver
import JSON

/// What a machine is made of, as its directory keeps it.
struct SavedMachine: Sendable, Equatable {
    static let version = 1
    static let rescueSuffix = ".rescue"

    struct Disk: Sendable, Equatable {
        var id: String
        /// Name in the instance's directory.
        var file: String
        var isReadOnly: Bool
        /// What it is attached to, by Nova's name; absent in files of the first version of this program.
        var bus = "virtio"
        /// A CD drive.
        var isOptical = false
        /// Firmware tries it before all others, wherever it stands in the list.
        var isBootedFirst = false

        /// Each with the id of its place.
        static func numbered(_ disks: [Disk]) -> [Disk] {
            disks.enumerated().map { index, disk in
                var disk = disk
                disk.id = "virtio-disk\(index)"
                return disk
            }
        }
    }
    /// One of the guest's nodes.
    struct Node: Sendable, Equatable {
        var cpus: [Int]
        var memoryMiB: Int
        /// The host's, where the claim gave it one.
        var hostNode: Int?
    }
    /// Nova's hw_firmware_type.
    enum Firmware: String, Sendable { case bios, uefi }
    var uuid: String
    var name: String
    var memoryMiB: Int
    var vcpus: Int
    var sockets: Int
    var cores: Int
    var threads: Int
    var commandLine: String
    var hasRAMDisk: Bool
    var hasEntropy: Bool
    var disks: [Disk]
    /// Queue pairs of each interface.
    var queueCount: Int
    var interfaces: [InterfaceRequest]
    /// Nil: the monitor starts the kernel itself.
    var firmware: Firmware?
    /// The monitor's name for the board.
    var machineType = "direct-1.0"
    /// After the names of the files a rescued machine boots from: ".rescue"; else empty.
    var bootSuffix = ""
    var processor = ProcessorChoice()
    var devices = BoardDevices()
    /// Empty: the guest is told of no nodes.
    var nodes: [Node] = []
    /// The size of RAM's pages, 2048 or 1048576; nil: small ones.
    var hugePageKiB: Int?
    /// Of each disk, by the names of quota:disk_*: "read_bytes_sec".
    var diskLimits: [String: Int] = [:]
    /// Images it was made from: root, kernel, RAM disk.
    var imageIDs: [String] = []

    /// What the instance's image became.
    var rootDisk: Disk? { disks.first { $0.file == "disk" } }

    var json: JSONValue {
        [
            "version": .integer(Int64(Self.version)), "uuid": .string(uuid), "name": .string(name),
            "memoryMiB": .integer(Int64(memoryMiB)), "vcpus": .integer(Int64(vcpus)),
            "sockets": .integer(Int64(sockets)),
            "cores": .integer(Int64(cores)), "threads": .integer(Int64(threads)), "commandLine": .string(commandLine),
            "hasRAMDisk": .bool(hasRAMDisk), "hasEntropy": .bool(hasEntropy), "queueCount": .integer(Int64(queueCount)),
            "disks": .array(
                disks.map {
                    [
                        "id": .string($0.id), "file": .string($0.file), "readOnly": .bool($0.isReadOnly), "bus": .string($0.bus),
                        "optical": .bool($0.isOptical), "bootedFirst": .bool($0.isBootedFirst),
                    ]
                }),
            "interfaces": .array(interfaces.map(Self.json)), "machineType": .string(machineType),
            "firmware": firmware.map { .string($0.rawValue) } ?? .null, "bootSuffix": .string(bootSuffix),
            "processor": processor.json, "devices": devices.json,
            "nodes": .array(
                nodes.map {
                    [
                        "cpus": .array($0.cpus.map { .integer(Int64($0)) }), "memoryMiB": .integer(Int64($0.memoryMiB)),
                        "hostNode": $0.hostNode.map { .integer(Int64($0)) } ?? .null,
                    ]
                }),
            "hugePageKiB": hugePageKiB.map { .integer(Int64($0)) } ?? .null,
            "diskLimits": .object(diskLimits.mapValues { .integer(Int64($0)) }),
            "imageIDs": .array(imageIDs.map { .string($0) }),
        ]
    }

    private static func json(_ interface: InterfaceRequest) -> JSONValue {
        [
            "portID": .string(interface.portID), "macAddress": .string(interface.macAddress),
            "type": .string(interface.type),
            "bridge": interface.bridge.map { .string($0) } ?? .null, "deviceName": .string(interface.deviceName),
            "mtu": interface.mtu.map { .integer(Int64($0)) } ?? .null, "details": .object(interface.details),
        ]
    }

    /// Nil where the text is none of this version.
    init?(json: JSONValue) {
        guard json["version"]?.intValue == Self.version, let uuid = json["uuid"]?.stringValue,
            let name = json["name"]?.stringValue, let memoryMiB = json["memoryMiB"]?.intValue,
            let vcpus = json["vcpus"]?.intValue, let sockets = json["sockets"]?.intValue,
            let cores = json["cores"]?.intValue,
            let threads = json["threads"]?.intValue, let commandLine = json["commandLine"]?.stringValue,
            let hasRAMDisk = json["hasRAMDisk"]?.boolValue, let hasEntropy = json["hasEntropy"]?.boolValue,
            let queueCount = json["queueCount"]?.intValue, let disks = json["disks"]?.arrayValue,
            let interfaces = json["interfaces"]?.arrayValue
        else { return nil }
        self.uuid = uuid
        self.name = name
        self.memoryMiB = memoryMiB
        self.vcpus = vcpus
        self.sockets = sockets
        self.cores = cores
        self.threads = threads
        self.commandLine = commandLine
        self.hasRAMDisk = hasRAMDisk
        self.hasEntropy = hasEntropy
        self.queueCount = queueCount
        firmware = json["firmware"]?.stringValue.flatMap { Firmware(rawValue: $0) }
        machineType = json["machineType"]?.stringValue ?? "direct-1.0"
        bootSuffix = json["bootSuffix"]?.stringValue == Self.rescueSuffix ? Self.rescueSuffix : ""
        processor = ProcessorChoice(json: json["processor"])
        devices = BoardDevices(json: json["devices"])
        nodes = (json["nodes"]?.arrayValue ?? []).map { node in
            Node(cpus: node["cpus"]?.arrayValue?.compactMap(\.intValue) ?? [], memoryMiB: node["memoryMiB"]?.intValue ?? 0, hostNode: node["hostNode"]?.intValue)
        }
        hugePageKiB = json["hugePageKiB"]?.intValue
        diskLimits = (json["diskLimits"]?.objectValue ?? [:]).compactMapValues(\.intValue)
        imageIDs = json["imageIDs"]?.arrayValue?.compactMap(\.stringValue) ?? []
        self.disks = []
        for disk in disks {
            guard let id = disk["id"]?.stringValue, let file = disk["file"]?.stringValue, !file.contains("/"),
                let isReadOnly = disk["readOnly"]?.boolValue
            else { return nil }
            self.disks.append(
                Disk(
                    id: id, file: file, isReadOnly: isReadOnly, bus: disk["bus"]?.stringValue ?? "virtio",
                    isOptical: disk["optical"]?.boolValue ?? false, isBootedFirst: disk["bootedFirst"]?.boolValue ?? false))
        }
        self.interfaces = []
        for interface in interfaces {
            guard let portID = interface["portID"]?.stringValue, let macAddress = interface["macAddress"]?.stringValue,
                let type = interface["type"]?.stringValue, let deviceName = interface["deviceName"]?.stringValue
            else { return nil }
            self.interfaces.append(
                InterfaceRequest(
                    portID: portID, macAddress: macAddress, type: type, bridge: interface["bridge"]?.stringValue,
                    deviceName: deviceName, mtu: interface["mtu"]?.intValue,
                    details: interface["details"]?.objectValue ?? [:]))
        }
    }

    init(
        uuid: String, name: String, memoryMiB: Int, vcpus: Int, sockets: Int, cores: Int, threads: Int,
        commandLine: String,
        hasRAMDisk: Bool, hasEntropy: Bool, disks: [Disk], queueCount: Int, interfaces: [InterfaceRequest]
    ) {
        self.uuid = uuid
        self.name = name
        self.memoryMiB = memoryMiB
        self.vcpus = vcpus
        self.sockets = sockets
        self.cores = cores
        self.threads = threads
        self.commandLine = commandLine
        self.hasRAMDisk = hasRAMDisk
        self.hasEntropy = hasEntropy
        self.disks = disks
        self.queueCount = queueCount
        self.interfaces = interfaces
    }
}
