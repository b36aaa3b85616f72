// Tokens: what is asked, how often, and what a refusal does.
import JSON
import Keystone
import NIOHTTP1
import Neutron
import OpenStackHTTP
import Testing

@Suite struct KeystoneTests {
    @Test func theRequestNamesUserProjectAndTheirDomains() async throws {
        try await FakeCloud.with { cloud in
            _ = try await cloud.keystone.token()
            let auth = try #require(cloud.service.requests.first?.json?["auth"])
            let user = auth["identity"]?["password"]?["user"]
            #expect(user == ["name": "nova", "password": "hush", "domain": ["name": "Default"]])
            #expect(auth["scope"] == ["project": ["name": "service", "domain": ["id": "default"]]])
            #expect(cloud.service.requests.first?.headers.contains(name: "X-Auth-Token") == false)
        }
    }

    @Test func tenWaitersShareOneRequest() async throws {
        try await FakeCloud.with { cloud in
            cloud.service.on(FakeCloud.tokenRoute, cloud.tokenAnswer("t1", delay: .milliseconds(200)))
            try await withThrowingTaskGroup(of: String.self) { group in
                for _ in 0..<10 { group.addTask { try await cloud.keystone.token().value } }
                for try await token in group { #expect(token == "t1") }
            }
            #expect(cloud.service.requests.count == 1)
        }
    }

    @Test func aTokenNearItsEndIsReplaced() async throws {
        try await FakeCloud.with { cloud in
            // One second of life: a quarter is kept back, so it is old after 0.75 s.
            cloud.service.on(
                FakeCloud.tokenRoute, cloud.tokenAnswer("t1", lifetime: "00:00:01"), cloud.tokenAnswer("t2"))
            let answer1 = try await cloud.keystone.token().value
            #expect(answer1 == "t1")
            let deadline = ContinuousClock.now + .seconds(60)
            var token = "t1"
            while token == "t1", ContinuousClock.now < deadline {
                try await Task.sleep(for: .milliseconds(50))
                token = try await cloud.keystone.token().value
            }
            #expect(token == "t2")
        }
    }

    @Test func aRefusedTokenIsReplacedOnceAndTheRequestRepeated() async throws {
        try await FakeCloud.with { cloud in
            cloud.service.on(FakeCloud.tokenRoute, cloud.tokenAnswer("t1"), cloud.tokenAnswer("t2"))
            cloud.service.on("GET /v2.0/ports", FakeAnswer(status: 401), .json(["ports": []]))
            let answer2 = try await cloud.neutron.ports(query: [], as: .service)
            #expect(answer2 == [])
            let tokens = cloud.service.requests("GET /v2.0/ports").map { $0.headers.first(name: "X-Auth-Token") }
            #expect(tokens == ["t1", "t2"])
        }
    }

    @Test func aServiceThatKeepsRefusingIsAskedTwice() async throws {
        try await FakeCloud.with { cloud in
            cloud.service.on("GET /v2.0/ports", FakeAnswer(status: 401))
            let fault = await #expect(throws: ServiceFault.self) {
                try await cloud.neutron.ports(query: [], as: .service)
            }
            #expect(fault?.status == 401)
            #expect(cloud.service.requests("GET /v2.0/ports").count == 2)
        }
    }

    @Test func aWrongPasswordIsAFaultWithKeystonesWordsAndWithoutThePassword() async throws {
        try await FakeCloud.with { cloud in
            cloud.service.on(
                FakeCloud.tokenRoute,
                .json(
                    [
                        "error": [
                            "code": 401, "message": "The request requires authentication.", "title": "Unauthorized",
                        ]
                    ],
                    status: 401, headers: [("x-openstack-request-id", "req-7")]))
            let fault = await #expect(throws: ServiceFault.self) { try await cloud.keystone.token() }
            #expect(fault?.status == 401)
            #expect(fault?.code == "Unauthorized")
            #expect(fault?.requestID == "req-7")
            #expect(fault.map { "\($0)".contains("hush") } == false)
            #expect(cloud.service.requests.count == 1)
        }
    }

    @Test func credentialsPrintWithoutTheirPassword() {
        let credentials = Credentials(authURL: "http://k", username: "nova", password: "hush")
        var dumped = ""
        dump(credentials, to: &dumped)
        #expect(!"\(credentials) \(String(reflecting: credentials)) \(dumped)".contains("hush"))
    }
}
