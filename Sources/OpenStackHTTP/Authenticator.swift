// Where a session takes its tokens from. Keystone implements it; tests have their own.

package struct AuthToken: Sendable, CustomStringConvertible {
    package let value: String
    package let catalogue: ServiceCatalogue

    package init(value: String, catalogue: ServiceCatalogue) {
        self.value = value
        self.catalogue = catalogue
    }

    /// A token never reaches a log.
    package var description: String { "AuthToken(…)" }
}

package protocol Authenticator: Sendable {
    /// A token good for at least one request.
    func token() async throws(ServiceFault) -> AuthToken
    /// A service refused this token: the next `token()` must not return it.
    func invalidate(_ token: String) async
}

/// The id all requests of one operation carry from service to service (`X-OpenStack-Request-ID`).
package enum OutgoingRequest {
    @TaskLocal package static var globalID: String?
}
