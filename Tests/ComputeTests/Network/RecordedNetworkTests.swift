// The same operations as a recorded nova-compute, against the same answers of Neutron: the same requests in the same order,
// and the same info cache, key for key.
//
// Where the requests differ from nova-compute's, and why:
// - GET /v2.0/extensions is left out of the comparison: both ask once per `extension_sync_interval` and process.
// - The requests carry the service token only beside a user's token; nova-compute adds it to its own token too, which no
//   service looks at.
// - On a delete, the stored info cache is read once more before ports are deleted (conductor, not HTTP): a port that a user
//   attached after the instance at hand was loaded must not be deleted with it.
import JSON
import Logging
import NovaObjects
import OpenStackHTTP
import OsloMessaging
import Testing

@testable import Compute

struct RecordedNetworkTests {
    private struct Run {
        let exchange: RecordedExchange
        let neutron: NeutronTwin
        let conductor: ConductorTwin
        let network: NeutronNetwork
        let instance: Instance

        init(_ name: String) throws {
            exchange = try RecordedExchange(name)
            neutron = exchange.twin()
            conductor = ConductorTwin(networkInfo: exchange.before)
            network = NeutronNetwork(
                neutron: neutron, conductor: conductor.conductor, options: .init(host: "ref-virt"),
                logger: Logger(label: "test"))
            instance = .sample(networkInfo: exchange.before)
        }

        func expectSame() {
            #expect(neutron.linesOfRecords == exchange.lines.filter { $0 != "GET /v2.0/extensions" })
            let bodies = zip(exchange.lines, exchange.bodies).filter { $0.0 != "GET /v2.0/extensions" }.map(\.1)
            #expect(neutron.requests.filter { $0.line != "GET /v2.0/extensions" }.map(\.body) == bodies)
            // As text: keys are sorted, and a difference can be read.
            #expect(conductor.networkInfo.map { $0.serialize() } == exchange.after.map { $0.serialize() })
        }
    }

    private static let networkID = "0e8fba90-b406-4db7-b76e-6393eb8da17b"

    private static func requests(_ fields: [[String: String]]) -> NetworkRequestList {
        let requests = fields.map { fields in
            var request = NetworkRequest(in: .zed)
            for (field, value) in fields { request.set(field, to: value) }
            return request
        }
        return NetworkRequestList(requests, in: .zed)
    }

    @Test func aServerIsCreatedOnANetwork() async throws {
        let run = try Run("create")
        let info = try await run.network.allocate(
            for: run.instance, requested: Self.requests([["network_id": Self.networkID]]), securityGroups: ["default"],
            context: .user)
        run.expectSame()
        #expect(info.map { $0.json.serialize() } == run.exchange.after.map { $0.serialize() })
        #expect(run.conductor.names == ["VirtualInterface.create", "InstanceInfoCache.refresh", "InstanceInfoCache.save"])
        // Change marks travel in any order.
        let recorded = try VersionedObject(primitive: run.exchange.json["interface"] ?? .null)
        let made = try VersionedObject(primitive: run.conductor.calls[0].object ?? .null)
        #expect(made == recorded)
    }

    @Test func theUserMakesPortsAndTheServiceBindsThem() async throws {
        let run = try Run("create")
        _ = try await run.network.allocate(
            for: run.instance, requested: Self.requests([["network_id": Self.networkID]]), securityGroups: [],
            context: .user)
        let byUser = run.neutron.requests.filter { $0.authorization == .user(token: "user-token") }.map(\.line)
        #expect(byUser.contains("POST /v2.0/ports"))
        #expect(byUser.first == "GET /v2.0/networks?id=\(Self.networkID)")
        let byService = run.neutron.requests.filter { $0.authorization == .service }.map(\.line)
        #expect(byService.contains { $0.hasPrefix("PUT /v2.0/ports/") })
        #expect(byService.contains { $0.hasPrefix("GET /v2.0/ports?tenant_id=") })
    }

    @Test func aPortIsAttachedToARunningServer() async throws {
        let run = try Run("attach-port")
        let id = "41e88821-65bc-404a-beb0-d778919456f2"
        let info = try await run.network.allocate(
            for: run.instance, requested: Self.requests([["port_id": id]]), securityGroups: [], context: .user)
        run.expectSame()
        #expect(info.map(\.id) == [id])
        #expect(info[0].isPreservedOnDelete)
        let recorded = try VersionedObject(primitive: run.exchange.json["interface"] ?? .null)
        #expect(try VersionedObject(primitive: run.conductor.calls[0].object ?? .null) == recorded)
    }

    @Test(arguments: ["start", "shelve"]) func aServersPortsAreRefreshed(_ name: String) async throws {
        let run = try Run(name)
        let info = try await run.network.refresh(run.instance, portID: nil, context: .user)
        run.expectSame()
        #expect(info.map { $0.json.serialize() } == run.exchange.after.map { $0.serialize() })
        #expect(run.conductor.names == ["InstanceInfoCache.refresh", "InstanceInfoCache.save"])
    }

    @Test func onePortIsRefreshedAfterItsEvent() async throws {
        let run = try Run("refresh-one")
        try await run.network.refresh(
            run.instance, portID: "41e88821-65bc-404a-beb0-d778919456f2", context: .user)
        run.expectSame()
    }

    @Test func aServersPortsAreGivenUp() async throws {
        let run = try Run("delete")
        try await run.network.deallocate(for: run.instance, requested: nil, context: .user)
        run.expectSame()
        #expect(
            run.conductor.names == [
                "InstanceInfoCache.refresh", "VirtualInterface.delete_by_instance_uuid", "InstanceInfoCache.save",
            ])
    }
}
