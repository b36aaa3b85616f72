// Allocation and deallocation against a small cloud in memory: what is refused, what is undone, what may fail.
import JSON
import Logging
import NovaObjects
import OpenStackHTTP
import OsloMessaging
import Synchronization
import Testing

@testable import Compute

/// Networks and ports, with the answers of one request replaced where a test wants a failure.
private final class SmallCloud: Sendable {
    struct State: Sendable {
        var networks: [JSONValue] = [SmallCloud.network("net-a")]
        var ports: [String: JSONValue] = [:]
        var extensions = ["multi-provider"]
        var replacements: [String: NeutronTwin.Answer] = [:]
        var created = 0
    }
    let state = Mutex(State())

    static func network(_ id: String, _ more: [String: JSONValue] = [:]) -> JSONValue {
        let base: [String: JSONValue] = [
            "id": .string(id), "name": .string("name of \(id)"), "tenant_id": "a16b072ee0b744c19c74e02159b7cd14",
            "subnets": ["sub-1"], "mtu": 1450, "shared": false, "router:external": false,
        ]
        return .object(base.merging(more) { _, new in new })
    }

    func port(_ id: String, _ more: [String: JSONValue] = [:]) {
        let base: [String: JSONValue] = [
            "id": .string(id), "network_id": "net-a", "tenant_id": "a16b072ee0b744c19c74e02159b7cd14",
            "mac_address": "fa:16:3e:00:00:01", "device_id": "", "device_owner": "", "status": "DOWN",
            "admin_state_up": true, "fixed_ips": [["subnet_id": "sub-1", "ip_address": "10.0.0.5"]],
            "binding:vif_type": "ovs", "binding:vif_details": ["port_filter": true], "binding:profile": [:],
        ]
        state.withLock { $0.ports[id] = .object(base.merging(more) { _, new in new }) }
    }

    /// `route`: method and path without the version and the query.
    func on(_ route: String, status: Int, code: String? = nil, _ json: JSONValue = .null) {
        state.withLock { $0.replacements[route] = .init(status: status, json: json, code: code) }
    }

    func twin() -> NeutronTwin { NeutronTwin { request in self.answer(request) } }

    private func answer(_ request: NeutronTwin.Request) -> NeutronTwin.Answer {
        let words = request.line.split(separator: " ")
        let parts = words[1].split(separator: "?", maxSplits: 1)
        let path = parts[0].dropFirst("/v2.0/".count)
        let query = parts.count > 1 ? String(parts[1]) : ""
        let route = "\(words[0]) \(path)"
        let id = String(path.split(separator: "/").last ?? "")
        return state.withLock { state in
            if let answer = state.replacements[route] { return answer }
            let missing = NeutronTwin.Answer(status: 404, code: "PortNotFound")
            switch (words[0], path.split(separator: "/").first) {
            case ("GET", "extensions"):
                return .init(json: ["extensions": .array(state.extensions.map { ["alias": .string($0)] })])
            case ("GET", "networks") where path.contains("/"):
                return .init(json: ["network": state.networks.first { $0["id"]?.stringValue == id } ?? [:]])
            case ("GET", "networks"):
                let isByID = query.contains("id=net")
                let found = state.networks.filter { network in
                    isByID ? query.contains("id=\(network["id"]?.stringValue ?? "")") : !query.contains("shared=True")
                }
                return .init(json: ["networks": .array(found)])
            case ("GET", "ports") where path.contains("/"):
                return state.ports[id].map { .init(json: ["port": $0]) } ?? missing
            case ("GET", "ports") where query.contains("network%3Adhcp"):
                return .init(json: ["ports": []])
            case ("GET", "ports"):
                let found = state.ports.values.filter { query.contains("device_id=\($0["device_id"]?.stringValue ?? "-")") }
                return .init(
                    json: ["ports": .array(found.sorted { ($0["id"]?.stringValue ?? "") < ($1["id"]?.stringValue ?? "") })])
            case ("GET", "subnets"):
                return .init(json: [
                    "subnets": [
                        [
                            "id": "sub-1", "network_id": "net-a", "cidr": "10.0.0.0/24", "gateway_ip": .null,
                            "enable_dhcp": true, "dns_nameservers": ["10.0.0.2", "10.0.0.2"],
                            "host_routes": [["destination": "10.9.0.0/16", "nexthop": "10.0.0.9"]],
                        ]
                    ]
                ])
            case ("POST", "ports"):
                state.created += 1
                var port = request.body?["port"]?.objectValue ?? [:]
                port["id"] = .string("new-\(state.created)")
                port["mac_address"] = .string("fa:16:3e:00:00:0\(state.created)")
                port["binding:vif_type"] = "unbound"
                port["fixed_ips"] = [["subnet_id": "sub-1", "ip_address": .string("10.0.0.\(state.created)")]]
                state.ports["new-\(state.created)"] = .object(port)
                return .init(status: 201, json: ["port": .object(port)])
            case ("PUT", "ports"):
                guard let old = state.ports[id]?.objectValue else { return missing }
                let new = old.merging(request.body?["port"]?.objectValue ?? [:]) { _, new in new }
                state.ports[id] = .object(new)
                return .init(json: ["port": .object(new)])
            case ("DELETE", "ports"):
                return state.ports.removeValue(forKey: id) == nil ? missing : .init(status: 204)
            case ("GET", "security-groups"):
                return .init(json: [
                    "security_groups": [
                        ["id": "sg-1", "name": "web"], ["id": "sg-2", "name": "twice"], ["id": "sg-3", "name": "twice"],
                        ["id": "sg-4", "name": "sg-1"],
                    ]
                ])
            case ("GET", "auto-allocated-topology"):
                return .init(json: ["auto_allocated_topology": ["id": "net-a"]])
            default:
                return .init(status: 404)
            }
        }
    }

    var ports: [String: JSONValue] { state.withLock { $0.ports } }
}

struct AllocationTests {
    private let cloud = SmallCloud()
    private let conductor = ConductorTwin()
    private let neutron: NeutronTwin
    private let network: NeutronNetwork
    private let instance = Instance.sample()

    init() {
        neutron = cloud.twin()
        network = Self.network(neutron, conductor)
    }

    private static func network(_ neutron: NeutronTwin, _ conductor: ConductorTwin, retries: Int = 0) -> NeutronNetwork {
        NeutronNetwork(
            neutron: neutron, conductor: conductor.conductor,
            options: .init(host: "host-1", allocateRetries: retries, retryDelay: .milliseconds(1)),
            logger: Logger(label: "test"))
    }

    private static func requests(_ fields: [String: String]...) -> NetworkRequestList {
        NetworkRequestList(
            fields.map { fields in
                var request = NetworkRequest(in: .zed)
                for (field, value) in fields { request.set(field, to: value) }
                return request
            }, in: .zed)
    }

    private func allocate(
        _ requests: NetworkRequestList?, groups: [String] = [], context: RequestContext = .user
    ) async throws -> NetworkInfo {
        try await network.allocate(for: instance, requested: requests, securityGroups: groups, context: context)
    }

    private func refusal(
        _ requests: NetworkRequestList?, groups: [String] = [], context: RequestContext = .user
    ) async -> NovaException? {
        await #expect(throws: NovaException.self) {
            _ = try await allocate(requests, groups: groups, context: context)
        }
    }

    // MARK: What is asked for

    @Test func noneAsksNeutronNothing() async throws {
        let info = try await allocate(Self.requests(["network_id": "none"]))
        #expect(info == [])
        #expect(neutron.lines == [])
        #expect(conductor.names == [])
    }

    @Test func aServerWithoutARequestGetsTheOnlyNetwork() async throws {
        let info = try await allocate(nil)
        #expect(info.map(\.id) == ["new-1"])
        #expect(info[0].label == "name of net-a")
        #expect(info[0].mtu == 1450)
        #expect(info[0].type == "unbound")
        #expect(cloud.ports["new-1"]?["binding:host_id"]?.stringValue == "host-1")
        #expect(cloud.ports["new-1"]?["device_owner"]?.stringValue == "compute:nova")
        #expect(
            neutron.lines.prefix(2) == [
                "GET /v2.0/networks?tenant_id=a16b072ee0b744c19c74e02159b7cd14&shared=False",
                "GET /v2.0/networks?shared=True",
            ])
    }

    @Test func aProjectWithoutNetworksGetsAServerWithoutInterfaces() async throws {
        cloud.state.withLock { $0.networks = [] }
        #expect(try await allocate(nil) == [])
    }

    @Test func severalNetworksAreAmbiguous() async throws {
        cloud.state.withLock { $0.networks.append(SmallCloud.network("net-b")) }
        #expect(await refusal(nil)?.className == "NetworkAmbiguous")
    }

    @Test func autoTakesTheAllocatedTopology() async throws {
        cloud.on("GET networks", status: 200, ["networks": []])
        let info = try await allocate(Self.requests(["network_id": "auto"]))
        #expect(info.map(\.networkID) == ["net-a"])
        #expect(neutron.lines[0].hasSuffix("shared=False&admin_state_up=True"))
        #expect(neutron.lines[2] == "GET /v2.0/auto-allocated-topology/a16b072ee0b744c19c74e02159b7cd14")
    }

    @Test func autoWithoutATopologyIsRefused() async throws {
        cloud.on("GET networks", status: 200, ["networks": []])
        cloud.on("GET auto-allocated-topology/a16b072ee0b744c19c74e02159b7cd14", status: 409)
        #expect(await refusal(Self.requests(["network_id": "auto"]))?.className == "UnableToAutoAllocateNetwork")
    }

    @Test func interfacesComeInTheOrderOfTheRequest() async throws {
        cloud.port("port-z")
        let info = try await allocate(
            Self.requests(["network_id": "net-a", "tag": "first"], ["port_id": "port-z"], ["network_id": "net-a"]))
        #expect(info.map(\.id) == ["new-1", "port-z", "new-2"])
        #expect(info.map(\.isPreservedOnDelete) == [false, true, false])
        let tags = conductor.calls.filter { $0.name == "VirtualInterface.create" }
            .map { $0.object?["nova_object.data"]?["tag"] ?? "unset" }
        #expect(tags == ["first", .null, .null])
    }

    @Test func aFixedAddressAndSecurityGroupsReachThePort() async throws {
        _ = try await allocate(Self.requests(["network_id": "net-a", "address": "10.0.0.77"]), groups: ["web", "sg-1"])
        let body = neutron.requests.first { $0.line == "POST /v2.0/ports" }?.body?["port"]
        #expect(body?["fixed_ips"] == [["ip_address": "10.0.0.77"]])
        // "sg-1" is the name of sg-4 before it is the id of another.
        #expect(body?["security_groups"] == ["sg-1", "sg-4"])
    }

    @Test func aNameIsGivenToThePort() async throws {
        cloud.state.withLock { $0.extensions.append("dns-integration") }
        _ = try await allocate(nil)
        #expect(cloud.ports["new-1"]?["dns_name"] == "rec-1")
        let puts = neutron.requests.filter { $0.line.hasPrefix("PUT") }
        #expect(puts.map(\.authorization) == [.service])
    }

    @Test func aNameInTheUsersZoneIsGivenByTheUser() async throws {
        cloud.state.withLock {
            $0.extensions.append("dns-integration")
            $0.networks = [SmallCloud.network("net-a", ["dns_domain": "example.org."])]
        }
        _ = try await allocate(nil)
        let puts = neutron.requests.filter { $0.line.hasPrefix("PUT") }
        #expect(puts.map(\.authorization) == [.service, .user(token: "user-token")])
        #expect(puts.last?.body == ["port": ["dns_name": "rec-1"]])
    }

    // MARK: What is refused

    private static let unusablePorts: [([String: JSONValue], String)] = [
        (["tenant_id": "other"], "PortNotUsable"), (["device_id": "other"], "PortInUse"),
        (["dns_name": "other"], "PortNotUsableDNS"), (["binding:vif_type": "binding_failed"], "PortBindingFailed"),
        (["resource_request": ["required": ["CUSTOM_X"]]], "PortNotUsable"),
    ]

    @Test(arguments: unusablePorts) func aPortThatCannotBeUsedIsRefused(_ more: [String: JSONValue], _ className: String) async throws {
        cloud.port("port-z", more)
        #expect(await refusal(Self.requests(["port_id": "port-z"]))?.className == className)
        #expect(!neutron.lines.contains { $0.hasPrefix("PUT") || $0.hasPrefix("POST") })
    }

    @Test func aPortOrNetworkThatIsNotThereIsNamed() async throws {
        let port = await refusal(Self.requests(["port_id": "gone"]))
        #expect(port?.className == "PortNotFound")
        #expect(port?.message == "Port id gone could not be found.")
        let network = await refusal(Self.requests(["network_id": "net-x"]))
        #expect(network?.className == "NetworkNotFound")
    }

    @Test func anExternalNetworkIsForAdministrators() async throws {
        cloud.state.withLock { $0.networks = [SmallCloud.network("net-a", ["router:external": true])] }
        #expect(await refusal(nil)?.className == "ExternalNetworkAttachForbidden")
        let admin = RequestContext(entries: ["request_id": "req-2", "is_admin": true])
        let info = try await allocate(nil, context: admin)
        #expect(info.count == 1)
        #expect(neutron.requests.last { $0.line == "POST /v2.0/ports" }?.authorization == .service)
    }

    @Test func aContextWithoutTokenThatIsNotAdministratorsIsRefused() async throws {
        #expect(await refusal(nil, context: RequestContext(entries: ["request_id": "req-2"]))?.className == "Unauthorized")
        #expect(neutron.lines == [])
    }

    @Test(arguments: [(["nothing"], "SecurityGroupNotFound"), (["twice"], "NoUniqueMatch")])
    func aSecurityGroupMustBeOne(_ groups: [String], _ className: String) async throws {
        #expect(await refusal(nil, groups: groups)?.className == className)
    }

    private static let unsecuredNetworks: [([String: JSONValue], [String])] = [
        (["subnets": []], []), (["port_security_enabled": false], ["web"]),
    ]

    @Test(arguments: unsecuredNetworks) func securityGroupsNeedASecuredNetworkWithSubnets(_ more: [String: JSONValue], _ groups: [String]) async throws {
        cloud.state.withLock { $0.networks = [SmallCloud.network("net-a", more)] }
        #expect(await refusal(nil, groups: groups)?.className == "SecurityGroupCannotBeApplied")
    }

    @Test(arguments: [
        ("OverQuota", 409, "PortLimitExceeded"), ("IpAddressGenerationFailure", 409, "NoMoreFixedIps"),
        ("IpAddressAlreadyAllocated", 409, "FixedIpAlreadyInUse"), ("InvalidIpForNetwork", 400, "InvalidInput"),
        ("", 403, "Forbidden"), ("", 401, "Unauthorized"), ("", 500, "NovaException"),
    ]) func neutronsRefusalsAreNovas(_ code: String, _ status: Int, _ className: String) async throws {
        cloud.on("POST ports", status: status, code: code)
        #expect(await refusal(nil)?.className == className)
    }

    // MARK: What is undone

    @Test func aFailedBindingDeletesWhatWasMadeAndGivesBackWhatWasThere() async throws {
        cloud.port("port-z", ["binding:profile": ["pci_slot": "0:1", "own": 1]])
        cloud.on("PUT ports/new-2", status: 200, ["port": ["id": "new-2", "binding:vif_type": "binding_failed"]])
        let refusal = await refusal(
            Self.requests(["network_id": "net-a"], ["port_id": "port-z"], ["network_id": "net-a"]))
        #expect(refusal?.className == "PortBindingFailed")
        #expect(cloud.ports.keys.sorted() == ["port-z"])
        #expect(cloud.ports["port-z"]?["device_id"] == "")
        #expect(cloud.ports["port-z"]?["binding:host_id"] == .null)
        #expect(cloud.ports["port-z"]?["binding:profile"] == ["own": 1])
        #expect(conductor.names == [
            "VirtualInterface.create", "VirtualInterface.create", "VirtualInterface.destroy", "VirtualInterface.destroy",
        ])
        #expect(conductor.networkInfo == [])
    }

    @Test func aPortThatWasThereIsGivenBackWhenItsRecordFails() async throws {
        cloud.port("port-z")
        conductor.fail("VirtualInterface.create", with: RemoteFailure(className: "VirtualInterfaceCreateException", message: "x"))
        await #expect(throws: RemoteFailure.self) { _ = try await allocate(Self.requests(["port_id": "port-z"])) }
        #expect(cloud.ports["port-z"]?["device_id"] == "")
    }

    @Test func aFailedPortDeletesTheOnesBefore() async throws {
        cloud.state.withLock { $0.networks.append(SmallCloud.network("net-b", ["subnets": []])) }
        #expect(
            await refusal(Self.requests(["network_id": "net-a"], ["network_id": "net-b"]))?.className
                == "SecurityGroupCannotBeApplied")
        #expect(cloud.ports.isEmpty)
        #expect(neutron.lines.last == "DELETE /v2.0/ports/new-1")
    }

    @Test func aPortWithGuaranteedBandwidthIsDeletedAgain() async throws {
        cloud.state.withLock { $0.networks[0] = SmallCloud.network("net-a") }
        cloud.on(
            "POST ports", status: 201, ["port": ["id": "qos-1", "resource_request": ["resources": ["NET_BW_EGR_KILOBIT_PER_SEC": 1]]]])
        #expect(await refusal(nil)?.className == "NetworksWithQoSPolicyNotSupported")
        #expect(neutron.lines.last == "DELETE /v2.0/ports/qos-1")
    }

    @Test func aCancelledAllocationLeavesNoPort() async throws {
        let cancel = Mutex<(@Sendable () -> Void)?>(nil)
        let twin = cloud.twin()
        let stopping = NeutronTwin { request in
            let answer = twin.handler(request)
            // The port is there, its answer on the way.
            if request.line == "POST /v2.0/ports" { cancel.withLock { $0?() } }
            return answer
        }
        let network = Self.network(stopping, conductor)
        let started = AsyncStream<Void>.makeStream()
        let task = Task {
            for await _ in started.stream { break }
            return try await network.allocate(for: instance, requested: nil, securityGroups: [], context: .user)
        }
        cancel.withLock { $0 = { task.cancel() } }
        started.continuation.yield()
        await #expect(throws: (any Error).self) { _ = try await task.value }
        #expect(cloud.ports.isEmpty)
        #expect(network.locks.heldCount == 0)
    }

    @Test func allocationIsTriedAgainAsOftenAsConfigured() async throws {
        cloud.on("POST ports", status: 503)
        let network = Self.network(neutron, conductor, retries: 2)
        await #expect(throws: NovaException.self) {
            _ = try await network.allocate(for: instance, requested: nil, securityGroups: [], context: .user)
        }
        #expect(neutron.lines.filter { $0 == "POST /v2.0/ports" }.count == 3)
    }

    // MARK: Giving up

    @Test func deallocationDeletesTheRestAfterOneFailure() async throws {
        let info = try await allocate(Self.requests(["network_id": "net-a"], ["network_id": "net-a"]))
        #expect(info.count == 2)
        cloud.on("DELETE ports/new-1", status: 500)
        let error = await #expect(throws: NovaException.self) {
            try await network.deallocate(for: instance, requested: nil, context: .user)
        }
        #expect(error?.details.contains("DELETE /v2.0/ports/new-1") == true)
        #expect(cloud.ports.keys.sorted() == ["new-1"])
        #expect(conductor.networkInfo.count == 2)
    }

    @Test func aRequestedPortOutlivesAFailedBuild() async throws {
        cloud.port("port-z", ["device_id": .string(instance.uuid), "device_owner": "compute:nova"])
        try await network.deallocate(for: instance, requested: Self.requests(["port_id": "port-z"]), context: .user)
        #expect(cloud.ports["port-z"]?["device_id"] == "")
        #expect(cloud.ports["port-z"]?["device_owner"] == "")
    }

    @Test func aPortAttachedSinceTheInstanceWasLoadedIsKept() async throws {
        cloud.port("port-z")
        let requests = Self.requests(["port_id": "port-z"])
        _ = try await allocate(requests)
        // `instance` still has the empty cache it was loaded with.
        try await network.deallocate(for: instance, requested: nil, context: .user)
        #expect(cloud.ports["port-z"]?["device_id"] == "")
        #expect(conductor.networkInfo == [])
    }

    @Test func portsThatAreGoneAreNoError() async throws {
        try await network.deallocate(for: instance, requested: Self.requests(["port_id": "gone"]), context: .user)
        #expect(conductor.names.suffix(2) == ["VirtualInterface.delete_by_instance_uuid", "InstanceInfoCache.save"])
    }

    // MARK: The cache

    @Test func anEmptyCacheIsFilledInTheOrderOfAttachment() async throws {
        for id in ["port-1", "port-2", "port-3"] { cloud.port(id, ["device_id": .string(instance.uuid)]) }
        func interface(_ uuid: String, _ id: Int) -> JSONValue {
            var record = VirtualInterface(in: .zed)
            record.set("uuid", to: uuid)
            record.set("id", to: id)
            return record.primitive
        }
        var list = VirtualInterfaceList(in: .zed)
        list.object.set("objects", to: [interface("port-3", 1), interface("port-1", 2)])
        conductor.state.withLock { $0.answers["VirtualInterfaceList.get_by_instance_uuid"] = list.primitive }
        let info = try await network.refresh(instance, portID: nil, context: .user)
        #expect(info.map(\.id) == ["port-3", "port-1", "port-2"])
    }

    @Test func healingFindsAPortTheCacheDoesNotKnow() async throws {
        _ = try await allocate(nil)
        cloud.port("port-9", ["device_id": .string(instance.uuid)])
        conductor.state.withLock {
            $0.answers["VirtualInterfaceList.get_by_instance_uuid"] = VirtualInterfaceList([], in: .zed).primitive
        }
        #expect(try await network.refresh(instance, portID: nil, context: .user).map(\.id) == ["new-1"])
        #expect(try await network.heal(instance, context: .user).map(\.id) == ["new-1", "port-9"])
    }

    @Test func aPortThatIsGoneLeavesTheCache() async throws {
        _ = try await allocate(Self.requests(["network_id": "net-a"], ["network_id": "net-a"]))
        cloud.state.withLock { $0.ports["new-1"] = nil }
        let one = try await network.refresh(instance, portID: "new-1", context: .user)
        #expect(one.map(\.id) == ["new-2"])
        cloud.state.withLock { $0.ports["new-2"] = nil }
        #expect(try await network.refresh(instance, portID: nil, context: .user) == [])
    }

    @Test func forgettingAPortSavesTheOthers() async throws {
        _ = try await allocate(Self.requests(["network_id": "net-a"], ["network_id": "net-a"]))
        let vif = try await network.forget(portID: "new-1", of: instance, context: .user)
        #expect(vif?.id == "new-1")
        #expect(conductor.networkInfo.map { VIF($0).id } == ["new-2"])
        #expect(try await network.forget(portID: "new-1", of: instance, context: .user) == nil)
    }

    @Test func aDeletedInstancesCacheIsNotWritten() async throws {
        var deleted = instance
        deleted.object.load("deleted", true)
        cloud.port("port-1", ["device_id": .string(instance.uuid)])
        conductor.state.withLock {
            $0.answers["VirtualInterfaceList.get_by_instance_uuid"] =
                VirtualInterfaceList([], in: .zed).primitive
        }
        #expect(try await network.refresh(deleted, portID: nil, context: .user).map(\.id) == ["port-1"])
        #expect(!conductor.names.contains("InstanceInfoCache.save"))
    }

    @Test func refreshesOfOneInstanceDoNotInterleave() async throws {
        _ = try await allocate(nil)
        let before = neutron.lines.count
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask { [network, instance] in try await network.refresh(instance, portID: nil, context: .user) }
            }
            try await group.waitForAll()
        }
        let lines = Array(neutron.lines.dropFirst(before))
        let length = lines.count / 8
        let first = Array(lines.prefix(length))
        #expect(length > 4)
        #expect((0..<8).allSatisfy { Array(lines[$0 * length..<($0 + 1) * length]) == first })
        #expect(network.locks.heldCount == 0)
    }
}
