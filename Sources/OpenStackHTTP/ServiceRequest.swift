// One request to a service, before it has an address or a token, and the answer to it.
package import JSON
package import NIOHTTP1

package struct ServiceRequest: Sendable {
    package var method: HTTPMethod
    /// From the endpoint on, with a leading slash; segments are already percent-encoded.
    package var path: String
    package var query: [(String, String)]
    package var body: JSONValue?
    /// The type `body` is sent as.
    package var bodyType = "application/json"
    /// Sent in `body`'s place.
    package var file: FileBody?
    /// The value of `OpenStack-API-Version`: "placement 1.28".
    package var microversion: String?
    package var authorization: RequestAuthorization
    /// Error statuses that are an answer, not a fault.
    package var expectedStatuses: Set<Int>

    package init(
        _ method: HTTPMethod, _ path: String, query: [(String, String)] = [], body: JSONValue? = nil,
        microversion: String? = nil, authorization: RequestAuthorization = .service, expecting: Set<Int> = []
    ) {
        self.method = method
        self.path = path
        self.query = query
        self.body = body
        self.microversion = microversion
        self.authorization = authorization
        self.expectedStatuses = expecting
        self.isIdempotent = [.GET, .HEAD, .PUT, .DELETE, .OPTIONS].contains(method)
    }

    /// A repetition does no harm.
    package var isIdempotent: Bool
}

package struct ServiceAnswer: Sendable {
    package let status: Int
    package let headers: HTTPHeaders
    package let bytes: [UInt8]
    /// For the text of a fault.
    package let request: String
    package let service: String

    package func json() throws(ServiceFault) -> JSONValue {
        do {
            return try JSONValue.parse(bytes)
        } catch {
            throw malformed("\(error)")
        }
    }

    /// The answer is no answer of this API.
    package func malformed(_ reason: String) -> ServiceFault {
        ServiceFault(
            kind: .malformed, request: request, service: service, body: reason,
            requestID: headers.first(name: "x-openstack-request-id"))
    }
}
