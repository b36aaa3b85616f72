// One request from its body to its reply.
import AMQP
import JSON
import Logging
import Synchronization

struct RequestHandler: Sendable {
    let transport: RabbitTransport
    let dispatcher: RPCDispatcher
    let duplicates: DuplicateFilter
    private let deadQueues: DeadQueues

    init(transport: RabbitTransport, dispatcher: RPCDispatcher, duplicates: DuplicateFilter) {
        self.transport = transport
        self.dispatcher = dispatcher
        self.duplicates = duplicates
        deadQueues = DeadQueues()
    }

    private var counters: MessagingCounters { transport.counters }

    func carryOut(_ delivery: Delivery) async {
        let received = ContinuousClock.now
        guard let message = readMessage(delivery) else { return }
        let request = WireRequest(message)
        guard request.uniqueID.isEmpty || duplicates.isNew(request.uniqueID) else {
            return counters.drop(.duplicate)
        }
        var logger = transport.logger
        logger[metadataKey: "request_id"] = "\(request.context.requestID)"
        logger[metadataKey: "method"] = "\(request.method)"
        let outcome: Result<JSONValue, RemoteFailure>
        if WireRequest.isWellFormed(message) {
            outcome = await dispatchWithHeartbeat(request)
            counters.count(\.dispatched)
        } else {
            counters.drop(.malformedRequest)
            outcome = .failure(
                RemoteFailure(
                    className: "TypeError", module: "builtins", message: "a request needs a method and named arguments")
            )
        }
        guard let reply = request.reply else {
            if case .failure(let failure) = outcome {
                logger.error("A cast failed", metadata: ["error": "\(failure)"])
            }
            return
        }
        // The caller waits for as long as its message would have lived, but an answer is worth some attempts in any case.
        let lifetime = delivery.message.expiration.flatMap(Int.init).map { Duration.milliseconds($0) } ?? .zero
        let deadline = max(received + lifetime, .now + transport.options.missingConsumerRetryTimeout)
        await send(.end(reply.messageID, outcome), to: reply.queue, until: deadline, logger)
    }

    private func readMessage(_ delivery: Delivery) -> [String: JSONValue]? {
        let reason: DropReason
        let detail: String
        if delivery.isOversized {
            (reason, detail) = (.oversized, "longer than the driver takes")
        } else {
            do {
                return try Envelope.decode(delivery.message.body)
            } catch {
                (reason, detail) = (error.reason, error.detail)
            }
        }
        counters.drop(reason)
        transport.logger.debug(
            "Dropped a message", metadata: ["reason": "\(reason.rawValue)", "detail": "\(detail.prefix(200))"])
        return nil
    }

    /// Runs the request; a monitored call's sender hears from us twice in its time-out meanwhile.
    private func dispatchWithHeartbeat(_ request: WireRequest) async -> Result<JSONValue, RemoteFailure> {
        guard let reply = request.reply, let monitor = request.monitorSeconds, monitor.isFinite, monitor / 2 >= 1 else {
            return await dispatcher.dispatch(request)
        }
        let interval = Duration.seconds(min(monitor, 86_400) / 2)
        return await withTaskGroup(of: Result<JSONValue, RemoteFailure>?.self) { group in
            group.addTask { await dispatcher.dispatch(request) }
            group.addTask {
                while (try? await Task.sleep(for: interval)) != nil {
                    let isSent = await publish(.heartbeat(reply.messageID), to: reply.queue, until: .now + interval)
                    guard case .success = isSent else { break }  // nobody listens: go on without heartbeats
                }
                return nil
            }
            while let outcome = await group.next() {
                guard let outcome else { continue }
                group.cancelAll()
                return outcome
            }
            return .failure(RemoteFailure(from: CancellationError()))
        }
    }

    private func publish(
        _ reply: WireReply, to queue: String, until deadline: ContinuousClock.Instant
    ) async -> Result<Void, any Error> {
        do {
            try await transport.publish(
                AMQPMessage(body: Envelope.encode(reply.message)),
                to: PublishTarget(exchange: "", routingKey: queue, isMandatory: true), declaring: nil,
                until: deadline, declare: { _ in })
            return .success(())
        } catch {
            return .failure(error)
        }
    }

    /// The reply, again and again while its queue may come back (the caller reconnects), until `deadline`.
    private func send(
        _ reply: WireReply, to queue: String, until deadline: ContinuousClock.Instant, _ logger: Logger
    ) async {
        guard !deadQueues.contains(queue) else { return counters.drop(.replyQueueGone) }
        let giveUpMissing = ContinuousClock.now + transport.options.missingConsumerRetryTimeout
        // The same message each time: the caller drops a second copy by its id.
        while true {
            switch await publish(reply, to: queue, until: deadline) {
            case .success: return counters.count(\.replied)
            case .failure(let error as AMQPError) where error.code == .unroutable:
                guard .now < giveUpMissing, (try? await Task.sleep(for: .milliseconds(250))) != nil else {
                    deadQueues.insert(queue)
                    counters.drop(.replyQueueGone)
                    return logger.warning("The caller's reply queue is gone", metadata: ["queue": "\(queue)"])
                }
            case .failure(let error):
                counters.drop(.replyNotSent)
                return logger.error("A reply was not sent", metadata: ["error": "\(error)", "queue": "\(queue)"])
            }
        }
    }
}

/// Reply queues that were gone: later replies to them are not tried for a minute.
final class DeadQueues: Sendable {
    private static let capacity = 200
    private static let lifetime: Duration = .seconds(60)
    private let queues = Mutex<[String: ContinuousClock.Instant]>([:])

    func contains(_ queue: String) -> Bool {
        queues.withLock { queues in
            guard let since = queues[queue] else { return false }
            if .now - since < Self.lifetime { return true }
            queues[queue] = nil
            return false
        }
    }

    func insert(_ queue: String) {
        queues.withLock { queues in
            if queues.count >= Self.capacity, let oldest = queues.min(by: { $0.value < $1.value })?.key {
                queues[oldest] = nil
            }
            queues[queue] = .now
        }
    }
}
