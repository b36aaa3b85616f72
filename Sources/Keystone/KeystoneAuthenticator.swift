// Tokens of one identity. One request serves all who wait; a token is used until shortly before it expires or until a
// service refuses it.
//
//   empty --token()--> fetching --answer--> held --near expiry, invalidate()--> empty
//                          '--failure--> empty (every waiter gets the fault; the next call asks again)
import JSON
package import Logging
import NIOHTTP1
package import OpenStackHTTP

package actor KeystoneAuthenticator: Authenticator {
    private struct Held {
        let token: AuthToken
        let renewAt: ContinuousClock.Instant
    }
    private typealias Outcome = Result<Held, ServiceFault>

    private let credentials: Credentials
    private let session: ServiceSession
    private let logger: Logger
    private var held: Held?
    private var fetching: Task<Outcome, Never>?

    package init(credentials: Credentials, transport: HTTPTransport, logger: Logger) {
        self.credentials = credentials
        self.session = ServiceSession(
            endpoint: EndpointOptions(
                serviceType: "identity", override: TokenRequest.baseURL(credentials.authURL), retriesUnavailable: true),
            transport: transport, authenticator: Anonymous(), logger: logger)
        self.logger = logger
    }

    package func token() async throws(ServiceFault) -> AuthToken {
        if let held, ContinuousClock.now < held.renewAt { return held.token }
        // A task of its own: a waiter that is cancelled must not take the answer from the others. The request's deadline
        // bounds it.
        let task: Task<Outcome, Never>
        if let fetching {
            task = fetching
        } else {
            task = Task { [credentials, session, logger] in
                await Self.fetch(credentials, session, logger)
            }
            fetching = task
        }
        let outcome = await task.value
        if fetching == task {
            fetching = nil
            held = try? outcome.get()
        }
        return try outcome.get().token
    }

    package func invalidate(_ token: String) {
        // A later token may already be here: several requests can be refused with the same old one.
        if held?.token.value == token { held = nil }
    }

    /// Whether a token that is still good is held, for readiness.
    package var hasToken: Bool {
        if let held { ContinuousClock.now < held.renewAt } else { false }
    }

    private static func fetch(_ credentials: Credentials, _ session: ServiceSession, _ logger: Logger) async -> Outcome
    {
        do throws(ServiceFault) {
            let asked = ContinuousClock.now
            var request = ServiceRequest(.POST, "/auth/tokens", body: TokenRequest.body(credentials))
            request.isIdempotent = true  // a second token costs nothing
            let answer = try await session.send(request)
            guard let value = answer.headers.first(name: "x-subject-token"), !value.isEmpty else {
                throw answer.malformed("no X-Subject-Token header")
            }
            guard let token = try answer.json()["token"] else { throw answer.malformed("no token in the body") }
            // An unreadable time is no reason to stop: a refused token is renewed anyway.
            let lifetime = TokenRequest.lifetimeSeconds(token) ?? 600
            let margin = min(120, lifetime / 4)
            logger.debug("token obtained", metadata: ["identity": "\(credentials)", "lifetime": "\(lifetime)"])
            return .success(
                Held(
                    token: AuthToken(value: value, catalogue: ServiceCatalogue(token["catalog"] ?? nil)),
                    renewAt: asked + .seconds(lifetime - margin)))
        } catch {
            return .failure(error)
        }
    }
}

/// Keystone itself is asked without a token.
private struct Anonymous: Authenticator {
    func token() async throws(ServiceFault) -> AuthToken {
        AuthToken(value: "", catalogue: ServiceCatalogue(endpoints: []))
    }
    func invalidate(_ token: String) async {}
}
