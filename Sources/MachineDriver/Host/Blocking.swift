// Where calls that may block run: files, netlink, processes. Never the cooperative pool.
import NIOCore
import NIOPosix
import Synchronization

/// This driver's own threads: a disk that is copied for minutes must not hold up what others wait for on the shared ones.
private let threads: NIOThreadPool = {
    let pool = NIOThreadPool(numberOfThreads: 8)
    pool.start()
    return pool
}()

/// Runs `body` on a thread for blocking work, also for a cancelled task: what it made is known when this returns.
func blocking<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
    try await threads.runIfActive(eventLoop: MultiThreadedEventLoopGroup.singleton.any(), body).get()
}

/// As `blocking`, for long work that asks `isCancelled` between its pieces.
func blockingCancellably<Result: Sendable>(
    _ body: @escaping @Sendable (_ isCancelled: () -> Bool) throws -> Result
) async throws -> Result {
    let flag = CancellationFlag()
    return try await withTaskCancellationHandler {
        try await blocking { try body { flag.isSet.load(ordering: .relaxed) } }
    } onCancel: {
        flag.isSet.store(true, ordering: .relaxed)
    }
}

private final class CancellationFlag: Sendable {
    let isSet = Atomic(false)
}

/// Runs `body` to its end even where the calling task is cancelled: for cleaning up.
func uncancelled<Result: Sendable>(_ body: @escaping @Sendable () async throws -> Result) async throws -> Result {
    try await Task { try await body() }.value
}
