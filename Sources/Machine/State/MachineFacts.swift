// What a saved machine was made of, as far as its description decides it and no device says it: compared before anything is
// restored. And how its RAM lies in the file.
package import GuestMemory
package import MachineConfiguration
package import MachineCore

/// Section "machine", and "nodes".
package struct MachineFacts: Sendable, Equatable {
    static let version: UInt32 = 1, nodesVersion: UInt32 = 1

    /// A node as the guest knows it. Where its memory comes from is the host's affair, and may be another after a restore.
    package struct Node: Sendable, Equatable {
        /// A bit for each vCPU.
        package var cpus: UInt64
        package var memoryMiB: UInt32
        /// To each node.
        package var distances: [UInt8]
    }

    package var type: String
    package var memoryByteCount: UInt64
    package var topology: ProcessorTopology
    package var hasFirmware: Bool
    /// Empty: the guest was told of none.
    package var nodes: [Node]
    /// When it was saved: seconds since 1970-01-01 00:00 UTC.
    package var savedAt: Int64

    package init(_ configuration: GuestConfiguration, savedAt: Int64) {
        type = configuration.type.rawValue
        memoryByteCount = UInt64(configuration.memoryMiB) << 20
        topology = configuration.cpu.topology
        hasFirmware = configuration.firmware != nil
        let numa = configuration.numa ?? NUMAConfiguration()
        nodes = numa.nodes.enumerated().map { number, node in
            Node(
                cpus: node.cpus.reduce(0) { $0 | 1 << UInt64(clamping: $1) }, memoryMiB: UInt32(clamping: node.memoryMiB),
                distances: numa.nodes.indices.map { UInt8(clamping: numa.distance(from: number, to: $0)) })
        }
        self.savedAt = savedAt
    }

    var section: StateSection {
        var writer = StateWriter()
        writer.write(type)
        writer.write(memoryByteCount)
        for count in [topology.sockets, topology.cores, topology.threads] { writer.write(UInt32(clamping: count)) }
        writer.write(hasFirmware)
        writer.write(savedAt)
        return StateSection(name: StateSectionName.machine, version: Self.version, bytes: writer.bytes)
    }

    init(_ reader: inout StateReader) throws(DeviceStateError) {
        type = try reader.readString(limit: 64)
        memoryByteCount = try reader.read()
        topology = ProcessorTopology(
            sockets: Int(try reader.read(UInt32.self)), cores: Int(try reader.read(UInt32.self)), threads: Int(try reader.read(UInt32.self)))
        guard [topology.sockets, topology.cores, topology.threads].allSatisfy({ (1...1024).contains($0) }) else {
            throw DeviceStateError(section: reader.section, reason: "\(topology.sockets) sockets, \(topology.cores) cores, \(topology.threads) threads")
        }
        hasFirmware = try reader.readBool()
        savedAt = try reader.read()
        nodes = []
    }

    /// Refuses a machine that is not the one that was saved.
    func check(against machine: MachineFacts) throws(MachineStateError) {
        func refuse(_ what: String, _ saved: String, _ present: String) -> MachineStateError {
            MachineStateError(
                "restore", section: StateSectionName.machine, reason: "it was saved with \(saved), this machine has \(present)",
                remedy: "give the description of the saved machine: \(what)")
        }
        guard type == machine.type else { throw refuse("type", "type \(type)", "type \(machine.type)") }
        guard memoryByteCount == machine.memoryByteCount else {
            throw refuse("memoryMiB", "\(memoryByteCount >> 20) MiB of RAM", "\(machine.memoryByteCount >> 20) MiB")
        }
        guard topology == machine.topology else { throw refuse("cpu", Self.words(topology), Self.words(machine.topology)) }
        guard nodes == machine.nodes else { throw refuse("numa", Self.words(nodes), Self.words(machine.nodes)) }
        guard hasFirmware == machine.hasFirmware else {
            throw refuse("firmware", hasFirmware ? "firmware" : "no firmware", machine.hasFirmware ? "one" : "none")
        }
    }

    /// Section "nodes", which is there where nodes are: a program that knows nothing of them refuses it as a stranger's.
    var nodesSection: StateSection? {
        guard !nodes.isEmpty else { return nil }
        var writer = StateWriter()
        writer.write(UInt32(clamping: nodes.count))
        for node in nodes {
            writer.write(node.cpus)
            writer.write(node.memoryMiB)
            for distance in node.distances { writer.write(distance) }
        }
        return StateSection(name: StateSectionName.nodes, version: Self.nodesVersion, bytes: writer.bytes)
    }

    static func readNodes(_ reader: inout StateReader) throws(DeviceStateError) -> [Node] {
        let count = try reader.read(UInt32.self)
        guard (1...UInt32(NUMAConfiguration.nodeLimit)).contains(count) else { throw DeviceStateError(section: reader.section, reason: "\(count) nodes") }
        var nodes: [Node] = []
        for _ in 0..<count {
            var node = Node(cpus: try reader.read(), memoryMiB: try reader.read(), distances: [])
            for _ in 0..<count { node.distances.append(try reader.read()) }
            nodes.append(node)
        }
        return nodes
    }

    private static func words(_ nodes: [Node]) -> String {
        guard !nodes.isEmpty else { return "no nodes" }
        return "\(nodes.count) nodes: "
            + nodes.map { "\($0.memoryMiB) MiB, vCPUs 0x\(String($0.cpus, radix: 16)), distances \($0.distances.map(String.init).joined(separator: " "))" }
            .joined(separator: "; ")
    }

    private static func words(_ topology: ProcessorTopology) -> String {
        "\(topology.sockets) sockets of \(topology.cores) cores with \(topology.threads) threads"
    }
}

/// Section "ram-layout".
package struct SavedMemoryLayout: Sendable, Equatable {
    static let version: UInt32 = 1
    /// 1 TiB in chunks of 2 MiB.
    private static let checksumLimit = 1 << 19

    package var chunkByteCount: UInt64
    package var regions: [GuestMemoryRegion]
    package var checksums: [UInt32]

    init(_ memory: GuestMemory, checksums: [UInt32]) {
        chunkByteCount = GuestMemory.chunkByteCount
        regions = memory.regions
        self.checksums = checksums
    }

    var section: StateSection {
        var writer = StateWriter()
        writer.write(chunkByteCount)
        writer.write(UInt32(clamping: regions.count))
        for region in regions {
            writer.write(region.base.rawValue)
            writer.write(region.byteCount)
            writer.write(region.fileOffset)
        }
        writer.write(UInt32(clamping: checksums.count))
        for checksum in checksums { writer.write(checksum) }
        return StateSection(name: StateSectionName.layout, version: Self.version, bytes: writer.bytes)
    }

    init(_ reader: inout StateReader) throws(DeviceStateError) {
        chunkByteCount = try reader.read()
        regions = []
        let regionCount = try reader.read(UInt32.self)
        guard regionCount <= 16, chunkByteCount >= 4096, chunkByteCount <= 1 << 30 else {
            throw DeviceStateError(section: reader.section, reason: "\(regionCount) regions in chunks of \(chunkByteCount) bytes")
        }
        for _ in 0..<regionCount {
            regions.append(
                GuestMemoryRegion(base: GuestAddress(try reader.read()), byteCount: try reader.read(), fileOffset: try reader.read()))
        }
        let count = try reader.read(UInt32.self)
        guard count <= UInt32(Self.checksumLimit) else { throw DeviceStateError(section: reader.section, reason: "\(count) checksums") }
        checksums = []
        checksums.reserveCapacity(Int(count))
        for _ in 0..<count { checksums.append(try reader.read()) }
    }
}
