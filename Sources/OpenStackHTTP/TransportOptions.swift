// How a client reaches its service: the keystoneauth session options of one configuration section
// (cafile, certfile, keyfile, insecure, timeout, connect_retries), as plain values.

package struct TransportOptions: Sendable, Equatable {
    /// Certificates to trust instead of the system's.
    package var caFile: String?
    package var certificateFile: String?
    package var keyFile: String?
    /// No check of the peer's certificate.
    package var isInsecure = false
    package var connectTimeout: Duration = .seconds(10)
    /// The longest silence within an answer.
    package var readTimeout: Duration = .seconds(60)
    /// From the first byte sent to the last received, for one attempt; streamed bodies are bound by `readTimeout` alone.
    package var requestTimeout: Duration = .seconds(120)
    /// Further attempts after a failed connection, or a 503 where the service's contract repeats those.
    package var retries = 3
    package var retryDelay: Duration = .seconds(1)
    /// An answer longer than this is refused.
    package var bodyLimit = 16 << 20

    package init() {}
}
