import JSON
import NIOHTTP1
// PlacementAPI over HTTP. Each request names the microversion that nova-compute uses for it (contract §6.1), because the
// shapes of the bodies depend on it.
package import OpenStackHTTP

package struct PlacementClient: PlacementAPI {
    private let session: ServiceSession

    package init(session: ServiceSession) { self.session = session }

    package func providers(inTreeOf uuid: String) async throws -> [ResourceProvider] {
        let answer = try await send(.GET, "/resource_providers", query: [("in_tree", uuid)], "1.14")
        guard let list = try answer.json()["resource_providers"]?.arrayValue else {
            throw answer.malformed("no resource_providers")
        }
        return try list.map { try Self.provider($0, answer) }
    }

    package func createProvider(uuid: String, name: String) async throws -> ResourceProvider {
        do throws(ServiceFault) {
            let body: JSONValue = ["uuid": .string(uuid), "name": .string(name)]
            let answer = try await send(.POST, "/resource_providers", body: body, "1.20")
            return try Self.provider(try answer.json(), answer)
        } catch {
            guard error.status == 409, !error.body.contains("Conflicting resource provider name:") else { throw error }
            // Someone else made this very provider meanwhile. A taken name stays a fault: another host's provider has it.
            let answer = try await send(.GET, Self.path(uuid), "1.14")
            return try Self.provider(try answer.json(), answer)
        }
    }

    package func inventories(
        of provider: String
    ) async throws -> (inventories: [String: Inventory], generation: Int) {
        let answer = try await send(.GET, Self.path(provider, "/inventories"), nil)
        let json = try answer.json()
        guard let records = json["inventories"]?.objectValue else { throw answer.malformed("no inventories") }
        return (try records.mapValues { try Self.inventory($0, answer) }, try Self.generation(json, answer))
    }

    package func setInventories(
        _ inventories: [String: Inventory], of provider: String, generation: Int
    ) async throws -> Int {
        let body: JSONValue = [
            "resource_provider_generation": .integer(Int64(generation)),
            "inventories": .object(inventories.mapValues(Self.record)),
        ]
        let answer = try await send(.PUT, Self.path(provider, "/inventories"), body: body, "1.26")
        return try Self.generation(try answer.json(), answer)
    }

    package func traits(of provider: String) async throws -> (traits: Set<String>, generation: Int) {
        let answer = try await send(.GET, Self.path(provider, "/traits"), "1.6")
        return (try Self.strings("traits", answer), try Self.generation(try answer.json(), answer))
    }

    package func setTraits(_ traits: Set<String>, of provider: String, generation: Int) async throws -> Int {
        try await createMissing(traits)
        let body: JSONValue = [
            "resource_provider_generation": .integer(Int64(generation)),
            "traits": .array(traits.sorted().map { .string($0) }),
        ]
        let answer = try await send(.PUT, Self.path(provider, "/traits"), body: body, "1.6")
        return try Self.generation(try answer.json(), answer)
    }

    private func createMissing(_ traits: Set<String>) async throws {
        guard !traits.isEmpty else { return }
        let names = "in:" + traits.sorted().joined(separator: ",")
        let known = try Self.strings("traits", try await send(.GET, "/traits", query: [("name", names)], "1.6"))
        for trait in traits.subtracting(known).sorted() {
            _ = try await send(.PUT, "/traits/" + PercentEncoding.segment(trait), "1.6")
        }
    }

    package func aggregates(of provider: String) async throws -> (aggregates: Set<String>, generation: Int) {
        let answer = try await send(.GET, Self.path(provider, "/aggregates"), "1.19")
        return (try Self.strings("aggregates", answer), try Self.generation(try answer.json(), answer))
    }

    package func allocations(onProvider provider: String) async throws -> [String: [String: Int]] {
        let answer = try await send(.GET, Self.path(provider, "/allocations"), nil)
        guard let consumers = try answer.json()["allocations"]?.objectValue else {
            throw answer.malformed("no allocations")
        }
        return try consumers.mapValues { try Self.resources($0, answer) }
    }

    package func allocations(ofConsumer consumer: String) async throws -> Allocations {
        let answer = try await send(.GET, "/allocations/" + PercentEncoding.segment(consumer), "1.28")
        let json = try answer.json()
        guard let providers = json["allocations"]?.objectValue else { throw answer.malformed("no allocations") }
        return Allocations(
            byProvider: try providers.mapValues { try Self.resources($0, answer) },
            projectID: json["project_id"]?.stringValue, userID: json["user_id"]?.stringValue,
            consumerGeneration: json["consumer_generation"]?.intValue)
    }

    package func setAllocations(_ allocations: Allocations, ofConsumer consumer: String) async throws {
        try await write(.PUT, "/allocations/" + PercentEncoding.segment(consumer), Self.record(allocations))
    }

    package func setAllocations(_ byConsumer: [String: Allocations]) async throws {
        try await write(.POST, "/allocations", .object(byConsumer.mapValues(Self.record)))
    }

    private func write(_ method: HTTPMethod, _ path: String, _ body: JSONValue) async throws {
        for attempt in 1... {
            do throws(ServiceFault) {
                _ = try await send(method, path, body: body, "1.28")
                return
            } catch {
                // Another writer changed the provider: the same request is right a moment later. A changed consumer is not
                // ours to overwrite.
                guard error.code == "placement.concurrent_update", attempt < 4,
                    !error.body.contains("consumer generation conflict")
                else { throw error }
            }
            try await Task.sleep(for: .milliseconds(Int.random(in: 0...2000 * attempt)))
        }
    }

    package func deleteAllocations(ofConsumer consumer: String) async throws {
        _ = try await send(.DELETE, "/allocations/" + PercentEncoding.segment(consumer), nil, expecting: [404])
    }

    package func deleteProvider(_ uuid: String) async throws {
        _ = try await send(.DELETE, Self.path(uuid), nil)
    }

    private func send(
        _ method: HTTPMethod, _ path: String, query: [(String, String)] = [], body: JSONValue? = nil,
        _ version: String?,
        expecting: Set<Int> = []
    ) async throws(ServiceFault) -> ServiceAnswer {
        try await session.send(
            ServiceRequest(
                method, path, query: query, body: body, microversion: version.map { "placement " + $0 },
                expecting: expecting))
    }

    private static func path(_ provider: String, _ rest: String = "") -> String {
        "/resource_providers/" + PercentEncoding.segment(provider) + rest
    }
}
