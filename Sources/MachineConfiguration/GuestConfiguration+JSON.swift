// The configuration as JSON, both ways. Reading checks each value and then what only the whole can say: the topology's product,
// ids and descriptors that occur once.
package import JSON

/// A description that is no machine.
package struct ConfigurationError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The place, for example `disks[1].fd`; empty for the text as a whole.
    package let path: String
    package let reason: String

    package init(path: String, reason: String) {
        self.path = path
        self.reason = reason
    }

    package var description: String {
        "read the machine's configuration: \(path.isEmpty ? "" : path + ": ")\(reason) (caller)"
    }
}

/// Slots of the PCI bus: 32 without the host bridge, rng and balloon, and one to spare.
private let deviceLimit = 28

extension GuestConfiguration {
    /// 0 to 2 are the process's own; the bound is far above any limit of open files.
    static let descriptors = 3...1_048_576

    /// Reads the text that `json` writes.
    package init(parsing text: [UInt8]) throws(ConfigurationError) {
        let value: JSONValue
        do throws(JSONError) {
            value = try JSONValue.parse(text, limits: JSONLimits(depth: 8, byteCount: 1 << 20))
        } catch {
            throw ConfigurationError(path: "", reason: "\(error.reason) at byte \(error.offset)")
        }
        try self.init(json: value)
    }

    package init(json value: JSONValue) throws(ConfigurationError) {
        do throws(JSONMemberError) {
            self = try Self.read(value)
        } catch {
            throw ConfigurationError(path: error.path, reason: error.reason)
        }
        try checkWhole()
    }

    private static func read(_ value: JSONValue) throws(JSONMemberError) -> GuestConfiguration {
        var members = try JSONMembers(value)
        let version = try members.integer("version", in: 1...Int.max)
        guard version == Self.version else {
            throw members.error("version", "\(version); this program knows \(Self.version)")
        }
        let name = try members.string("name", upTo: 255)
        guard !name.isEmpty else { throw members.error("name", "empty") }
        var configuration = GuestConfiguration(
            name: name, uuid: try members.uuid("uuid"), memoryMiB: try members.integer("memoryMiB", in: 16...1_048_576),
            cpu: try members.object("cpu", CPUConfiguration.read))
        if let type = try members.stringIfPresent("type", upTo: 64) {
            guard let known = MachineType(rawValue: type) else {
                throw members.error("type", "none of \(MachineType.allCases.map(\.rawValue).joined(separator: ", "))")
            }
            configuration.type = known
        }
        configuration.numa = try members.objectIfPresent("numa", NUMAConfiguration.read)
        if let size = try members.stringIfPresent("hugePages", upTo: 64) {
            guard let known = HugePageSize(rawValue: size) else {
                throw members.error("hugePages", "none of \(HugePageSize.allCases.map(\.rawValue).joined(separator: ", "))")
            }
            configuration.hugePages = known
        }
        configuration.firmware = try members.objectIfPresent("firmware", FirmwareConfiguration.read)
        configuration.kernel = try members.objectIfPresent("kernel", descriptor("fd"))
        configuration.initrd = try members.objectIfPresent("initrd", descriptor("fd"))
        configuration.commandLine = try members.stringIfPresent("commandLine", upTo: 2047) ?? configuration.commandLine
        configuration.system = try members.objectIfPresent("system", SystemConfiguration.read) ?? configuration.system
        configuration.disks = try members.objects("disks", upTo: deviceLimit, DiskConfiguration.read)
        configuration.networks = try members.objects("networks", upTo: deviceLimit, NetworkConfiguration.read)
        configuration.rng = try members.boolIfPresent("rng") ?? false
        configuration.balloon = try members.boolIfPresent("balloon") ?? false
        configuration.console =
            try members.objectIfPresent("console", ConsoleConfiguration.read) ?? configuration.console
        configuration.control = try members.objectIfPresent("control", descriptor("listen"))
        configuration.kvm = try members.objectIfPresent("kvm", descriptor("fd"))
        configuration.startPaused = try members.boolIfPresent("startPaused") ?? false
        configuration.restore = try members.objectIfPresent("restore", descriptor("fd"))
        if let policy = try members.stringIfPresent("onGuestReset", upTo: 64) {
            guard let known = GuestResetPolicy(rawValue: policy) else {
                throw members.error("onGuestReset", "neither reset nor shutdown")
            }
            configuration.onGuestReset = known
        }
        if let policy = try members.stringIfPresent("onGuestCrash", upTo: 64) {
            guard let known = GuestCrashPolicy(rawValue: policy) else {
                throw members.error("onGuestCrash", "none of \(GuestCrashPolicy.allCases.map(\.rawValue).joined(separator: ", "))")
            }
            configuration.onGuestCrash = known
        }
        configuration.board = try members.objectIfPresent("board", BoardConfiguration.read) ?? configuration.board
        try members.refuseRest()
        return configuration
    }

    private static func descriptor(_ member: String) -> (inout JSONMembers) throws(JSONMemberError) -> Int {
        { (members: inout JSONMembers) throws(JSONMemberError) -> Int in try members.integer(member, in: GuestConfiguration.descriptors) }
    }

    private func checkWhole() throws(ConfigurationError) {
        guard !commandLine.utf8.contains(0) else {
            throw ConfigurationError(path: "commandLine", reason: "contains a zero byte")
        }
        guard disks.count + networks.count + board.rootPorts <= deviceLimit else {
            throw ConfigurationError(path: "networks", reason: "more than \(deviceLimit) disks, networks and root ports")
        }
        try checkMemory()
        try checkBoard()
        try checkPorts()
        var ids: Set<String> = []
        for (index, disk) in disks.enumerated() where !ids.insert(disk.id).inserted || disk.id.isEmpty {
            throw ConfigurationError(path: "disks[\(index)].id", reason: disk.id.isEmpty ? "empty" : "used twice")
        }
        for (index, network) in networks.enumerated() {
            let path = "networks[\(index)]"
            guard !network.id.isEmpty, ids.insert(network.id).inserted else {
                throw ConfigurationError(path: "\(path).id", reason: network.id.isEmpty ? "empty" : "used twice")
            }
            guard !network.fds.isEmpty else { throw ConfigurationError(path: "\(path).fds", reason: "empty") }
            guard network.rom == nil || type != .direct else {
                throw ConfigurationError(path: "\(path).rom", reason: "a machine of type \(type.rawValue) has no firmware to run it")
            }
            guard network.fds.count <= cpu.count else {
                throw ConfigurationError(
                    path: "\(path).fds", reason: "\(network.fds.count) queue pairs for \(cpu.count) vCPUs")
            }
        }
        var used: Set<Int> = []
        for (path, number) in namedDescriptors where !used.insert(number).inserted {
            throw ConfigurationError(path: path, reason: "descriptor \(number) is used twice")
        }
    }

    /// What the machine's type asks for and what it has no place for.
    private func checkBoard() throws(ConfigurationError) {
        switch (type, firmware, kernel) {
        case (.direct, nil, nil): throw ConfigurationError(path: "kernel", reason: "missing, and a machine of type \(type.rawValue) has no firmware")
        case (.direct, _?, _): throw ConfigurationError(path: "firmware", reason: "a machine of type \(type.rawValue) has no place for it")
        case (.direct, nil, _): break
        case (_, nil, _): throw ConfigurationError(path: "firmware", reason: "missing for a machine of type \(type.rawValue)")
        default: break
        }
        var counts: [DiskBus: Int] = [:]
        for (index, disk) in disks.enumerated() {
            let path = "disks[\(index)]"
            counts[disk.bus, default: 0] += 1
            guard disk.bus != .fdc || !disk.isOptical else {
                throw ConfigurationError(path: "\(path).optical", reason: "there is no CD drive on fdc")
            }
            guard disk.bus == .virtio || type != .direct else {
                throw ConfigurationError(path: "\(path).bus", reason: "a machine of type \(type.rawValue) has virtio disks only")
            }
            guard disk.bus != .ide || type == .pc else {
                throw ConfigurationError(path: "\(path).bus", reason: "a machine of type \(type.rawValue) has no IDE; take sata")
            }
            guard !disk.isOptical || disk.bus == .sata || disk.bus == .ide || disk.bus == .scsi else {
                throw ConfigurationError(path: "\(path).optical", reason: "there is no CD drive on \(disk.bus.rawValue)")
            }
        }
        if let count = counts[.ide], count > 4 { throw ConfigurationError(path: "disks", reason: "\(count) on ide, which takes 4") }
        if let count = counts[.fdc], count > 2 { throw ConfigurationError(path: "disks", reason: "\(count) on fdc, which takes 2") }
        if let count = counts[.sata], count > 6 { throw ConfigurationError(path: "disks", reason: "\(count) on sata, which takes 6") }
    }

    /// A port is there and has one device.
    private func checkPorts() throws(ConfigurationError) {
        guard board.rootPorts == 0 || type == .q35 else {
            throw ConfigurationError(path: "board.rootPorts", reason: "a machine of type \(type.rawValue) has no PCI Express ports")
        }
        var used: Set<Int> = []
        let asked =
            disks.enumerated().map { ("disks[\($0.offset)].port", $0.element.port) }
            + networks.enumerated().map { ("networks[\($0.offset)].port", $0.element.port) }
        for (path, port) in asked {
            guard let port else { continue }
            guard port < board.rootPorts else { throw ConfigurationError(path: path, reason: "there are \(board.rootPorts) root ports") }
            guard used.insert(port).inserted else { throw ConfigurationError(path: path, reason: "root port \(port) has a device already") }
        }
        for (index, disk) in disks.enumerated() where disk.port != nil && disk.bus != .virtio && disk.bus != .nvme {
            throw ConfigurationError(path: "disks[\(index)].port", reason: "a disk on \(disk.bus.rawValue) is no PCI device of its own")
        }
    }

    /// Every descriptor with its place: what the monitor takes over, and nothing else.
    package var namedDescriptors: [(path: String, number: Int)] {
        var all: [(path: String, number: Int)] = []
        func add(_ path: String, _ number: Int?) {
            if let number { all.append((path, number)) }
        }
        add("firmware.code", firmware?.code)
        add("firmware.variables", firmware?.variables)
        add("firmware.log", firmware?.log)
        add("kernel.fd", kernel)
        add("initrd.fd", initrd)
        for (index, disk) in disks.enumerated() {
            add("disks[\(index)].fd", disk.fd)
            for (layer, backing) in disk.backing.enumerated() { add("disks[\(index)].backing[\(layer)].fd", backing.fd) }
        }
        for (index, network) in networks.enumerated() {
            for (queue, number) in network.fds.enumerated() { add("networks[\(index)].fds[\(queue)]", number) }
            add("networks[\(index)].vhostFd", network.vhostFd)
            add("networks[\(index)].rom", network.rom)
        }
        add("console.log", console.log)
        add("console.listen", console.listen)
        add("board.debugConsole", board.debugConsole)
        add("control.listen", control)
        add("kvm.fd", kvm)
        add("restore.fd", restore)
        return all
    }

    /// The text for the monitor. Absent members are left out.
    package var json: JSONValue {
        var members: [String: JSONValue] = [
            "version": .integer(Int64(Self.version)), "name": .string(name), "uuid": .string(uuid.description),
            "memoryMiB": .integer(Int64(memoryMiB)), "cpu": cpu.json, "type": .string(type.rawValue),
            "commandLine": .string(commandLine), "system": system.json, "disks": .array(disks.map(\.json)),
            "networks": .array(networks.map(\.json)), "rng": .bool(rng), "balloon": .bool(balloon),
            "console": console.json,
            "startPaused": .bool(startPaused), "onGuestReset": .string(onGuestReset.rawValue),
            "onGuestCrash": .string(onGuestCrash.rawValue), "board": board.json,
        ]
        if let numa { members["numa"] = numa.json }
        if let hugePages { members["hugePages"] = .string(hugePages.rawValue) }
        if let firmware { members["firmware"] = firmware.json }
        if let kernel { members["kernel"] = ["fd": .integer(Int64(kernel))] }
        if let initrd { members["initrd"] = ["fd": .integer(Int64(initrd))] }
        if let control { members["control"] = ["listen": .integer(Int64(control))] }
        if let kvm { members["kvm"] = ["fd": .integer(Int64(kvm))] }
        if let restore { members["restore"] = ["fd": .integer(Int64(restore))] }
        return .object(members)
    }
}

extension FirmwareConfiguration {
    fileprivate static func read(_ members: inout JSONMembers) throws(JSONMemberError) -> FirmwareConfiguration {
        FirmwareConfiguration(
            code: try members.integer("code", in: GuestConfiguration.descriptors), variables: try members.integerIfPresent("variables", in: GuestConfiguration.descriptors),
            log: try members.integerIfPresent("log", in: GuestConfiguration.descriptors))
    }

    fileprivate var json: JSONValue {
        ["code": .integer(Int64(code)), "variables": variables.map { .integer(Int64($0)) } ?? .null, "log": log.map { .integer(Int64($0)) } ?? .null]
    }
}

extension CPUConfiguration {
    fileprivate static func read(_ members: inout JSONMembers) throws(JSONMemberError) -> CPUConfiguration {
        let count = try members.integer("count", in: 1...64)
        let sockets = try members.integerIfPresent("sockets", in: 1...64)
        let cores = try members.integerIfPresent("cores", in: 1...64),
            threads = try members.integerIfPresent("threads", in: 1...64)
        let sharing = (cores ?? 1) * (threads ?? 1)
        var cpu = CPUConfiguration(
            count: count, sockets: sockets ?? max(count / sharing, 1), cores: cores ?? 1, threads: threads ?? 1)
        guard cpu.sockets * sharing == count else {
            throw members.error(
                "sockets",
                "\(cpu.sockets) sockets of \(cpu.cores) cores with \(cpu.threads) threads are not \(count) vCPUs")
        }
        cpu.model = try members.stringIfPresent("model", upTo: 64)
        cpu.hidesKVM = try members.boolIfPresent("hideKVM") ?? false
        for (name, value) in members.valueIfPresent("features")?.objectValue ?? [:] {
            guard let isOn = value.boolValue, name.utf8.count <= 64 else { throw members.error("features", "\(name.prefix(64)) is neither on nor off") }
            cpu.features[name] = isOn
        }
        for value in members.valueIfPresent("hyperv")?.arrayValue ?? [] {
            guard let name = value.stringValue, name.utf8.count <= 64 else { throw members.error("hyperv", "not a list of names") }
            cpu.enlightenments.append(name)
        }
        return cpu
    }

    fileprivate var json: JSONValue {
        var members: [String: JSONValue] = [
            "count": .integer(Int64(count)), "sockets": .integer(Int64(sockets)), "cores": .integer(Int64(cores)),
            "threads": .integer(Int64(threads)),
        ]
        if let model { members["model"] = .string(model) }
        if !features.isEmpty { members["features"] = .object(features.mapValues { .bool($0) }) }
        if hidesKVM { members["hideKVM"] = true }
        if !enlightenments.isEmpty { members["hyperv"] = .array(enlightenments.map { .string($0) }) }
        return .object(members)
    }
}

extension SystemConfiguration {
    fileprivate static func read(_ members: inout JSONMembers) throws(JSONMemberError) -> SystemConfiguration {
        var system = SystemConfiguration()
        system.manufacturer = try members.smbiosString("manufacturer") ?? system.manufacturer
        system.product = try members.smbiosString("product") ?? system.product
        system.version = try members.smbiosString("version") ?? system.version
        system.serial = try members.smbiosString("serial")
        system.family = try members.smbiosString("family") ?? system.family
        system.uuid = try members.uuidIfPresent("uuid")
        return system
    }

    fileprivate var json: JSONValue {
        var members: [String: JSONValue] = [
            "manufacturer": .string(manufacturer), "product": .string(product), "version": .string(version),
            "family": .string(family),
        ]
        if let serial { members["serial"] = .string(serial) }
        if let uuid { members["uuid"] = .string(uuid.description) }
        return .object(members)
    }
}

extension DiskConfiguration {
    fileprivate static func read(_ members: inout JSONMembers) throws(JSONMemberError) -> DiskConfiguration {
        var bus = DiskBus.virtio
        if let text = try members.stringIfPresent("bus", upTo: 64) {
            guard let known = DiskBus(rawValue: text) else {
                throw members.error("bus", "none of \(DiskBus.allCases.map(\.rawValue).joined(separator: ", "))")
            }
            bus = known
        }
        var disk = DiskConfiguration(
            id: try members.string("id", upTo: 255), fd: try members.integer("fd", in: GuestConfiguration.descriptors),
            readOnly: try members.boolIfPresent("readOnly") ?? false,
            serial: try members.stringIfPresent("serial", upTo: 255), bus: bus,
            isOptical: try members.boolIfPresent("optical") ?? false,
            bootIndex: try members.integerIfPresent("bootIndex", in: 0...255),
            format: try members.stringIfPresent("format", upTo: 64) ?? "raw",
            backing: try members.objects("backing", upTo: 64, BackingConfiguration.read),
            port: try members.integerIfPresent("port", in: 0...(BoardConfiguration.rootPortLimit - 1)))
        disk.limits = try members.objectIfPresent("limits", DiskLimits.read) ?? DiskLimits()
        return disk
    }

    fileprivate var json: JSONValue {
        var members: [String: JSONValue] = ["id": .string(id), "fd": .integer(Int64(fd)), "readOnly": .bool(readOnly), "bus": .string(bus.rawValue),
            "optical": .bool(isOptical), "format": .string(format), "backing": .array(backing.map(\.json)),
        ]
        if let bootIndex { members["bootIndex"] = .integer(Int64(bootIndex)) }
        if let port { members["port"] = .integer(Int64(port)) }
        if let serial { members["serial"] = .string(serial) }
        if !limits.isEmpty { members["limits"] = limits.json }
        return .object(members)
    }
}

extension BackingConfiguration {
    fileprivate static func read(_ members: inout JSONMembers) throws(JSONMemberError) -> BackingConfiguration {
        BackingConfiguration(fd: try members.integer("fd", in: GuestConfiguration.descriptors), format: try members.string("format", upTo: 64))
    }

    fileprivate var json: JSONValue { ["fd": .integer(Int64(fd)), "format": .string(format)] }
}

extension NetworkConfiguration {
    fileprivate static func read(_ members: inout JSONMembers) throws(JSONMemberError) -> NetworkConfiguration {
        let text = try members.string("mac", upTo: 64)
        guard let mac = MACAddress(text) else { throw members.error("mac", "not the address of a station") }
        return NetworkConfiguration(
            id: try members.string("id", upTo: 255), fds: try members.integers("fds", in: GuestConfiguration.descriptors, upTo: 64),
            mac: mac,
            mtu: try members.integerIfPresent("mtu", in: 68...65_535) ?? 1500,
            vhostFd: try members.integerIfPresent("vhostFd", in: GuestConfiguration.descriptors),
            bootIndex: try members.integerIfPresent("bootIndex", in: 0...255),
            rom: try members.integerIfPresent("rom", in: GuestConfiguration.descriptors),
            port: try members.integerIfPresent("port", in: 0...(BoardConfiguration.rootPortLimit - 1)))
    }

    fileprivate var json: JSONValue {
        [
            "id": .string(id), "fds": .array(fds.map { .integer(Int64($0)) }), "mac": .string(mac.description),
            "mtu": .integer(Int64(mtu)), "vhostFd": vhostFd.map { .integer(Int64($0)) } ?? .null,
            "bootIndex": bootIndex.map { .integer(Int64($0)) } ?? .null, "rom": rom.map { .integer(Int64($0)) } ?? .null,
            "port": port.map { .integer(Int64($0)) } ?? .null,
        ]
    }
}

extension ConsoleConfiguration {
    fileprivate static func read(_ members: inout JSONMembers) throws(JSONMemberError) -> ConsoleConfiguration {
        ConsoleConfiguration(
            log: try members.integerIfPresent("log", in: GuestConfiguration.descriptors),
            logLimitBytes: try members.integerIfPresent("logLimitBytes", in: 4096...(1 << 30)) ?? 1 << 20,
            listen: try members.integerIfPresent("listen", in: GuestConfiguration.descriptors))
    }

    fileprivate var json: JSONValue {
        var members: [String: JSONValue] = ["logLimitBytes": .integer(Int64(logLimitBytes))]
        if let log { members["log"] = .integer(Int64(log)) }
        if let listen { members["listen"] = .integer(Int64(listen)) }
        return .object(members)
    }
}

extension JSONMembers {
    fileprivate mutating func uuidIfPresent(_ name: String) throws(JSONMemberError) -> MachineUUID? {
        guard let text = try stringIfPresent(name, upTo: 64) else { return nil }
        guard let uuid = MachineUUID(text) else { throw error(name, "not a UUID") }
        return uuid
    }

    fileprivate mutating func uuid(_ name: String) throws(JSONMemberError) -> MachineUUID {
        guard let uuid = try uuidIfPresent(name) else { throw error(name, "missing") }
        return uuid
    }

    /// A string set of SMBIOS ends at a zero byte and a string at 64 is what readers expect at least; 255 is generous.
    fileprivate mutating func smbiosString(_ name: String) throws(JSONMemberError) -> String? {
        guard let text = try stringIfPresent(name, upTo: 255) else { return nil }
        guard !text.utf8.contains(0) else { throw error(name, "contains a zero byte") }
        return text
    }
}
