// What another service's refusal tells its reader.

/// A request to another OpenStack service that did not succeed.
package struct ServiceFault: Error, Sendable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        /// No connection, a reset, a time-out.
        case unreachable
        /// An answer with an error status.
        case status(Int)
        /// An answer that is not what the API promises.
        case malformed
        /// No endpoint or no credentials to ask with.
        case notConfigured
    }
    package let kind: Kind
    /// "GET http://…/v2.0/ports/…", without query secrets.
    package let request: String
    /// The service's name: "placement", "network", "image", "identity".
    package let service: String
    /// The service's own words, at most 2,000 characters.
    package let body: String
    /// Machine-readable error code where the service gives one ("placement.concurrent_update").
    package let code: String?
    /// The request id the service answered with.
    package let requestID: String?

    package init(
        kind: Kind, request: String, service: String, body: String = "", code: String? = nil, requestID: String? = nil
    ) {
        self.kind = kind
        self.request = request
        self.service = service
        self.body = body
        self.code = code
        self.requestID = requestID
    }

    package var status: Int? {
        if case .status(let status) = kind { status } else { nil }
    }

    package var description: String {
        let what =
            switch kind {
            case .unreachable: "not reachable"
            case .status(let status): "answered \(status)"
            case .malformed: "answered something that is not its API"
            case .notConfigured: "is not configured"
            }
        return "\(request): \(service) \(what): \(body) (peer)"
    }
}
