// Neutron without its HTTP: each call becomes the request line NeutronClient would send, which a handler answers. Recorded
// exchanges or a small cloud in memory stand behind it.
import Foundation
import JSON
import Neutron
import OpenStackHTTP
import Synchronization
import Testing

final class NeutronTwin: NeutronAPI {
    struct Request: Sendable {
        var line: String
        var body: JSONValue?
        var authorization: RequestAuthorization
    }
    struct Answer: Sendable {
        var status = 200
        var json: JSONValue = .null
        var code: String?
    }
    let handler: @Sendable (Request) -> Answer
    private let log = Mutex<[Request]>([])

    init(_ handler: @escaping @Sendable (Request) -> Answer) { self.handler = handler }

    var requests: [Request] { log.withLock { $0 } }
    var lines: [String] { requests.map(\.line) }

    private func send(
        _ method: String, _ path: String, _ query: [(String, String)] = [], body: JSONValue? = nil, expecting: Int? = nil,
        as authorization: RequestAuthorization
    ) async throws -> JSONValue {
        let request = Request(
            line: "\(method) /v2.0/\(path)\(PercentEncoding.query(query))", body: body, authorization: authorization)
        log.withLock { $0.append(request) }
        await Task.yield()
        try Task.checkCancellation()
        let answer = handler(request)
        guard (200..<300).contains(answer.status) || answer.status == expecting else {
            throw ServiceFault(
                kind: .status(answer.status), request: request.line, service: "network",
                body: answer.json["NeutronError"]?["message"]?.stringValue ?? "refused", code: answer.code)
        }
        return answer.json
    }

    private func list(
        _ key: String, path: String? = nil, _ query: [(String, String)], as authorization: RequestAuthorization,
        expecting: Int? = nil
    ) async throws -> [JSONValue] {
        try await send("GET", path ?? key, query, expecting: expecting, as: authorization)[key]?.arrayValue ?? []
    }

    private func member(
        _ key: String, _ method: String, _ path: String, _ query: [(String, String)] = [], body: JSONValue? = nil,
        as authorization: RequestAuthorization
    ) async throws -> JSONValue {
        let wrapped = body.map { JSONValue.object([key: $0]) }
        return try await send(method, path, query, body: wrapped, as: authorization)[key] ?? .null
    }

    func ports(query: [(String, String)], as authorization: RequestAuthorization) async throws -> [JSONValue] {
        try await list("ports", query, as: authorization)
    }
    func port(_ id: String, fields: [String], as authorization: RequestAuthorization) async throws -> JSONValue {
        try await member("port", "GET", "ports/\(id)", fields.map { ("fields", $0) }, as: authorization)
    }
    func createPort(_ port: JSONValue, as authorization: RequestAuthorization) async throws -> JSONValue {
        try await member("port", "POST", "ports", body: port, as: authorization)
    }
    func updatePort(_ id: String, _ port: JSONValue, as authorization: RequestAuthorization) async throws -> JSONValue {
        try await member("port", "PUT", "ports/\(id)", body: port, as: authorization)
    }
    func binding(ofPort id: String, on host: String, as authorization: RequestAuthorization) async throws -> JSONValue? {
        let answer = try await send("GET", "ports/\(id)/bindings/\(host)", expecting: 404, as: authorization)
        return answer["binding"]
    }
    func activateBinding(ofPort id: String, on host: String, as authorization: RequestAuthorization) async throws {
        _ = try await send("PUT", "ports/\(id)/bindings/\(host)/activate", as: authorization)
    }
    func deletePort(_ id: String, as authorization: RequestAuthorization) async throws {
        _ = try await send("DELETE", "ports/\(id)", expecting: 404, as: authorization)
    }
    func networks(query: [(String, String)], as authorization: RequestAuthorization) async throws -> [JSONValue] {
        try await list("networks", query, as: authorization)
    }
    func network(_ id: String, fields: [String], as authorization: RequestAuthorization) async throws -> JSONValue {
        try await member("network", "GET", "networks/\(id)", fields.map { ("fields", $0) }, as: authorization)
    }
    func subnets(query: [(String, String)], as authorization: RequestAuthorization) async throws -> [JSONValue] {
        try await list("subnets", query, as: authorization)
    }
    func floatingIPs(query: [(String, String)], as authorization: RequestAuthorization) async throws -> [JSONValue] {
        try await list("floatingips", query, as: authorization, expecting: 404)
    }
    func securityGroups(query: [(String, String)], as authorization: RequestAuthorization) async throws -> [JSONValue] {
        try await list("security_groups", path: "security-groups", query, as: authorization)
    }
    func autoAllocatedTopology(of projectID: String, as authorization: RequestAuthorization) async throws -> String {
        try await member("auto_allocated_topology", "GET", "auto-allocated-topology/\(projectID)", as: authorization)["id"]?
            .stringValue ?? ""
    }
    func extensions(as authorization: RequestAuthorization) async throws -> Set<String> {
        Set(try await list("extensions", [], as: authorization).compactMap { $0["alias"]?.stringValue })
    }
}

/// One recorded operation of nova-compute: the info cache before it, its requests, the cache after it.
struct RecordedExchange {
    let json: JSONValue

    init(_ name: String) throws {
        let folder = try #require(Bundle.module.url(forResource: "Exchanges", withExtension: nil))
        json = try JSONValue.parse([UInt8](Data(contentsOf: folder.appendingPathComponent(name + ".json"))))
    }

    var before: [JSONValue] { json["before"]?.arrayValue ?? [] }
    var after: [JSONValue] { json["after"]?.arrayValue ?? [] }
    var exchanges: [JSONValue] { json["exchanges"]?.arrayValue ?? [] }
    var lines: [String] { exchanges.compactMap { $0["request"]?.stringValue } }
    var bodies: [JSONValue?] { exchanges.map { $0["body"] } }

    /// Answers what was recorded for a request, the first time with the first record of it. Extensions are in no order with
    /// the rest, because nova-compute has a cache of them across operations.
    func twin() -> NeutronTwin {
        let rest = Mutex(exchanges)
        return NeutronTwin { request in
            if request.line == "GET /v2.0/extensions" { return .init(json: ["extensions": [["alias": "multi-provider"]]]) }
            return rest.withLock { rest in
                guard let index = rest.firstIndex(where: { $0["request"]?.stringValue == request.line }) else {
                    return .init(status: 599, json: .null, code: "NotRecorded")
                }
                let exchange = rest.remove(at: index)
                return .init(status: exchange["status"]?.intValue ?? 200, json: exchange["response"] ?? .null)
            }
        }
    }
}

extension NeutronTwin {
    /// Without the requests for extensions, see `RecordedExchange.twin`.
    var linesOfRecords: [String] { lines.filter { $0 != "GET /v2.0/extensions" } }
}
