// The listener over real sockets: what it answers, and how it rids itself of those who misbehave.
import Logging
import NIOCore
import NIOPosix
import ServiceMetrics
import Testing

@Suite struct OperatorEndpointTests {
    @Test func threePagesAnswerAndOthersAreRefused() async throws {
        try await withEndpoint { port in
            let answer1 = try await exchange(port, get("/healthz"))
            #expect(answer1.hasPrefix("HTTP/1.1 200 OK"))
            let metrics = try await exchange(port, get("/metrics"))
            #expect(metrics.contains("text/plain; version=0.0.4"))
            #expect(metrics.contains("\napus_build_info{"))
            let answer2 = try await exchange(port, get("/"))
            #expect(answer2.hasPrefix("HTTP/1.1 404"))
            let post = try await exchange(
                port, "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            #expect(post.hasPrefix("HTTP/1.1 405"))
            #expect(post.contains("Allow: GET, HEAD"))
        }
    }

    @Test func aFailedCheckMakesReadyzA503WithItsReason() async throws {
        let checks = [HealthReport.Check("broker", failure: "connection refused"), HealthReport.Check("token")]
        try await withEndpoint(readiness: HealthReport(checks)) { port in
            let short = try await exchange(port, get("/readyz"))
            #expect(short.hasPrefix("HTTP/1.1 503"))
            #expect(short.hasSuffix("\r\n\r\n[-]broker failed: connection refused\nnot ready\n"))
            let verbose = try await exchange(port, get("/readyz?verbose"))
            #expect(verbose.contains("[+]token ok\n"))
        }
    }

    @Test func aHeadLongerThanTheLimitClosesTheConnection() async throws {
        try await withEndpoint { port in
            let answer = try await exchange(
                port, "GET /healthz HTTP/1.1\r\nX-Long: " + String(repeating: "a", count: 64 << 10))
            #expect(!answer.contains("200 OK"))
        }
    }

    @Test func aRequestThatNeverEndsIsCutOff() async throws {
        try await withEndpoint { port in
            let started = ContinuousClock.now
            let answer = try await exchange(port, "GET /healthz HTTP/1.1\r\nHost:")
            #expect(answer == "")
            #expect(ContinuousClock.now - started < .seconds(8))
        }
    }

    private func get(_ path: String) -> String { "GET \(path) HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" }

    private func withEndpoint(
        readiness: HealthReport = HealthReport([]), _ body: (Int) async throws -> Void
    ) async throws {
        var options = OperatorEndpointOptions(address: .network(host: "127.0.0.1", port: 0))
        options.exchangeTimeout = .seconds(1)  // long enough for an honest exchange, short for the test
        let endpoint = OperatorEndpoint(
            options: options, metrics: ExpositionTests.everything(), liveness: { HealthReport([]) },
            readiness: { readiness }, logger: Logger(label: "test"))
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await endpoint.run() }
            let deadline = ContinuousClock.now + .seconds(10)
            while endpoint.port == nil, ContinuousClock.now < deadline { try await Task.sleep(for: .milliseconds(5)) }
            try await body(try #require(endpoint.port))
            group.cancelAll()
        }
    }

    /// Everything the peer sends until it closes.
    private func exchange(_ port: Int, _ request: String) async throws -> String {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: "127.0.0.1", port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                }
            }
        return try await channel.executeThenClose { inbound, outbound in
            try? await outbound.write(ByteBuffer(string: request))
            var text = ""
            do {
                for try await part in inbound { text += String(buffer: part) }
            } catch is IOError {
                // A reset is a way of closing too.
            }
            return text
        }
    }
}
