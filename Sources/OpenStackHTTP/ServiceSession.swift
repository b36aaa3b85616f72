// Requests to one service: address from the override or the catalogue, token, request id, microversion, one
// re-authentication after a 401, repetition after a failed connection, and faults that say what happened.
//
//   token -> endpoint -> send --2xx--> answer
//                         |--401--> invalidate, once more from the start
//                         |--connection failed or 503--> wait, again while attempts are left
//                         '--other--> ServiceFault
import AsyncHTTPClient
import JSON
package import Logging
import NIOCore
import NIOHTTP1

/// Which endpoint of the catalogue, and whether one at all.
package struct EndpointOptions: Sendable, Equatable {
    /// "placement", "network", "image".
    package var serviceType: String
    package var interfaces: [String]
    package var region: String?
    /// Takes the catalogue's place.
    package var override: String?
    /// Whether a 503 is worth another attempt (Glance, contract §8.1).
    package var retriesUnavailable: Bool

    package init(
        serviceType: String, interfaces: [String] = ["internal", "public"], region: String? = nil,
        override: String? = nil, retriesUnavailable: Bool = false
    ) {
        self.serviceType = serviceType
        self.interfaces = interfaces
        self.region = region
        self.override = override
        self.retriesUnavailable = retriesUnavailable
    }
}

package struct ServiceSession: Sendable {
    package let endpoint: EndpointOptions
    private let transport: HTTPTransport
    private let authenticator: any Authenticator
    /// `[service_user]`'s tokens, where they accompany a user's.
    private let serviceTokens: (any Authenticator)?
    private let logger: Logger

    package static let userAgent = "apus nova-compute"

    package init(
        endpoint: EndpointOptions, transport: HTTPTransport, authenticator: any Authenticator,
        serviceTokens: (any Authenticator)? = nil, logger: Logger
    ) {
        self.endpoint = endpoint
        self.transport = transport
        self.authenticator = authenticator
        self.serviceTokens = serviceTokens
        self.logger = logger
    }

    /// Sends and reads the whole answer.
    package func send(_ request: ServiceRequest) async throws(ServiceFault) -> ServiceAnswer {
        let deadline = transport.options.requestTimeout
        return try await attempt(request, within: deadline) { response, label throws(ServiceFault) in
            try await Self.read(response, limit: transport.options.bodyLimit, label, endpoint.serviceType)
        }
    }

    /// Sends and hands over the body as it comes. Nothing is repeated once the head is here.
    package func open(_ request: ServiceRequest) async throws(ServiceFault) -> StreamedAnswer {
        // Long enough for any image; silence ends it long before.
        try await attempt(request, within: .seconds(24 * 3600)) { response, label throws(ServiceFault) in
            StreamedAnswer(
                status: Int(response.status.code), body: response.body, request: label, service: endpoint.serviceType)
        }
    }

    /// Sends a request with a file; as long as it takes, while something moves.
    @discardableResult
    package func upload(_ request: ServiceRequest) async throws(ServiceFault) -> ServiceAnswer {
        try await attempt(request, within: .seconds(24 * 3600)) { response, label throws(ServiceFault) in
            try await Self.read(response, limit: transport.options.bodyLimit, label, endpoint.serviceType)
        }
    }

    private func attempt<Answer: Sendable>(
        _ request: ServiceRequest, within timeout: Duration,
        read: (HTTPClientResponse, String) async throws(ServiceFault) -> Answer
    ) async throws(ServiceFault) -> Answer {
        var mayAuthenticateAgain = true
        var attemptsLeft = max(0, transport.options.retries)
        while true {
            let tokens = try await tokens(for: request)
            let url = try address(of: request, in: tokens.own?.catalogue)
            let label = "\(request.method.rawValue) \(url.prefix { $0 != "?" })"
            do throws(ServiceFault) {
                let response = try await exchange(request, url: url, label: label, tokens: tokens, within: timeout)
                let status = Int(response.status.code)
                if (200..<300).contains(status) || request.expectedStatuses.contains(status) {
                    return try await read(response, label)
                }
                let answer = try await Self.read(response, limit: 1 << 20, label, endpoint.serviceType)
                throw Self.fault(of: answer)
            } catch {
                if error.status == 401, mayAuthenticateAgain, await invalidate(tokens, of: request) {
                    mayAuthenticateAgain = false
                    continue
                }
                guard attemptsLeft > 0, isWorthRepeating(error, request), !Task.isCancelled else { throw error }
                attemptsLeft -= 1
                logger.debug("repeating request", metadata: ["request": "\(label)", "reason": "\(error.body)"])
                do { try await Task.sleep(for: transport.options.retryDelay) } catch is CancellationError {
                    throw error
                } catch {}
            }
        }
    }

    private struct Tokens {
        var own: AuthToken?
        var user: String?
        var service: AuthToken?
    }

    private func tokens(for request: ServiceRequest) async throws(ServiceFault) -> Tokens {
        switch request.authorization {
        case .service:
            return Tokens(own: try await authenticator.token())
        case .user(let token):
            // The catalogue is the service's own: a message's context carries none that can be relied on.
            let own = endpoint.override == nil ? try await authenticator.token() : nil
            let service: AuthToken? = if let serviceTokens { try await serviceTokens.token() } else { nil }
            return Tokens(own: own, user: token, service: service)
        }
    }

    /// Whether a further attempt has a chance: a user's own token cannot be renewed.
    private func invalidate(_ tokens: Tokens, of request: ServiceRequest) async -> Bool {
        if tokens.user == nil, let own = tokens.own, !own.value.isEmpty {
            await authenticator.invalidate(own.value)
            return true
        }
        if let service = tokens.service, let serviceTokens {
            await serviceTokens.invalidate(service.value)
            return true
        }
        return false
    }

    private func isWorthRepeating(_ fault: ServiceFault, _ request: ServiceRequest) -> Bool {
        switch fault.kind {
        case .unreachable: request.isIdempotent
        case .status(503): endpoint.retriesUnavailable && request.isIdempotent
        default: false
        }
    }

    private func address(of request: ServiceRequest, in catalogue: ServiceCatalogue?) throws(ServiceFault) -> String {
        let base =
            endpoint.override
            ?? catalogue?.url(
                serviceType: endpoint.serviceType, interfaces: endpoint.interfaces, region: endpoint.region)
        guard var base else {
            throw ServiceFault(
                kind: .notConfigured, request: "\(request.method.rawValue) \(request.path)",
                service: endpoint.serviceType,
                body: "no endpoint of type \(endpoint.serviceType) with interface "
                    + endpoint.interfaces.joined(separator: " or ") + " in region \(endpoint.region ?? "any")")
        }
        while base.hasSuffix("/") { base.removeLast() }
        var path = request.path
        // An endpoint may already end in the version that the path begins with.
        if let version = path.split(separator: "/").first, base.hasSuffix("/" + version) {
            path = String(path.dropFirst(version.count + 1))
        }
        return base + path + PercentEncoding.query(request.query)
    }

    private func exchange(
        _ request: ServiceRequest, url: String, label: String, tokens: Tokens, within timeout: Duration
    ) async throws(ServiceFault) -> HTTPClientResponse {
        var outgoing = HTTPClientRequest(url: url)
        outgoing.method = request.method
        outgoing.headers.add(name: "User-Agent", value: Self.userAgent)
        outgoing.headers.add(name: "Accept", value: "application/json")
        if let token = tokens.user ?? tokens.own?.value, !token.isEmpty {
            outgoing.headers.add(name: "X-Auth-Token", value: token)
        }
        if let token = tokens.service?.value { outgoing.headers.add(name: "X-Service-Token", value: token) }
        if let id = OutgoingRequest.globalID { outgoing.headers.add(name: "X-OpenStack-Request-ID", value: id) }
        if let version = request.microversion { outgoing.headers.add(name: "OpenStack-API-Version", value: version) }
        if let body = request.body {
            outgoing.headers.add(name: "Content-Type", value: request.bodyType)
            outgoing.body = .bytes(body.serializedBytes())
        } else if let file = request.file {
            outgoing.headers.add(name: "Content-Type", value: "application/octet-stream")
            outgoing.body = .stream(file, length: .known(file.byteCount))
        }
        for _ in 0..<4 {
            let response: HTTPClientResponse
            do {
                response = try await transport.send(outgoing, deadline: .now() + TimeAmount(timeout))
            } catch {
                throw ServiceFault(kind: .unreachable, request: label, service: endpoint.serviceType, body: "\(error)")
            }
            // Only a read moves on, and only within its origin: the request carries a token.
            guard request.method == .GET, [301, 302, 307, 308].contains(response.status.code),
                let target = response.headers.first(name: "location"),
                let next = Self.sameOrigin(target, as: outgoing.url)
            else { return response }
            _ = try await Self.read(response, limit: 1 << 20, label, endpoint.serviceType)
            outgoing.url = next
        }
        throw ServiceFault(
            kind: .malformed, request: label, service: endpoint.serviceType, body: "more than 3 redirects in a row")
    }

    static func sameOrigin(_ target: String, as url: String) -> String? {
        let parts = url.split(separator: "/", maxSplits: 3, omittingEmptySubsequences: false)
        guard parts.count >= 3, parts[1].isEmpty else { return nil }
        let origin = "\(parts[0])//\(parts[2].prefix { $0 != "?" })"
        if target.hasPrefix("/"), !target.hasPrefix("//") { return origin + target }
        return target.hasPrefix(origin + "/") ? target : nil
    }

    private static func read(
        _ response: HTTPClientResponse, limit: Int, _ label: String, _ service: String
    ) async throws(ServiceFault) -> ServiceAnswer {
        do {
            var buffer = try await response.body.collect(upTo: limit)
            let bytes = buffer.readBytes(length: buffer.readableBytes) ?? []
            return ServiceAnswer(
                status: Int(response.status.code), headers: response.headers, bytes: bytes, request: label,
                service: service)
        } catch is NIOTooManyBytesError {
            throw ServiceFault(
                kind: .malformed, request: label, service: service, body: "an answer of more than \(limit) bytes")
        } catch {
            throw ServiceFault(kind: .unreachable, request: label, service: service, body: "answer cut off: \(error)")
        }
    }

    static func fault(of answer: ServiceAnswer) -> ServiceFault {
        let body = FaultBody(answer.bytes)
        let target = answer.headers.first(name: "location").map { " redirects to \($0)" } ?? ""
        return ServiceFault(
            kind: .status(answer.status), request: answer.request, service: answer.service, body: body.message + target,
            code: body.code,
            requestID: answer.headers.first(name: "x-openstack-request-id")
                ?? answer.headers.first(name: "openstack-request-id") ?? body.requestID)
    }
}
