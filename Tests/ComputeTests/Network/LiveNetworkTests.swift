// Against a real Neutron: a port for an instance that is made up, bound, described, refreshed and deleted. Needs a control
// plane named by APUS_LAB_AUTH_URL, APUS_LAB_USERNAME, APUS_LAB_PASSWORD, APUS_LAB_PROJECT_NAME and, where it has several
// regions, APUS_LAB_REGION_NAME; the network is APUS_LAB_NETWORK_NAME, lab-net where unset.
import Foundation
import JSON
import Keystone
import Logging
import Neutron
import NovaObjects
import OpenStackHTTP
import OsloMessaging
import Testing

@testable import Compute

@Suite(.enabled(if: ProcessInfo.processInfo.environment["APUS_LAB_AUTH_URL"] != nil))
struct LiveNetworkTests {
    private static var environment: [String: String] { ProcessInfo.processInfo.environment }

    private static func withNeutron(_ body: (NeutronClient) async throws -> Void) async throws {
        let transport = try HTTPTransport(TransportOptions())
        let keystone = KeystoneAuthenticator(
            credentials: Credentials(
                authURL: environment["APUS_LAB_AUTH_URL"] ?? "", username: environment["APUS_LAB_USERNAME"],
                password: environment["APUS_LAB_PASSWORD"] ?? "", userDomainName: "Default",
                projectName: environment["APUS_LAB_PROJECT_NAME"], projectDomainName: "Default"),
            transport: transport, logger: Logger(label: "test"))
        let session = ServiceSession(
            endpoint: EndpointOptions(serviceType: "network", region: environment["APUS_LAB_REGION_NAME"]),
            transport: transport, authenticator: keystone, logger: Logger(label: "test"))
        let outcome: Result<Void, any Error>
        do { outcome = .success(try await body(NeutronClient(session: session))) } catch { outcome = .failure(error) }
        await transport.shutdown()
        try outcome.get()
    }

    @Test(.timeLimit(.minutes(2))) func aPortIsMadeDescribedAndDeleted() async throws {
        try await Self.withNeutron { neutron in
            let name = Self.environment["APUS_LAB_NETWORK_NAME"] ?? "lab-net"
            let record = try #require(try await neutron.networks(query: [("name", name)], as: .service).first)
            let networkID = try #require(record["id"]?.stringValue)
            var instance = Instance.sample()
            instance.object.load("uuid", .string(UUID().uuidString.lowercased()))
            instance.object.load("project_id", record["project_id"] ?? .null)
            let conductor = ConductorTwin()
            // A host no agent runs on binds to nothing, which is a refusal too: what it leaves is looked at below.
            let host = Self.environment["APUS_LAB_HOST"] ?? "no-such-host"
            let network = NeutronNetwork(
                neutron: neutron, conductor: conductor.conductor, options: .init(host: host), logger: Logger(label: "test"))
            var request = NetworkRequest(in: .zed)
            request.set("network_id", to: networkID)
            let admin = RequestContext(entries: ["request_id": "req-live", "is_admin": true])
            let left: [JSONValue]
            do {
                let info = try await network.allocate(
                    for: instance, requested: NetworkRequestList([request], in: .zed), securityGroups: [], context: admin)
                #expect(info.count == 1)
                let vif = try #require(info.first)
                #expect(vif.label == name)
                #expect(vif.fixedIPs.count >= 1)
                #expect(vif.address.count == 17)
                #expect(vif.bridge?.hasPrefix("brq") ?? true)
                #expect(conductor.networkInfo == info.map(\.json))
                let again = try await network.refresh(instance, portID: vif.id, context: admin)
                #expect(again.map(\.id) == [vif.id])
                try await network.deallocate(for: instance, requested: nil, context: admin)
                #expect(conductor.networkInfo == [])
            } catch let error as NovaException where error.className == "PortBindingFailed" {
                #expect(host == "no-such-host")
            }
            left = try await neutron.ports(query: [("device_id", instance.uuid)], as: .service)
            #expect(left.isEmpty)
        }
    }
}
