// The Glance requests a compute service makes (contract §8.1).
package import JSON
package import OpenStackHTTP

/// Every method throws `ServiceFault`.
package protocol GlanceAPI: Sendable {
    /// GET /v2/images/<id>.
    func image(_ id: String, as authorization: RequestAuthorization) async throws -> JSONValue
    /// Streams the image's data to `descriptor` (owned by the caller, written from its current offset), verifying
    /// os_hash_value or checksum of `image` on the way. Returns the byte count. A mismatch throws `ImageCorrupt`.
    func download(
        _ image: JSONValue, to descriptor: CInt, as authorization: RequestAuthorization
    ) async throws -> Int64
    /// PATCH /v2/images/<id>: each of `fields`, a property of its own or one of Glance's, gets its value.
    func update(_ id: String, fields: [String: JSONValue], as authorization: RequestAuthorization) async throws
    /// PUT /v2/images/<id>/file: the first `byteCount` bytes of `descriptor` become the image's data.
    func upload(_ id: String, from descriptor: CInt, byteCount: Int64, as authorization: RequestAuthorization) async throws
    /// DELETE /v2/images/<id>. One that is gone is no error.
    func delete(_ id: String, as authorization: RequestAuthorization) async throws
    /// GET /v2/images with `filters`, newest first, all pages up to 10,000 images.
    func images(where filters: [(String, String)], as authorization: RequestAuthorization) async throws -> [JSONValue]
}

/// An image whose data is not what its record promises.
package struct ImageCorrupt: Error, Sendable, CustomStringConvertible {
    package let imageID: String
    package let reason: String

    package init(imageID: String, reason: String) {
        self.imageID = imageID
        self.reason = reason
    }

    package var description: String { "download image \(imageID): \(reason) (peer)" }
}
