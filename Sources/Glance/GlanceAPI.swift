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
