// One fake server that is all services at once, and clients of it.
import Foundation
import Glance
import JSON
import Keystone
import Logging
import Neutron
import OpenStackHTTP
import Placement

struct FakeCloud: Sendable {
    let service: FakeService
    let transport: HTTPTransport
    let keystone: KeystoneAuthenticator

    static let tokenRoute = "POST /v3/auth/tokens"

    func session(_ type: String, retriesUnavailable: Bool = false, serviceTokens: (any Authenticator)? = nil)
        -> ServiceSession
    {
        ServiceSession(
            endpoint: EndpointOptions(serviceType: type, region: "R1", retriesUnavailable: retriesUnavailable),
            transport: transport, authenticator: keystone, serviceTokens: serviceTokens, logger: Logger(label: "test"))
    }
    var placement: PlacementClient { PlacementClient(session: session("placement")) }
    var neutron: NeutronClient { NeutronClient(session: session("network")) }
    var glance: GlanceClient { GlanceClient(session: session("image", retriesUnavailable: true)) }

    func tokenAnswer(_ token: String, lifetime: String = "01:00:00", delay: Duration = .zero) -> FakeAnswer {
        let catalog: [JSONValue] = ["placement", "network", "image"].map { type in
            [
                "type": .string(type),
                "endpoints": [
                    ["interface": "public", "region_id": "R2", "url": "http://127.0.0.1:1"],
                    ["interface": "internal", "region_id": "R1", "url": .string(service.url + "/")],
                ],
            ]
        }
        let times: JSONValue = [
            "issued_at": "2026-02-28T00:00:00.000000Z", "expires_at": .string("2026-02-28T\(lifetime).000000Z"),
            "catalog": .array(catalog),
        ]
        var answer = FakeAnswer.json(["token": times], status: 201, headers: [("X-Subject-Token", token)])
        answer.delay = delay
        return answer
    }

    static func with(
        _ change: (inout TransportOptions) -> Void = { _ in }, _ body: (FakeCloud) async throws -> Void
    ) async throws {
        var options = TransportOptions()
        options.retries = 1
        options.retryDelay = .milliseconds(1)
        options.requestTimeout = .seconds(10)
        change(&options)
        let service = FakeService()
        try await service.start()
        let transport = try HTTPTransport(options)
        let credentials = Credentials(
            authURL: service.url, username: "nova", password: "hush", userDomainName: "Default", projectName: "service",
            projectDomainID: "default")
        let keystone = KeystoneAuthenticator(
            credentials: credentials, transport: transport, logger: Logger(label: "test"))
        let cloud = FakeCloud(service: service, transport: transport, keystone: keystone)
        service.on(tokenRoute, cloud.tokenAnswer("t1"))
        let outcome: Result<Void, any Error>
        do { outcome = .success(try await body(cloud)) } catch { outcome = .failure(error) }
        await transport.shutdown()
        await service.stop()
        try outcome.get()
    }

    /// An open file that is gone when the test is.
    static func withScratchFile<Value>(_ body: (CInt) async throws -> Value) async throws -> (Value, [UInt8]) {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("apus-\(UUID().uuidString)").path
        let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL, 0o600)
        defer {
            close(descriptor)
            unlink(path)
        }
        let value = try await body(descriptor)
        return (value, Array(try Data(contentsOf: URL(fileURLWithPath: path))))
    }
}
