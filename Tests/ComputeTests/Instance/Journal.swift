// One written order of everything the parts around the manager were asked, so that tests can compare it with the recordings.
import Synchronization

final class Journal: Sendable {
    private let entries = Mutex<[String]>([])

    func note(_ line: String) { entries.withLock { $0.append(line) } }
    var lines: [String] { entries.withLock { $0 } }
    /// The lines that begin with one of these words.
    func lines(of words: String...) -> [String] { lines.filter { line in words.contains { line.hasPrefix($0) } } }
    func count(_ prefix: String) -> Int { lines.count { $0.hasPrefix(prefix) } }
    func index(of prefix: String) -> Int? { lines.firstIndex { $0.hasPrefix(prefix) } }
}

/// Opens once; waiting obeys cancellation.
final class Gate: Sendable {
    private let stream: AsyncStream<Void>
    private let continuation: AsyncStream<Void>.Continuation

    init() { (stream, continuation) = AsyncStream.makeStream(of: Void.self) }

    func open() { continuation.finish() }

    func wait() async throws {
        for await _ in stream {}
        try Task.checkCancellation()
    }
}

struct Overdue: Error, CustomStringConvertible {
    let what: String
    var description: String { "\(what) did not happen in time" }
}

/// Polls until `condition` holds.
func eventually(
    _ what: String, within limit: Duration = .seconds(60), _ condition: @Sendable () -> Bool
) async throws {
    let deadline = ContinuousClock.now + limit
    while !condition() {
        guard .now < deadline else { throw Overdue(what: what) }
        try await Task.sleep(for: .milliseconds(1))
    }
}
