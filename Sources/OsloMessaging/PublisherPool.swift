// The publishing connections. Several messages share a connection, each waiting for its own confirmation; a further
// connection is made when all are busy, up to the pool's size.
import AMQP
import Synchronization

/// A publishing connection and what was declared on it.
final class Publisher: Sendable {
    let connection: any AMQPConnection
    private let declared = Mutex<Set<String>>([])

    init(_ connection: any AMQPConnection) {
        self.connection = connection
    }

    /// Runs `declare` once for this connection. Two at a time do no harm: declaring twice is allowed.
    func once(_ name: String, _ declare: (any AMQPConnection) async throws -> Void) async throws {
        guard !declared.withLock({ $0.contains(name) }) else { return }
        try await declare(connection)
        declared.withLock { _ = $0.insert(name) }
    }
}

actor PublisherPool {
    /// Messages on their way on one connection before another connection is worth its price.
    private static let sharing = 8

    private struct Entry {
        var publisher: Publisher
        var inFlight: Int
        var lastUse: ContinuousClock.Instant
    }

    private let counters: MessagingCounters
    private let limit: Int
    private var entries: [ObjectIdentifier: Entry] = [:]
    /// The connection that is being made; others wait for it instead of making theirs.
    private var connecting: OneShot<Void>?
    private var hasLostOne = false

    init(counters: MessagingCounters, limit: Int) {
        self.counters = counters
        self.limit = max(1, limit)
    }

    /// Takes a publisher that is not full. Give it back with `release`.
    func lease(
        until deadline: ContinuousClock.Instant,
        connect: @Sendable () async throws -> any AMQPConnection
    ) async throws -> Publisher {
        while true {
            removeDead()
            let best = entries.values.filter { !$0.publisher.connection.isBlocked }.min { $0.inFlight < $1.inFlight }
            let isFull = entries.count >= limit
            if let best, best.inFlight < Self.sharing || isFull { return take(best.publisher) }
            if isFull {
                throw AMQPError(.blocked, "publish", reason: "the broker takes no messages for now")
            }
            if let connecting {
                let late = AMQPError(.timedOut, "publish", reason: "no connection in time")
                try await connecting.value(until: deadline, or: late)
                continue
            }
            if entries.values.contains(where: { $0.publisher.connection.isBlocked }) {
                // A new connection would be blocked as soon as it publishes.
                throw AMQPError(.blocked, "publish", reason: "the broker takes no messages for now")
            }
            let attempt = OneShot<Void>()
            connecting = attempt
            do {
                let publisher = Publisher(try await connect())
                connecting = nil
                entries[ObjectIdentifier(publisher)] = Entry(publisher: publisher, inFlight: 0, lastUse: .now)
                if hasLostOne { counters.count(\.reconnects) }
                hasLostOne = false
                attempt.resolve(.success(()))
                return take(publisher)
            } catch {
                connecting = nil
                // A cancelled attempt says nothing about the broker: those who wait try themselves.
                attempt.resolve(error is CancellationError ? .success(()) : .failure(error))
                throw error
            }
        }
    }

    func release(_ publisher: Publisher) {
        let id = ObjectIdentifier(publisher)
        entries[id]?.inFlight -= 1
        entries[id]?.lastUse = .now
        removeDead()
    }

    private func take(_ publisher: Publisher) -> Publisher {
        entries[ObjectIdentifier(publisher)]?.inFlight += 1
        return publisher
    }

    private func removeDead() {
        for (id, entry) in entries where !entry.publisher.connection.isOpen {
            entries[id] = nil
            hasLostOne = true
        }
    }

    func closeIdle(olderThan age: Duration, keeping minimum: Int) async {
        removeDead()
        let idle = entries.filter { $0.value.inFlight == 0 && .now - $0.value.lastUse > age }
        for (id, entry) in idle.prefix(max(0, entries.count - minimum)) {
            entries[id] = nil
            await entry.publisher.connection.close()
        }
    }

    func closeAll() async {
        let all = entries.values.map(\.publisher)
        entries = [:]
        for publisher in all { await publisher.connection.close() }
    }
}
