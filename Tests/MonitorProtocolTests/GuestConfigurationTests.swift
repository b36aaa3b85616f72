import JSON
import MachineConfiguration
import Testing

struct GuestConfigurationTests {
    /// Everything a configuration can say, as the service writes it.
    static let full = """
        {"version":1,"name":"instance-00000001","uuid":"3f0a2b1c-0001-4c4b-9f5e-0123456789ab","memoryMiB":256,
         "cpu":{"count":2,"sockets":2,"cores":1,"threads":1},"kernel":{"fd":4},"initrd":{"fd":5},"commandLine":"console=ttyS0",
         "system":{"manufacturer":"OpenStack Foundation","product":"OpenStack Nova","version":"26.2.2","serial":"s",
                   "uuid":"3f0a2b1c-0001-4c4b-9f5e-0123456789ab","family":"Virtual Machine"},
         "disks":[{"id":"virtio-disk0","fd":6,"readOnly":false,"serial":"8a1c"}],
         "networks":[{"id":"tap0a1b2c3d4e-5","fds":[7],"mac":"fa:16:3e:00:00:01","mtu":1450,"vhostFd":null}],
         "rng":true,"balloon":true,"console":{"log":8,"logLimitBytes":1048576,"listen":9},"control":{"listen":10},"kvm":{"fd":11},
         "startPaused":false,"onGuestReset":"reset"}
        """

    private func read(_ text: String) throws(ConfigurationError) -> GuestConfiguration {
        try GuestConfiguration(parsing: Array(text.utf8))
    }

    /// The full text with one member set, or removed by nil. The path's numbers are indices.
    private func changed(_ path: [String], _ value: JSONValue?) throws -> [UInt8] {
        func set(_ container: JSONValue, _ path: ArraySlice<String>) -> JSONValue? {
            guard let key = path.first else { return value }
            if case .array(var elements) = container, let index = Int(key) {
                elements[index] = set(elements[index], path.dropFirst()) ?? .null
                return .array(elements)
            }
            var members = container.objectValue ?? [:]
            members[key] = set(members[key] ?? [:], path.dropFirst())
            return .object(members)
        }
        return try #require(set(try JSONValue.parse(Self.full), path[...])).serializedBytes()
    }

    @Test func readsEveryMember() throws {
        let machine = try read(Self.full)
        #expect(
            machine.name == "instance-00000001" && machine.memoryMiB == 256 && machine.kernel == 4
                && machine.initrd == 5)
        #expect(machine.cpu == CPUConfiguration(count: 2, sockets: 2, cores: 1, threads: 1))
        #expect(machine.system.version == "26.2.2" && machine.system.uuid == machine.uuid)
        #expect(machine.disks == [DiskConfiguration(id: "virtio-disk0", fd: 6, serial: "8a1c")])
        let mac = try #require(MACAddress("fa:16:3e:00:00:01"))
        #expect(machine.networks == [NetworkConfiguration(id: "tap0a1b2c3d4e-5", fds: [7], mac: mac, mtu: 1450)])
        #expect(machine.console == ConsoleConfiguration(log: 8, logLimitBytes: 1 << 20, listen: 9))
        #expect(
            machine.control == 10 && machine.kvm == 11 && machine.onGuestReset == .reset && machine.rng
                && machine.balloon)
    }

    @Test func whatIsWrittenReadsBackEqual() throws {
        let machine = try read(Self.full)
        #expect(try GuestConfiguration(parsing: machine.json.serializedBytes()) == machine)
    }

    @Test func optionalMembersMayBeMissing() throws {
        let machine = try read(
            #"{"version":1,"name":"a","uuid":"3f0a2b1c00014c4b9f5e0123456789ab","memoryMiB":64,"cpu":{"count":4,"cores":2},"kernel":{"fd":3}}"#
        )
        #expect(machine.cpu == CPUConfiguration(count: 4, sockets: 2, cores: 2, threads: 1))
        #expect(
            machine.commandLine == "console=ttyS0" && machine.disks.isEmpty && machine.control == nil && !machine.rng)
        #expect(try GuestConfiguration(parsing: machine.json.serializedBytes()) == machine)
    }

    @Test func stateToGoOnFromIsADescriptorLikeTheOthers() throws {
        let machine = try GuestConfiguration(parsing: try changed(["restore"], ["fd": 12]))
        #expect(machine.restore == 12 && machine.namedDescriptors.contains { $0.path == "restore.fd" && $0.number == 12 })
        #expect(try GuestConfiguration(parsing: machine.json.serializedBytes()) == machine)
        #expect(try read(Self.full).restore == nil)
    }

    @Test(
        arguments: [
            (["restore"], ["fd": 11], "restore.fd"), (["restore"], ["path": "/tmp/state"], "restore.fd"),
            (["version"], JSONValue.integer(2), "version"), (["version"], nil, "version"), (["name"], "", "name"),
            (["name"], 5, "name"),
            (["uuid"], "3f0a2b1c", "uuid"), (["uuid"], "3f0a2b1c-0001-4c4b-9f5e-0123456789zz", "uuid"),
            (["memoryMiB"], 15, "memoryMiB"),
            (["memoryMiB"], 1.5, "memoryMiB"), (["memoryMiB"], .integer(.max), "memoryMiB"), (["cpu"], [], "cpu"),
            (["cpu", "count"], 65, "cpu.count"), (["cpu", "sockets"], 3, "cpu.sockets"), (["kernel"], nil, "kernel"),
            (["kernel", "fd"], 2, "kernel.fd"),
            (["kernel", "fd"], -1, "kernel.fd"), (["kernel", "path"], "/boot/vmlinuz", "kernel.path"),
            (["commandLine"], "a\u{0}b", "commandLine"),
            (["system", "serial"], "a\u{0}", "system.serial"), (["disks"], [:], "disks"),
            (["disks", "0", "fd"], 5, "disks[0].fd"),
            (["disks", "0", "id"], "", "disks[0].id"), (["networks", "0", "fds"], [], "networks[0].fds"),
            (["networks", "0", "fds"], [7, 12, 13], "networks[0].fds"),
            (["networks", "0", "fds"], [7, 7], "networks[0].fds[1]"),
            (["networks", "0", "mac"], "01:00:5e:00:00:01", "networks[0].mac"),
            (["networks", "0", "mac"], "fa:16:3e:0:0:1", "networks[0].mac"),
            (["networks", "0", "mtu"], 67, "networks[0].mtu"), (["networks", "0", "rom"], 12, "networks[0].rom"),
            (["networks", "0", "id"], "virtio-disk0", "networks[0].id"),
            (["console", "logLimitBytes"], 0, "console.logLimitBytes"), (["control", "listen"], 9, "control.listen"),
            (["rng"], "yes", "rng"), (["onGuestReset"], "explode", "onGuestReset"), (["surprise"], 1, "surprise"),
        ] as [([String], JSONValue?, String)])
    func refusesAndNamesThePlace(path: [String], value: JSONValue?, place: String) throws {
        let text = try changed(path, value)
        let refusal = #expect(throws: ConfigurationError.self) { try GuestConfiguration(parsing: text) }
        #expect(refusal?.path == place)
    }

    private static let firmware =
        #"{"version":1,"name":"a","uuid":"3f0a2b1c00014c4b9f5e0123456789ab","memoryMiB":64,"cpu":{"count":1},"#
        + #""type":"q35-1.0","firmware":{"code":3,"variables":4},"disks":[{"id":"a","fd":5,"bus":"nvme","format":"qcow2","bootIndex":1,"#
        + #""backing":[{"fd":6,"format":"raw"}]},{"id":"b","fd":7,"bus":"sata","optical":true}]}"#

    @Test func aPCWithFirmwareIsReadAndWritten() throws {
        let machine = try read(Self.firmware)
        #expect(machine.type == .q35 && machine.kernel == nil && machine.firmware == FirmwareConfiguration(code: 3, variables: 4))
        #expect(machine.disks[0].bus == .nvme && machine.disks[0].format == "qcow2" && machine.disks[0].bootIndex == 1)
        #expect(machine.disks[0].backing == [BackingConfiguration(fd: 6, format: "raw")] && machine.disks[1].isOptical)
        #expect(try GuestConfiguration(parsing: machine.json.serializedBytes()) == machine)
    }

    private static let board =
        #"{"version":1,"name":"a","uuid":"3f0a2b1c00014c4b9f5e0123456789ab","memoryMiB":64,"cpu":{"count":1},"type":"pc-1.0","firmware":{"code":3},"#
        + #""board":{"hpet":true,"watchdog":"pause","panic":true,"generationID":"3f0a2b1c-0001-4c4b-9f5e-0123456789ac","debugConsole":4,"#
        + #""debugExit":true},"onGuestCrash":"shutdown","disks":[{"id":"a","fd":5,"bus":"fdc"}]}"#

    @Test func devicesOfTheBoardAreReadAndWritten() throws {
        let machine = try read(Self.board)
        let id = try #require(MachineUUID("3f0a2b1c-0001-4c4b-9f5e-0123456789ac"))
        #expect(
            machine.board
                == BoardConfiguration(hpet: true, watchdog: .pause, panic: true, generationID: id, debugConsole: 4, debugExit: true))
        #expect(machine.onGuestCrash == .shutdown && machine.disks[0].bus == .fdc)
        #expect(machine.namedDescriptors.map(\.path).contains("board.debugConsole"))
        #expect(try GuestConfiguration(parsing: machine.json.serializedBytes()) == machine)
        #expect(try read(Self.full).board == BoardConfiguration() && read(Self.full).onGuestCrash == .preserve)
    }

    @Test(
        arguments: [
            (#""watchdog":"pause""#, #""watchdog":"disabled""#, "board.watchdog"), (#""hpet":true"#, #""hpet":1"#, "board.hpet"),
            (#""debugConsole":4"#, #""debugConsole":5"#, "board.debugConsole"), (#""debugExit":true"#, #""debugexit":true"#, "board.debugexit"),
            (#""generationID":"3f0a"#, #""generationID":"3f0"#, "board.generationID"), (#""shutdown""#, #""crash""#, "onGuestCrash"),
            (#""bus":"fdc""#, #""bus":"fdc","optical":true"#, "disks[0].optical"),
            (#""pc-1.0","firmware":{"code":3}"#, #""direct-1.0","kernel":{"fd":3}"#, "disks[0].bus"),
            (#"{"id":"a","fd":5,"bus":"fdc"}"#,
                #"{"id":"a","fd":5,"bus":"fdc"},{"id":"b","fd":6,"bus":"fdc"},{"id":"c","fd":7,"bus":"fdc"}"#, "disks"),
        ])
    func whatADeviceOfTheBoardCannotBeIsRefused(old: String, new: String, place: String) throws {
        let parts = Self.board.split(separator: old, maxSplits: 1, omittingEmptySubsequences: false)
        try #require(parts.count == 2)
        let refusal = #expect(throws: ConfigurationError.self) { try read(String(parts[0] + new + parts[1])) }
        #expect(refusal?.path == place)
    }

    private static let ports =
        #"{"version":1,"name":"a","uuid":"3f0a2b1c00014c4b9f5e0123456789ab","memoryMiB":64,"cpu":{"count":1},"type":"q35-1.0","firmware":{"code":3},"#
        + #""board":{"rootPorts":2},"disks":[{"id":"a","fd":5,"port":1}],"networks":[{"id":"n","fds":[7],"mac":"fa:16:3e:00:00:01","rom":8,"port":0}]}"#

    @Test func placesBehindRootPortsAndOptionROMsAreReadAndWritten() throws {
        let machine = try read(Self.ports)
        #expect(machine.board.rootPorts == 2 && machine.disks[0].port == 1 && machine.networks[0].port == 0 && machine.networks[0].rom == 8)
        #expect(try GuestConfiguration(parsing: machine.json.serializedBytes()) == machine)
    }

    @Test(
        arguments: [
            (#""port":1"#, #""port":2"#, "disks[0].port"), (#""port":0"#, #""port":1"#, "networks[0].port"), (#""port":1"#, #""port":-1"#, "disks[0].port"),
            (#""port":1"#, #""port":1,"bus":"sata""#, "disks[0].port"), (#"q35-1.0"#, "pc-1.0", "board.rootPorts"),
            (#""rootPorts":2"#, #""rootPorts":17"#, "board.rootPorts"), (#""rom":8"#, #""rom":7"#, "networks[0].rom"),
        ])
    func aPlaceThatIsNotThereIsRefused(old: String, new: String, place: String) throws {
        let parts = Self.ports.split(separator: old, maxSplits: 1, omittingEmptySubsequences: false)
        try #require(parts.count == 2)
        let refusal = #expect(throws: ConfigurationError.self) { try read(String(parts[0] + new + parts[1])) }
        #expect(refusal?.path == place)
    }

    @Test(
        arguments: [
            (#""type":"q35-1.0""#, #""type":"direct-1.0""#, "firmware"), (#""type":"q35-1.0""#, #""type":"virt""#, "type"),
            (#""firmware":{"code":3,"variables":4},"#, "", "firmware"), (#""bus":"nvme""#, #""bus":"ide""#, "disks[0].bus"),
            (#""bus":"nvme""#, #""bus":"floppy""#, "disks[0].bus"), (#""bus":"sata""#, #""bus":"nvme""#, "disks[1].optical"),
            (#""fd":6,"#, #""fd":5,"#, "disks[0].backing[0].fd"), (#""bootIndex":1"#, #""bootIndex":-1"#, "disks[0].bootIndex"),
        ])
    func whatABoardHasNoPlaceForIsRefused(old: String, new: String, place: String) throws {
        let parts = Self.firmware.split(separator: old, maxSplits: 1, omittingEmptySubsequences: false)
        try #require(parts.count == 2)
        let refusal = #expect(throws: ConfigurationError.self) { try read(String(parts[0] + new + parts[1])) }
        #expect(refusal?.path == place)
    }

    @Test func boardsHaveTheNamesThatImagesUse() {
        #expect(MachineType(named: "pc-q35-7.2") == .q35 && MachineType(named: "pc") == .pc && MachineType(named: "pc-i440fx-6.0") == .pc)
        #expect(MachineType(named: "q35-1.0") == .q35 && MachineType(named: "virt") == nil)
    }

    @Test func textThatIsNoObjectIsRefused() {
        for text in ["", "[]", "null", "{", String(repeating: "[", count: 10_000)] {
            #expect(throws: ConfigurationError.self) { try read(text) }
        }
    }

    @Test func damagedTextsNeverTrap() {
        // Any fixed number; the same texts at each run.
        var random = SplitMix(state: 0xA905)
        let text = Array(Self.full.utf8)
        var readable = 0
        for _ in 0..<20_000 {
            var damaged = text
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let position = Int.random(in: 0..<damaged.count, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: damaged[position] = UInt8.random(in: 0...255, using: &random)
                case 1: damaged.remove(at: position)
                case 2: damaged[position] = UInt8.random(in: 0x30...0x39, using: &random)
                default:
                    damaged.replaceSubrange(position..<min(position + 8, damaged.count), with: Array("99999999".utf8))
                }
            }
            if (try? GuestConfiguration(parsing: damaged)) != nil { readable += 1 }
        }
        // A damaged name or command line is still a configuration; most of the rest is not.
        #expect(readable > 0 && readable < 15_000)
    }
}

/// SplitMix64: a generator whose numbers are the same in every run.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }
}
