// What every client inherits from its session: addresses, headers, repetition, bounds, redirects, faults.
import JSON
import Keystone
import Logging
import NIOHTTP1
import Neutron
import OpenStackHTTP
import Testing

@Suite struct SessionTests {
    @Test func aUsersTokenGoesAlongWithTheServiceTokenAndTheRequestID() async throws {
        try await FakeCloud.with { cloud in
            cloud.service.on("GET /v2.0/ports/p1", .json(["port": ["id": "p1"]]))
            let neutron = NeutronClient(session: cloud.session("network", serviceTokens: cloud.keystone))
            try await OutgoingRequest.$globalID.withValue("req-42") {
                _ = try await neutron.port("p1", as: .user(token: "u"))
            }
            let headers = try #require(cloud.service.requests.last?.headers)
            #expect(headers.first(name: "X-Auth-Token") == "u")
            #expect(headers.first(name: "X-Service-Token") == "t1")
            #expect(headers.first(name: "X-OpenStack-Request-ID") == "req-42")
        }
    }

    @Test func aUsersRefusedTokenWithoutServiceTokenIsNotRepeated() async throws {
        try await FakeCloud.with { cloud in
            cloud.service.on("GET /v2.0/ports/p1", FakeAnswer(status: 401))
            await #expect(throws: ServiceFault.self) { try await cloud.neutron.port("p1", as: .user(token: "u")) }
            #expect(cloud.service.requests("GET /v2.0/ports/p1").count == 1)
        }
    }

    @Test func anIdThatClimbsStaysInItsSegment() async throws {
        try await FakeCloud.with { cloud in
            _ = try? await cloud.neutron.port("../networks?x=1", as: .service)
            #expect(cloud.service.requests.last?.target == "/v2.0/ports/..%2Fnetworks%3Fx%3D1")
        }
    }

    @Test func anUnknownRegionIsNotConfigured() async throws {
        try await FakeCloud.with { cloud in
            let endpoint = EndpointOptions(serviceType: "network", region: "nowhere")
            let session = ServiceSession(
                endpoint: endpoint, transport: cloud.transport, authenticator: cloud.keystone, logger: .init(label: "t")
            )
            let fault = await #expect(throws: ServiceFault.self) {
                try await session.send(ServiceRequest(.GET, "/v2.0/ports"))
            }
            #expect(fault?.kind == .notConfigured)
        }
    }

    @Test func aSlowAnswerIsUnreachableAtItsDeadline() async throws {
        try await FakeCloud.with({
            $0.requestTimeout = .milliseconds(300)
            $0.retries = 0
        }) { cloud in
            cloud.service.on("GET /v2.0/ports", FakeAnswer(delay: .seconds(5)))
            let started = ContinuousClock.now
            let fault = await #expect(throws: ServiceFault.self) {
                try await cloud.neutron.ports(query: [], as: .service)
            }
            #expect(fault?.kind == .unreachable)
            #expect(ContinuousClock.now - started < .seconds(3))
        }
    }

    @Test func aCutAnswerToAReadIsRepeated() async throws {
        try await FakeCloud.with { cloud in
            let whole = FakeAnswer.json(["ports": [["id": "p1"]]])
            var cut = whole
            cut.cutAfter = 4
            cloud.service.on("GET /v2.0/ports", cut, whole)
            let answer1 = try await cloud.neutron.ports(query: [], as: .service).count
            #expect(answer1 == 1)
            #expect(cloud.service.requests("GET /v2.0/ports").count == 2)
        }
    }

    @Test func aCutAnswerToACreationIsNotRepeated() async throws {
        try await FakeCloud.with { cloud in
            var cut = FakeAnswer.json(["port": ["id": "p1"]], status: 201)
            cut.cutAfter = 4
            cloud.service.on("POST /v2.0/ports", cut)
            let fault = await #expect(throws: ServiceFault.self) {
                try await cloud.neutron.createPort([:], as: .service)
            }
            #expect(fault?.kind == .unreachable)
            #expect(cloud.service.requests("POST /v2.0/ports").count == 1)
        }
    }

    @Test func aBodyBeyondTheLimitIsMalformed() async throws {
        try await FakeCloud.with({ $0.bodyLimit = 2048 }) { cloud in
            cloud.service.on("GET /v2.0/ports", FakeAnswer(body: Array(repeating: 0x20, count: 4096)))
            let fault = await #expect(throws: ServiceFault.self) {
                try await cloud.neutron.ports(query: [], as: .service)
            }
            #expect(fault?.kind == .malformed)
        }
    }

    @Test func aBodyThatIsNoJSONIsMalformed() async throws {
        try await FakeCloud.with { cloud in
            cloud.service.on("GET /v2.0/ports", FakeAnswer(body: Array("{\"ports\": [".utf8)))
            let fault = await #expect(throws: ServiceFault.self) {
                try await cloud.neutron.ports(query: [], as: .service)
            }
            #expect(fault?.kind == .malformed)
        }
    }

    @Test func aRedirectWithinTheOriginIsFollowed() async throws {
        try await FakeCloud.with { cloud in
            cloud.service.on("GET /v2.0/ports", FakeAnswer(status: 302, headers: [("Location", "/elsewhere")]))
            cloud.service.on("GET /elsewhere", .json(["ports": []]))
            let answer2 = try await cloud.neutron.ports(query: [], as: .service)
            #expect(answer2 == [])
        }
    }

    @Test func aRedirectToAnotherOriginDoesNotGetTheToken() async throws {
        try await FakeCloud.with { cloud in
            let other = FakeService()
            try await other.start()
            cloud.service.on(
                "GET /v2.0/ports", FakeAnswer(status: 302, headers: [("Location", other.url + "/v2.0/ports")]))
            let fault = await #expect(throws: ServiceFault.self) {
                try await cloud.neutron.ports(query: [], as: .service)
            }
            #expect(fault?.status == 302)
            #expect(other.requests.isEmpty)
            await other.stop()
        }
    }

    @Test func neutronsRefusalKeepsItsTypeAndWords() async throws {
        try await FakeCloud.with { cloud in
            cloud.service.on(
                "GET /v2.0/ports/p1",
                .json(
                    ["NeutronError": ["type": "PortNotFound", "message": "Port p1 could not be found.", "detail": ""]],
                    status: 404))
            let fault = await #expect(throws: ServiceFault.self) { try await cloud.neutron.port("p1", as: .service) }
            #expect(fault?.code == "PortNotFound")
            #expect(fault?.body == "Port p1 could not be found.")
        }
    }

    @Test func deletingAPortThatIsGoneSucceedsAndFloatingAddressesWithoutARouterAreNone() async throws {
        try await FakeCloud.with { cloud in
            try await cloud.neutron.deletePort("p1", as: .service)
            let answer3 = try await cloud.neutron.floatingIPs(query: [], as: .service)
            #expect(answer3 == [])
        }
    }

    @Test func extensionsAreAskedForOnce() async throws {
        try await FakeCloud.with { cloud in
            cloud.service.on("GET /v2.0/extensions", .json(["extensions": [["alias": "binding-extended"]]]))
            let neutron = cloud.neutron
            let answer4 = try await neutron.extensions(as: .service)
            #expect(answer4 == ["binding-extended"])
            let answer5 = try await neutron.extensions(as: .service)
            #expect(answer5 == ["binding-extended"])
            #expect(cloud.service.requests("GET /v2.0/extensions").count == 1)
        }
    }
}
