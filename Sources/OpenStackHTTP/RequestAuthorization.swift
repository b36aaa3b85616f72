// Whose token a request carries.

/// The identity of one request to another service.
package enum RequestAuthorization: Sendable, Equatable {
    /// This service's own credentials of the section that configures the client ([placement], [neutron], …).
    case service
    /// The user's token from the message's context; the service token goes along where `send_service_user_token` is on.
    case user(token: String)
}
