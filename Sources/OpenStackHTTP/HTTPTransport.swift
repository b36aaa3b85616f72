// One connection pool with the TLS settings of one configuration section. It sends a request once: authorization and
// repetition belong to ServiceSession. Redirects are not followed here, because a token must not leave its origin.
package import AsyncHTTPClient
import Logging
package import NIOCore
import NIOHTTP1
import NIOSSL

package final class HTTPTransport: Sendable {
    private let client: HTTPClient
    package let options: TransportOptions

    package init(_ options: TransportOptions) throws(ServiceFault) {
        var configuration = HTTPClient.Configuration()
        do {
            configuration.tlsConfiguration = try Self.tls(options)
        } catch {
            throw ServiceFault(
                kind: .notConfigured, request: "read TLS files", service: "transport",
                body: "cafile \(options.caFile ?? "-"), certfile \(options.certificateFile ?? "-"): \(error)")
        }
        configuration.redirectConfiguration = .disallow
        configuration.timeout = HTTPClient.Configuration.Timeout(
            connect: TimeAmount(options.connectTimeout), read: TimeAmount(options.readTimeout))
        configuration.httpVersion = .http1Only
        configuration.connectionPool.retryConnectionEstablishment = false
        self.client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
        self.options = options
    }

    package func send(
        _ request: HTTPClientRequest, deadline: NIODeadline
    ) async throws -> HTTPClientResponse {
        try await client.execute(request, deadline: deadline)
    }

    /// Must be called before the last reference goes.
    package func shutdown() async {
        // The only failure is a second shutdown, after which there is nothing left to close.
        try? await client.shutdown()
    }

    private static func tls(_ options: TransportOptions) throws -> TLSConfiguration {
        var tls = TLSConfiguration.makeClientConfiguration()
        if let file = options.caFile { tls.trustRoots = .file(file) }
        if let file = options.certificateFile {
            tls.certificateChain = try NIOSSLCertificate.fromPEMFile(file).map { .certificate($0) }
            // keystoneauth takes a key from the certificate's own file where no keyfile is named.
            tls.privateKey = .privateKey(try NIOSSLPrivateKey(file: options.keyFile ?? file, format: .pem))
        }
        if options.isInsecure { tls.certificateVerification = .none }
        return tls
    }
}
