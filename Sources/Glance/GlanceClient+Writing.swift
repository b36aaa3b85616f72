// What snapshots ask of Glance (contract §8.3): the record's fields, its data, its end, and lists of backups.
package import JSON
import NIOHTTP1
package import OpenStackHTTP

extension GlanceClient {
    package func update(_ id: String, fields: [String: JSONValue], as authorization: RequestAuthorization) async throws {
        // By this media type's rules "add" replaces what is there.
        let patch = fields.sorted { $0.key < $1.key }.map { name, value -> JSONValue in
            ["op": "add", "path": .string("/" + Self.pointer(name)), "value": value]
        }
        var request = ServiceRequest(
            .PATCH, "/v2/images/" + PercentEncoding.segment(id), body: .array(patch), authorization: authorization)
        request.bodyType = "application/openstack-images-v2.1-json-patch"
        request.isIdempotent = true
        _ = try await session.send(request)
    }

    /// A name as a reference token (RFC 6901 §3).
    private static func pointer(_ name: String) -> String {
        name.split(separator: "~", omittingEmptySubsequences: false).joined(separator: "~0")
            .split(separator: "/", omittingEmptySubsequences: false).joined(separator: "~1")
    }

    package func upload(
        _ id: String, from descriptor: CInt, byteCount: Int64, as authorization: RequestAuthorization
    ) async throws {
        var request = ServiceRequest(.PUT, "/v2/images/\(PercentEncoding.segment(id))/file", authorization: authorization)
        request.file = FileBody(descriptor: descriptor, byteCount: byteCount)
        // A second one meets an image that is being saved and is refused.
        request.isIdempotent = false
        try await session.upload(request)
    }

    package func delete(_ id: String, as authorization: RequestAuthorization) async throws {
        _ = try await session.send(
            ServiceRequest(.DELETE, "/v2/images/" + PercentEncoding.segment(id), authorization: authorization, expecting: [404]))
    }

    package func images(
        where filters: [(String, String)], as authorization: RequestAuthorization
    ) async throws -> [JSONValue] {
        var images: [JSONValue] = []
        var marker: String?
        repeat {
            let query = filters + [("sort_key", "created_at"), ("sort_dir", "desc"), ("limit", "100")]
            let answer = try await session.send(
                ServiceRequest(
                    .GET, "/v2/images", query: query + (marker.map { [("marker", $0)] } ?? []), authorization: authorization))
            let page = try answer.json()["images"]?.arrayValue ?? []
            images += page
            marker = page.count == 100 ? page.last?["id"]?.stringValue : nil
        } while marker != nil && images.count < Self.imageListLimit
        return images
    }

    /// Nobody keeps more backups of one server; more would be a mistake of the service's.
    private static let imageListLimit = 10_000
}
