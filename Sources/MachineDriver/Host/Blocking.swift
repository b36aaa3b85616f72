// Where calls that may block run: files, netlink, processes. Never the cooperative pool.
import NIOPosix

/// Runs `body` on a thread for blocking work. `body` is not interrupted by cancellation: what it made is known when it returns.
func blocking<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
    try await NIOThreadPool.singleton.runIfActive(body)
}
