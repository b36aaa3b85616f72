// GlanceAPI over HTTP (contract §8.1): the record, and the data as a stream that is checked on its way.
package import JSON
import NIOCore
import NIOHTTP1
package import OpenStackHTTP

package struct GlanceClient: GlanceAPI {
    let session: ServiceSession

    package init(session: ServiceSession) { self.session = session }

    package func image(_ id: String, as authorization: RequestAuthorization) async throws -> JSONValue {
        let answer = try await session.send(
            ServiceRequest(.GET, "/v2/images/" + PercentEncoding.segment(id), authorization: authorization))
        let image = try answer.json()
        guard image["id"]?.stringValue == id else { throw answer.malformed("a record of another image") }
        return image
    }

    package func download(
        _ image: JSONValue, to descriptor: CInt, as authorization: RequestAuthorization
    ) async throws -> Int64 {
        guard let id = image["id"]?.stringValue else {
            throw ServiceFault(
                kind: .malformed, request: "download image", service: "image", body: "an image record without id")
        }
        let path = "/v2/images/\(PercentEncoding.segment(id))/file"
        let answer = try await session.open(ServiceRequest(.GET, path, authorization: authorization))
        guard answer.status == 200 else {
            throw ServiceFault(
                kind: .status(answer.status), request: "GET \(path)", service: "image", body: "the image has no data")
        }
        // Nova's form may carry the size as text.
        let size = image["size"].flatMap { $0.intValue ?? $0.stringValue.flatMap { Int($0) } }.map(Int64.init)
        var writer = ImageFileWriter(imageID: id, descriptor: descriptor, digest: ImageDigest(of: image))
        var piece: [UInt8] = []
        var received: Int64 = 0
        try await answer.forEach { part in
            received += Int64(part.readableBytes)
            if let size, received > size {
                throw ImageCorrupt(imageID: id, reason: "more data than the \(size) bytes of its record")
            }
            piece.append(contentsOf: part.readableBytesView)
            if piece.count >= ImageFileWriter.pieceByteCount {
                try await writer.write(piece)
                piece.removeAll(keepingCapacity: true)
            }
        }
        if !piece.isEmpty { try await writer.write(piece) }
        if let size, received != size {
            throw ImageCorrupt(imageID: id, reason: "\(received) bytes of data where its record says \(size)")
        }
        if let digest = writer.digest, digest.hexadecimal != digest.expected {
            throw ImageCorrupt(
                imageID: id,
                // Nova keeps 255 characters of a fault: the beginnings tell two digests apart.
                reason: "its data does not match its checksum, \(digest.algorithm) \(digest.expected.prefix(16))… in its record, \(digest.hexadecimal.prefix(16))… of the data")
        }
        return writer.byteCount
    }
}
