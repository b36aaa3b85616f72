// The same clients against a real control plane, where the environment names one: APUS_LAB_AUTH_URL, APUS_LAB_USERNAME,
// APUS_LAB_PASSWORD, APUS_LAB_PROJECT_NAME, APUS_LAB_REGION_NAME. They leave nothing behind.
import Foundation
import Glance
import JSON
import Keystone
import Logging
import NIOHTTP1
import Neutron
import OpenStackHTTP
import Placement
import Testing

@Suite(.enabled(if: LiveCloud.isNamed, "APUS_LAB_AUTH_URL names no control plane"), .serialized)
struct LiveCloudTests {
    @Test func aTokenIsObtainedAndHeld() async throws {
        try await LiveCloud.with { cloud in
            let token = try await cloud.keystone.token()
            let answer1 = try await cloud.keystone.token().value
            #expect(answer1 == token.value)
            for type in ["placement", "network", "image"] {
                #expect(token.catalogue.endpoints.contains { $0.serviceType == type })
            }
        }
    }

    @Test func aProviderLivesThroughItsCycle() async throws {
        try await LiveCloud.with { cloud in
            let placement = PlacementClient(session: cloud.session("placement"))
            let uuid = UUID().uuidString.lowercased()
            let answer2 = try await placement.providers(inTreeOf: uuid)
            #expect(answer2 == [])
            let provider = try await placement.createProvider(uuid: uuid, name: "apus-test-\(uuid)")
            let outcome: Result<Void, any Error>
            do {
                let inventory = Inventory(total: 4, reserved: 1, maxUnit: 4, allocationRatio: 16)
                var generation = try await placement.setInventories(
                    ["VCPU": inventory], of: uuid, generation: provider.generation)
                let answer3 = try await placement.inventories(of: uuid).inventories
                #expect(answer3 == ["VCPU": inventory])
                generation = try await placement.setTraits(["COMPUTE_NODE"], of: uuid, generation: generation)
                let answer4 = try await placement.traits(of: uuid).traits
                #expect(answer4 == ["COMPUTE_NODE"])
                let answer5 = try await placement.aggregates(of: uuid).aggregates
                #expect(answer5 == [])
                let answer6 = try await placement.allocations(onProvider: uuid)
                #expect(answer6 == [:])
                let consumer = UUID().uuidString.lowercased()
                let claim = Allocations(byProvider: [uuid: ["VCPU": 1]], projectID: "p", userID: "u")
                try await placement.setAllocations(claim, ofConsumer: consumer)
                let answer7 = try await placement.allocations(ofConsumer: consumer).byProvider
                #expect(answer7 == claim.byProvider)
                let answer8 = try await placement.allocations(onProvider: uuid)
                #expect(answer8 == [consumer: ["VCPU": 1]])
                let inUse = await #expect(throws: ServiceFault.self) {
                    let now = try await placement.inventories(of: uuid).generation
                    _ = try await placement.setInventories([:], of: uuid, generation: now)
                }
                #expect(inUse?.code == "placement.inventory.inuse")
                try await placement.deleteAllocations(ofConsumer: consumer)
                try await placement.deleteAllocations(ofConsumer: consumer)
                let stale = await #expect(throws: ServiceFault.self) {
                    _ = try await placement.setTraits([], of: uuid, generation: generation - 1)
                }
                // Placement writes codes from microversion 1.23 on; traits are at 1.6, so the status alone tells.
                #expect(stale?.status == 409)
                outcome = .success(())
            } catch {
                outcome = .failure(error)
            }
            try await placement.deleteProvider(uuid)
            let answer9 = try await placement.providers(inTreeOf: uuid)
            #expect(answer9 == [])
            try outcome.get()
        }
    }

    @Test func portsNetworksAndExtensionsAreListed() async throws {
        try await LiveCloud.with { cloud in
            let neutron = NeutronClient(session: cloud.session("network"))
            _ = try await neutron.ports(query: [("device_id", UUID().uuidString.lowercased())], as: .service)
            let networks = try await neutron.networks(query: [], as: .service)
            let id = try #require(networks.first?["id"]?.stringValue)
            let fields = ["id", "provider:network_type"]
            let answer10 = try await neutron.network(id, fields: fields, as: .service)["id"]?.stringValue
            #expect(answer10 == id)
            _ = try await neutron.subnets(query: [("network_id", id)], as: .service)
            _ = try await neutron.floatingIPs(query: [("fixed_ip_address", "192.0.2.1")], as: .service)
            let extensions = try await neutron.extensions(as: .service)
            #expect(extensions.contains("binding"))
            // A cloud without security groups has no such resource.
            if extensions.contains("security-group") {
                _ = try await neutron.securityGroups(query: [("fields", "id")], as: .service)
            }
            let gone = await #expect(throws: ServiceFault.self) {
                try await neutron.port(UUID().uuidString.lowercased(), as: .service)
            }
            #expect(gone?.code == "PortNotFound")
        }
    }

    @Test func anImageIsDownloadedAndVerified() async throws {
        try await LiveCloud.with { cloud in
            let session = cloud.session("image")
            let name = ProcessInfo.processInfo.environment["APUS_LAB_IMAGE_NAME"] ?? "lab-image"
            let list = try await session.send(ServiceRequest(.GET, "/v2/images", query: [("name", name)])).json()
            let id = try #require(list["images"]?.arrayValue?.first?["id"]?.stringValue)
            let glance = GlanceClient(session: session)
            let image = try await glance.image(id, as: .service)
            #expect(image["os_hash_algo"]?.stringValue != nil)
            let (count, file) = try await FakeCloud.withScratchFile {
                try await glance.download(image, to: $0, as: .service)
            }
            #expect(Int(count) == image["size"]?.intValue)
            #expect(file.count == Int(count))
        }
    }
}

struct LiveCloud {
    let keystone: KeystoneAuthenticator
    let transport: HTTPTransport

    static var environment: [String: String] { ProcessInfo.processInfo.environment }
    static var isNamed: Bool { environment["APUS_LAB_AUTH_URL"] != nil }

    func session(_ type: String) -> ServiceSession {
        ServiceSession(
            endpoint: EndpointOptions(serviceType: type, region: Self.environment["APUS_LAB_REGION_NAME"]),
            transport: transport, authenticator: keystone, logger: Logger(label: "test"))
    }

    static func with(_ body: (LiveCloud) async throws -> Void) async throws {
        let transport = try HTTPTransport(TransportOptions())
        let credentials = Credentials(
            authURL: environment["APUS_LAB_AUTH_URL"] ?? "", username: environment["APUS_LAB_USERNAME"],
            password: environment["APUS_LAB_PASSWORD"] ?? "", userDomainName: "Default",
            projectName: environment["APUS_LAB_PROJECT_NAME"], projectDomainName: "Default")
        let keystone = KeystoneAuthenticator(
            credentials: credentials, transport: transport, logger: Logger(label: "test"))
        let outcome: Result<Void, any Error>
        do {
            outcome = .success(try await body(LiveCloud(keystone: keystone, transport: transport)))
        } catch {
            outcome = .failure(error)
        }
        await transport.shutdown()
        try outcome.get()
    }
}
