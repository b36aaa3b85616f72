// Placement's conflicts and microversions.
import JSON
import NIOHTTP1
import OpenStackHTTP
import Placement
import Testing

@Suite struct PlacementTests {
    private let uuid = "6f6d7c5e-0000-4000-8000-000000000001"

    private func conflict(_ detail: String, code: String = "placement.undefined_code") -> FakeAnswer {
        .json(
            [
                "errors": [
                    [
                        "status": 409, "title": "Conflict", "detail": .string(detail), "code": .string(code),
                        "request_id": "req-9",
                    ]
                ]
            ],
            status: 409)
    }

    @Test func eachRequestNamesItsMicroversionOrNone() async throws {
        try await FakeCloud.with { cloud in
            let generation: JSONValue = ["inventories": [:], "resource_provider_generation": 3]
            cloud.service.on("GET /resource_providers", .json(["resource_providers": []]))
            cloud.service.on("GET /resource_providers/\(uuid)/inventories", .json(generation))
            cloud.service.on("PUT /resource_providers/\(uuid)/inventories", .json(generation))
            let answer1 = try await cloud.placement.providers(inTreeOf: uuid)
            #expect(answer1 == [])
            let answer2 = try await cloud.placement.inventories(of: uuid).generation
            #expect(answer2 == 3)
            let inventory = Inventory(total: 4, reserved: 0, maxUnit: 4, allocationRatio: 16)
            let answer3 = try await cloud.placement.setInventories(["VCPU": inventory], of: uuid, generation: 2)
            #expect(answer3 == 3)
            let versions = cloud.service.requests.dropFirst().map { $0.headers.first(name: "OpenStack-API-Version") }
            #expect(versions == ["placement 1.14", nil, "placement 1.26"])
            #expect(cloud.service.requests.last?.json?["inventories"]?["VCPU"]?["allocation_ratio"]?.doubleValue == 16)
        }
    }

    @Test func aProviderThatExistsMeanwhileIsRead() async throws {
        try await FakeCloud.with { cloud in
            cloud.service.on("POST /resource_providers", conflict("Conflicting resource provider already exists"))
            cloud.service.on(
                "GET /resource_providers/\(uuid)", .json(["uuid": .string(uuid), "name": "h", "generation": 7]))
            let answer4 = try await cloud.placement.createProvider(uuid: uuid, name: "h").generation
            #expect(answer4 == 7)
        }
    }

    @Test func aNameTakenByAnotherProviderIsAFault() async throws {
        try await FakeCloud.with { cloud in
            cloud.service.on(
                "POST /resource_providers", conflict("Conflicting resource provider name: h already exists."))
            let fault = await #expect(throws: ServiceFault.self) {
                try await cloud.placement.createProvider(uuid: uuid, name: "h")
            }
            #expect(fault?.status == 409)
            #expect(fault?.requestID == "req-9")
        }
    }

    @Test func inventoryInUseSurfacesItsCode() async throws {
        try await FakeCloud.with { cloud in
            cloud.service.on(
                "PUT /resource_providers/\(uuid)/inventories", conflict("in use", code: "placement.inventory.inuse"))
            let fault = await #expect(throws: ServiceFault.self) {
                try await cloud.placement.setInventories([:], of: uuid, generation: 1)
            }
            #expect(fault?.code == "placement.inventory.inuse")
        }
    }

    @Test func onlyUnknownTraitsAreCreated() async throws {
        try await FakeCloud.with { cloud in
            cloud.service.on("GET /traits", .json(["traits": ["COMPUTE_NODE"]]))
            cloud.service.on("PUT /traits/CUSTOM_A", FakeAnswer(status: 201))
            cloud.service.on(
                "PUT /resource_providers/\(uuid)/traits", .json(["traits": [], "resource_provider_generation": 2]))
            let answer5 = try await cloud.placement.setTraits(["COMPUTE_NODE", "CUSTOM_A"], of: uuid, generation: 1)
            #expect(answer5 == 2)
            #expect(cloud.service.requests.map(\.target).filter { $0.hasPrefix("/traits/") } == ["/traits/CUSTOM_A"])
            #expect(cloud.service.requests("GET /traits").first?.target == "/traits?name=in%3ACOMPUTE_NODE%2CCUSTOM_A")
        }
    }

    @Test func aConcurrentProviderUpdateIsRepeatedAndAConsumerConflictIsNot() async throws {
        try await FakeCloud.with { cloud in
            let route = "PUT /allocations/\(uuid)"
            let allocations = Allocations(byProvider: [:], projectID: "p", userID: "u", consumerGeneration: nil)
            cloud.service.on(
                route, conflict("generation conflict", code: "placement.concurrent_update"), FakeAnswer(status: 204))
            try await cloud.placement.setAllocations(allocations, ofConsumer: uuid)
            #expect(cloud.service.requests(route).count == 2)
            #expect(cloud.service.requests(route).first?.json?["consumer_generation"] == .null)
            cloud.service.on(
                route, conflict("consumer generation conflict - expected 1", code: "placement.concurrent_update"))
            await #expect(throws: ServiceFault.self) {
                try await cloud.placement.setAllocations(allocations, ofConsumer: uuid)
            }
            #expect(cloud.service.requests(route).count == 3)
        }
    }

    @Test func aMoveBetweenConsumersIsOneRequest() async throws {
        try await FakeCloud.with { cloud in
            cloud.service.on(
                "POST /allocations", conflict("generation conflict", code: "placement.concurrent_update"), FakeAnswer(status: 204))
            let held = Allocations(byProvider: [uuid: ["VCPU": 1]], projectID: "p", userID: "u", consumerGeneration: 3)
            let none = Allocations(byProvider: [:], projectID: "p", userID: "u", consumerGeneration: 1)
            try await cloud.placement.setAllocations(["migration": none, "instance": held])
            let requests = cloud.service.requests("POST /allocations")
            #expect(requests.count == 2)
            #expect(
                requests.last?.json == [
                    "migration": ["allocations": [:], "project_id": "p", "user_id": "u", "consumer_generation": 1],
                    "instance": [
                        "allocations": .object([uuid: ["resources": ["VCPU": 1]]]), "project_id": "p", "user_id": "u",
                        "consumer_generation": 3,
                    ],
                ])
        }
    }

    @Test func droppingAllocationsOfAnUnknownConsumerSucceeds() async throws {
        try await FakeCloud.with { cloud in try await cloud.placement.deleteAllocations(ofConsumer: uuid) }
    }
}
