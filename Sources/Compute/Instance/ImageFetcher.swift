// Image data for the driver, with the user's token. One that has expired in a long wait is replaced by the service's own: the
// API has let the user have this image.
import Glance
import JSON
import OpenStackHTTP
import OsloMessaging

struct ImageFetcher: Sendable {
    let glance: any GlanceAPI
    /// The image of the request, in Nova's form.
    let image: JSONValue
    let authorization: RequestAuthorization
    /// So that the image service's log can be matched with ours.
    let requestID: String?

    init(glance: any GlanceAPI, image: JSONValue, context: RequestContext) {
        self.glance = glance
        self.image = image
        authorization = context.imageAuthorization
        let global = context.entries["global_request_id"]?.stringValue
        requestID = global ?? (context.requestID.isEmpty ? nil : context.requestID)
    }

    /// Writes the data of image `id` to `descriptor`; its errors are Nova's.
    func fetch(_ id: String, to descriptor: CInt) async throws -> Int64 {
        try await OutgoingRequest.$globalID.withValue(requestID) {
            try await fetchAsUserOrService(id, to: descriptor)
        }
    }

    private func fetchAsUserOrService(_ id: String, to descriptor: CInt) async throws -> Int64 {
        do {
            return try await fetch(id, to: descriptor, as: authorization)
        } catch let fault as ServiceFault where fault.isExpiredToken && authorization != .service {
            do { return try await fetch(id, to: descriptor, as: .service) } catch { throw translated(id, error) }
        } catch {
            throw translated(id, error)
        }
    }

    private func fetch(_ id: String, to descriptor: CInt, as authorization: RequestAuthorization) async throws -> Int64 {
        let isOfRequest = image["id"]?.stringValue == id && image["status"]?.stringValue != nil
        let record = isOfRequest ? image : try await glance.image(id, as: authorization)
        if let status = record["status"]?.stringValue, status != "active" {
            throw NovaException(
                "ImageNotActive", "Image \(id) is not active.", keywords: ["image_id": .string(id)])
        }
        return try await glance.download(record, to: descriptor, as: authorization)
    }

    private func translated(_ id: String, _ error: any Error) -> any Error {
        error is CancellationError ? error : NovaException.image(id, error)
    }
}

extension RequestContext {
    /// Who asks Glance: the user, or this service where the context has no token.
    var imageAuthorization: RequestAuthorization { authToken.map { .user(token: $0) } ?? .service }
}
