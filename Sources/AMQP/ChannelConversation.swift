// What frames mean: requests are answered in order, publishes are confirmed by number, a delivery or a returned message is a
// method, a header and body frames. Pure: frames in, effects out. The connection's thread performs the effects.

struct ChannelConversation {
    /// What the thread has to do after a frame.
    enum Effect {
        case answer(OneShot<QueueState?>, Result<QueueState?, any Error>)
        case published(OneShot<Void>, Result<Void, any Error>)
        case report(AMQPEvent)
        /// Say channel.close-ok or connection.close-ok, then end the connection with this error.
        case endAfterChannelClose(AMQPError)
        case endAfterConnectionClose(AMQPError)
        case end(AMQPError)
    }

    private struct PendingRequest {
        var request: BrokerRequest
        var result: OneShot<QueueState?>
    }

    private struct PendingPublish {
        var message: AMQPMessage
        var target: PublishTarget
        var result: OneShot<Void>
        /// basic.return comes before the acknowledgement of the same message.
        var returned: AMQPError?
    }

    /// A message that is arriving.
    private struct Assembly {
        enum Purpose {
            case delivery(tag: UInt64, consumerTag: String, isRedelivered: Bool, exchange: String, routingKey: String)
            case returned(code: UInt16, text: String, exchange: String, routingKey: String)
        }
        var purpose: Purpose
        var message: AMQPMessage?
        var expected: UInt64 = 0
        var received: UInt64 = 0
    }

    private let maximumBodyByteCount: Int
    private var requests: [PendingRequest] = []
    private var publishes: [UInt64: PendingPublish] = [:]
    private var lastPublishNumber: UInt64 = 0
    private var assembly: Assembly?

    init(maximumBodyByteCount: Int) {
        self.maximumBodyByteCount = maximumBodyByteCount
    }

    mutating func sent(_ request: BrokerRequest, _ result: OneShot<QueueState?>) {
        requests.append(PendingRequest(request: request, result: result))
    }

    /// Confirms are numbered from 1 in the order of publishing.
    mutating func sent(_ message: AMQPMessage, to target: PublishTarget, _ result: OneShot<Void>) {
        lastPublishNumber += 1
        publishes[lastPublishNumber] = PendingPublish(message: message, target: target, result: result)
    }

    /// Everything still unanswered, when the connection is gone.
    mutating func abandon(_ error: AMQPError) -> [Effect] {
        defer {
            requests = []
            publishes = [:]
        }
        return requests.map { .answer($0.result, .failure(error)) }
            + publishes.values.map { .published($0.result, .failure(error)) }
    }

    mutating func receive(_ frame: BrokerFrame) -> [Effect] {
        switch frame {
        case .header(let size, let properties): return receiveHeader(size, properties)
        case .body(let bytes): return receiveBody(bytes)
        case .deliver(let tag, let consumer, let isRedelivered, let exchange, let key):
            return begin(
                .delivery(
                    tag: tag, consumerTag: consumer, isRedelivered: isRedelivered, exchange: exchange, routingKey: key))
        case .returned(let code, let text, let exchange, let key):
            return begin(.returned(code: code, text: text, exchange: exchange, routingKey: key))
        case .acknowledged(let tag, let isMultiple): return confirm(tag, isMultiple, refused: false)
        case .refused(let tag, let isMultiple): return confirm(tag, isMultiple, refused: true)
        case .consumerCancelled(let tag): return [.report(.consumerCancelled(tag: tag))]
        case .blocked(let reason): return [.report(.blocked(reason: reason))]
        case .unblocked: return [.report(.unblocked)]
        case .queueDeclared(let state): return answer(MethodNumber.queueDeclareOK, state)
        case .done(let method): return answer(method, nil)
        case .channelClose(let code, let text):
            let operation = requests.first?.request.description ?? "use channel"
            return [
                .endAfterChannelClose(AMQPError(.channelClosed, operation, reason: text, replyCode: code))
            ]
        case .connectionClose(let code, let text):
            return [
                .endAfterConnectionClose(
                    AMQPError(.connectionLost, "keep connection", reason: text, replyCode: code))
            ]
        case .connectionCloseOK:
            return [.end(AMQPError(.closed, "use connection", reason: "closed"))]
        case .start, .secure, .tune: return violation("a login method after login")
        }
    }

    private func violation(_ reason: String) -> [Effect] {
        [.end(AMQPError(.protocolViolation, "read from the broker", reason: reason))]
    }

    private mutating func answer(_ method: UInt32, _ state: QueueState?) -> [Effect] {
        guard let first = requests.first, first.request.answer == method else {
            return violation("method \(method) answers nothing we asked")
        }
        requests.removeFirst()
        return [.answer(first.result, .success(state))]
    }

    private mutating func confirm(_ tag: UInt64, _ isMultiple: Bool, refused: Bool) -> [Effect] {
        // Tag 0 with multiple means all; numbers we never sent are ignored.
        let numbers =
            isMultiple ? publishes.keys.filter { tag == 0 || $0 <= tag }.sorted() : publishes[tag] == nil ? [] : [tag]
        return numbers.compactMap { number in
            guard let publish = publishes.removeValue(forKey: number) else { return nil }
            let operation = "publish to \(publish.target.exchange)/\(publish.target.routingKey)"
            if let returned = publish.returned { return .published(publish.result, .failure(returned)) }
            if refused {
                return .published(
                    publish.result, .failure(AMQPError(.refused, operation, reason: "the broker refused the message")))
            }
            return .published(publish.result, .success(()))
        }
    }

    private mutating func begin(_ purpose: Assembly.Purpose) -> [Effect] {
        guard assembly == nil else { return violation("a message inside a message") }
        assembly = Assembly(purpose: purpose)
        return []
    }

    private mutating func receiveHeader(_ size: UInt64, _ properties: AMQPMessage) -> [Effect] {
        guard assembly != nil, assembly?.message == nil else { return violation("a header without a method") }
        assembly?.message = properties
        assembly?.expected = size
        return size == 0 ? finish() : []
    }

    private mutating func receiveBody(_ bytes: [UInt8]) -> [Effect] {
        // Only numbers are copied out: a second reference to the body would copy it with every frame.
        guard assembly?.message != nil, let before = assembly?.received, let expected = assembly?.expected else {
            return violation("a body without a header")
        }
        let (received, overflow) = before.addingReportingOverflow(UInt64(bytes.count))
        guard !overflow, received <= expected else { return violation("more body than announced") }
        assembly?.received = received
        if expected <= UInt64(maximumBodyByteCount) { assembly?.message?.body.append(contentsOf: bytes) }
        return received == expected ? finish() : []
    }

    private mutating func finish() -> [Effect] {
        guard let complete = assembly, let message = complete.message else { return [] }
        assembly = nil
        let isOversized = complete.expected > UInt64(maximumBodyByteCount)
        switch complete.purpose {
        case .delivery(let tag, let consumerTag, let isRedelivered, let exchange, let routingKey):
            return [
                .report(
                    .delivery(
                        Delivery(
                            consumerTag: consumerTag, deliveryTag: tag, isRedelivered: isRedelivered,
                            exchange: exchange,
                            routingKey: routingKey, message: message, isOversized: isOversized)))
            ]
        case .returned(let code, let text, let exchange, let routingKey):
            // The frame does not say which publish it was: bodies differ, each carries an id of its own.
            let number = publishes.filter { entry in
                let publish = entry.value
                return publish.target.isMandatory && publish.returned == nil && publish.target.exchange == exchange
                    && publish.target.routingKey == routingKey
                    && (isOversized || publish.message.body == message.body)
            }.keys.min()
            if let number {
                publishes[number]?.returned = AMQPError(
                    .unroutable, "publish to \(exchange)/\(routingKey)", reason: text, replyCode: code)
            }
            return []
        }
    }
}
