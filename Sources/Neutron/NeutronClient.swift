// NeutronAPI over HTTP (contract §7.2). Records stay JSON; this file knows paths, envelopes and which 404 is no error.
package import JSON
import NIOHTTP1
package import OpenStackHTTP
import Synchronization

package final class NeutronClient: NeutronAPI {
    private let session: ServiceSession
    private let extensionInterval: Duration
    private let cachedExtensions = Mutex<(aliases: Set<String>, until: ContinuousClock.Instant)?>(nil)

    /// `extensionInterval` is `[neutron] extension_sync_interval`.
    package init(session: ServiceSession, extensionInterval: Duration = .seconds(600)) {
        self.session = session
        self.extensionInterval = extensionInterval
    }

    package func ports(
        query: [(String, String)], as authorization: RequestAuthorization
    ) async throws -> [JSONValue] {
        try await list("ports", query, authorization)
    }

    package func port(
        _ id: String, fields: [String], as authorization: RequestAuthorization
    ) async throws -> JSONValue {
        try await member("port", .GET, Self.path("ports", id), query: fields.map { ("fields", $0) }, authorization)
    }

    package func createPort(_ port: JSONValue, as authorization: RequestAuthorization) async throws -> JSONValue {
        try await member("port", .POST, "/v2.0/ports", body: port, authorization)
    }

    package func updatePort(
        _ id: String, _ port: JSONValue, as authorization: RequestAuthorization
    ) async throws -> JSONValue {
        try await member("port", .PUT, Self.path("ports", id), body: port, authorization)
    }

    package func binding(
        ofPort id: String, on host: String, as authorization: RequestAuthorization
    ) async throws -> JSONValue? {
        let answer = try await session.send(
            ServiceRequest(.GET, Self.binding(id, host), authorization: authorization, expecting: [404]))
        if answer.status == 404 { return nil }
        guard let record = try answer.json()["binding"], record.objectValue != nil else {
            throw answer.malformed("no object binding")
        }
        return record
    }

    package func activateBinding(
        ofPort id: String, on host: String, as authorization: RequestAuthorization
    ) async throws {
        _ = try await session.send(
            ServiceRequest(.PUT, Self.binding(id, host) + "/activate", authorization: authorization))
    }

    package func deletePort(_ id: String, as authorization: RequestAuthorization) async throws {
        _ = try await session.send(
            ServiceRequest(.DELETE, Self.path("ports", id), authorization: authorization, expecting: [404]))
    }

    package func networks(
        query: [(String, String)], as authorization: RequestAuthorization
    ) async throws -> [JSONValue] {
        try await list("networks", query, authorization)
    }

    package func network(
        _ id: String, fields: [String], as authorization: RequestAuthorization
    ) async throws -> JSONValue {
        try await member(
            "network", .GET, Self.path("networks", id), query: fields.map { ("fields", $0) }, authorization)
    }

    package func subnets(
        query: [(String, String)], as authorization: RequestAuthorization
    ) async throws -> [JSONValue] {
        try await list("subnets", query, authorization)
    }

    package func floatingIPs(
        query: [(String, String)], as authorization: RequestAuthorization
    ) async throws -> [JSONValue] {
        // Without a router plugin there is no such resource, hence no floating address.
        try await list("floatingips", query, authorization, expecting: [404])
    }

    package func securityGroups(
        query: [(String, String)], as authorization: RequestAuthorization
    ) async throws -> [JSONValue] {
        try await list("security_groups", path: "security-groups", query, authorization)
    }

    package func autoAllocatedTopology(
        of projectID: String, as authorization: RequestAuthorization
    ) async throws -> String {
        let answer = try await session.send(
            ServiceRequest(
                .GET, Self.path("auto-allocated-topology", projectID), authorization: authorization))
        guard let id = try answer.json()["auto_allocated_topology"]?["id"]?.stringValue else {
            throw answer.malformed("no auto_allocated_topology with an id")
        }
        return id
    }

    package func extensions(as authorization: RequestAuthorization) async throws -> Set<String> {
        if let cached = cachedExtensions.withLock({ $0 }), ContinuousClock.now < cached.until { return cached.aliases }
        let records = try await list("extensions", [], authorization)
        let aliases = Set(records.compactMap { $0["alias"]?.stringValue })
        let until = ContinuousClock.now + extensionInterval
        cachedExtensions.withLock { $0 = (aliases, until) }
        return aliases
    }

    private func list(
        _ key: String, path: String? = nil, _ query: [(String, String)], _ authorization: RequestAuthorization,
        expecting: Set<Int> = []
    ) async throws(ServiceFault) -> [JSONValue] {
        let answer = try await session.send(
            ServiceRequest(
                .GET, "/v2.0/" + (path ?? key), query: query, authorization: authorization, expecting: expecting))
        if answer.status == 404 { return [] }
        guard let list = try answer.json()[key]?.arrayValue else { throw answer.malformed("no list \(key)") }
        return list
    }

    private func member(
        _ key: String, _ method: HTTPMethod, _ path: String, query: [(String, String)] = [], body: JSONValue? = nil,
        _ authorization: RequestAuthorization
    ) async throws(ServiceFault) -> JSONValue {
        let answer = try await session.send(
            ServiceRequest(
                method, path, query: query, body: body.map { .object([key: $0]) }, authorization: authorization))
        guard let record = try answer.json()[key], record.objectValue != nil else {
            throw answer.malformed("no object \(key)")
        }
        return record
    }

    private static func binding(_ port: String, _ host: String) -> String {
        path("ports", port) + "/bindings/" + PercentEncoding.segment(host)
    }

    private static func path(_ collection: String, _ id: String) -> String {
        "/v2.0/\(collection)/" + PercentEncoding.segment(id)
    }
}
