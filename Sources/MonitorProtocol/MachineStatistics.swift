// The answer to stats: counters since the machine was made, sizes as they are now.
package import JSON

package struct MachineStatistics: Sendable, Equatable {
    package var vcpus: [VCPUStatistics]
    /// What the guest has at most.
    package var memoryMiB: Int
    /// The monitor's resident memory, guest RAM that was touched included.
    package var residentKiB: Int
    /// Nil: the machine has no balloon.
    package var balloon: BalloonReport?
    package var disks: [DiskStatistics]
    package var networks: [NetworkStatistics]

    package init(
        vcpus: [VCPUStatistics], memoryMiB: Int, residentKiB: Int, balloon: BalloonReport?, disks: [DiskStatistics],
        networks: [NetworkStatistics]
    ) {
        self.vcpus = vcpus
        self.memoryMiB = memoryMiB
        self.residentKiB = residentKiB
        self.balloon = balloon
        self.disks = disks
        self.networks = networks
    }
}

package struct VCPUStatistics: Sendable, Equatable {
    package var id: Int
    /// Time of the vCPU's thread on a host processor, in the guest and for it.
    package var cpuNanoseconds: Int
    /// The thread's number in the host.
    package var thread: Int

    package init(id: Int, cpuNanoseconds: Int, thread: Int) {
        self.id = id
        self.cpuNanoseconds = cpuNanoseconds
        self.thread = thread
    }
}

package struct BalloonReport: Sendable, Equatable {
    /// What the guest has now.
    package var actualMiB: Int
    /// What it was asked to have.
    package var targetMiB: Int
    /// What the guest says of its memory, by virtio's names (5.5.6.3) with dashes, for example `free-memory`; bytes or counts.
    package var statistics: [String: Int]

    package init(actualMiB: Int, targetMiB: Int, statistics: [String: Int]) {
        self.actualMiB = actualMiB
        self.targetMiB = targetMiB
        self.statistics = statistics
    }
}

package struct DiskStatistics: Sendable, Equatable {
    package var id: String
    package var readRequests = 0
    package var readBytes = 0
    package var writeRequests = 0
    package var writeBytes = 0
    package var flushRequests = 0
    package var errors = 0

    package init(id: String) { self.id = id }
}

/// From the guest's point of view: received is what came to it.
package struct NetworkStatistics: Sendable, Equatable {
    package var id: String
    package var mac: String
    package var receivedBytes = 0
    package var receivedPackets = 0
    package var receiveDrops = 0
    package var receiveErrors = 0
    package var sentBytes = 0
    package var sentPackets = 0
    package var sendDrops = 0
    package var sendErrors = 0

    package init(id: String, mac: String) {
        self.id = id
        self.mac = mac
    }
}

// MARK: As JSON. A reader leaves members of a newer monitor alone.

extension MachineStatistics {
    package var json: JSONValue {
        [
            "vcpus": .array(
                vcpus.map {
                    ["id": number($0.id), "cpuNanoseconds": number($0.cpuNanoseconds), "thread": number($0.thread)]
                }),
            "memoryMiB": number(memoryMiB), "residentKiB": number(residentKiB),
            "balloon": balloon.map { balloon in
                [
                    "actualMiB": number(balloon.actualMiB), "targetMiB": number(balloon.targetMiB),
                    "statistics": .object(balloon.statistics.mapValues(number)),
                ]
            } ?? .null,
            "disks": .array(disks.map(\.json)), "networks": .array(networks.map(\.json)),
        ]
    }

    package init(json value: JSONValue) throws(JSONMemberError) {
        var members = try JSONMembers(value)
        vcpus = try Self.list(&members, "vcpus") { (vcpu: inout JSONMembers) throws(JSONMemberError) in
            VCPUStatistics(
                id: try vcpu.count("id"), cpuNanoseconds: try vcpu.count("cpuNanoseconds"),
                thread: try vcpu.count("thread"))
        }
        memoryMiB = try members.count("memoryMiB")
        residentKiB = try members.count("residentKiB")
        balloon = nil
        if let value = members.valueIfPresent("balloon"), !value.isNull {
            var report = try JSONMembers(value, path: "balloon")
            balloon = BalloonReport(
                actualMiB: try report.count("actualMiB"), targetMiB: try report.count("targetMiB"),
                statistics: try report.counters("statistics"))
        }
        disks = try Self.list(&members, "disks", DiskStatistics.read)
        networks = try Self.list(&members, "networks", NetworkStatistics.read)
    }

    /// As JSONMembers.objects, without refusing what is unknown.
    private static func list<Value>(
        _ members: inout JSONMembers, _ name: String, _ read: (inout JSONMembers) throws(JSONMemberError) -> Value
    ) throws(JSONMemberError) -> [Value] {
        guard let value = members.valueIfPresent(name), !value.isNull else { return [] }
        guard case .array(let elements) = value else { throw members.error(name, "not a list") }
        var values: [Value] = []
        for (index, element) in elements.enumerated() {
            var inner = try JSONMembers(element, path: "\(name)[\(index)]")
            values.append(try read(&inner))
        }
        return values
    }
}

extension DiskStatistics {
    fileprivate var json: JSONValue {
        [
            "id": .string(id), "readRequests": number(readRequests), "readBytes": number(readBytes),
            "writeRequests": number(writeRequests),
            "writeBytes": number(writeBytes), "flushRequests": number(flushRequests), "errors": number(errors),
        ]
    }

    fileprivate static func read(_ members: inout JSONMembers) throws(JSONMemberError) -> DiskStatistics {
        var disk = DiskStatistics(id: try members.string("id"))
        disk.readRequests = try members.count("readRequests")
        disk.readBytes = try members.count("readBytes")
        disk.writeRequests = try members.count("writeRequests")
        disk.writeBytes = try members.count("writeBytes")
        disk.flushRequests = try members.count("flushRequests")
        disk.errors = try members.count("errors")
        return disk
    }
}

extension NetworkStatistics {
    fileprivate var json: JSONValue {
        [
            "id": .string(id), "mac": .string(mac), "receivedBytes": number(receivedBytes),
            "receivedPackets": number(receivedPackets),
            "receiveDrops": number(receiveDrops), "receiveErrors": number(receiveErrors),
            "sentBytes": number(sentBytes),
            "sentPackets": number(sentPackets), "sendDrops": number(sendDrops), "sendErrors": number(sendErrors),
        ]
    }

    fileprivate static func read(_ members: inout JSONMembers) throws(JSONMemberError) -> NetworkStatistics {
        var network = NetworkStatistics(id: try members.string("id"), mac: try members.string("mac"))
        network.receivedBytes = try members.count("receivedBytes")
        network.receivedPackets = try members.count("receivedPackets")
        network.receiveDrops = try members.count("receiveDrops")
        network.receiveErrors = try members.count("receiveErrors")
        network.sentBytes = try members.count("sentBytes")
        network.sentPackets = try members.count("sentPackets")
        network.sendDrops = try members.count("sendDrops")
        network.sendErrors = try members.count("sendErrors")
        return network
    }
}

private func number(_ value: Int) -> JSONValue { .integer(Int64(value)) }

extension JSONMembers {
    fileprivate mutating func count(_ name: String) throws(JSONMemberError) -> Int {
        try integer(name, in: 0...Int.max)
    }
}
