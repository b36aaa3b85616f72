import Glibc
// A connection to RabbitMQ. One thread owns the librabbitmq state: it connects, logs in, then waits for frames and for
// commands. Callers put a command into a list, wake the thread and wait for a one-shot result with a deadline of their own, so a
// thread that is stuck in the C library (a resolver, a full socket) never holds them. `abort` ends such a wait from outside.
//
//     connecting ──▶ open ──▶ closing ──▶ gone        every state can go to gone directly
package import Logging
import Synchronization

/// Makes connections over librabbitmq.
package struct RabbitConnector: AMQPConnector {
    private let logger: Logger

    package init(logger: Logger) {
        self.logger = logger
    }

    package func connect(
        to broker: BrokerAddress, settings: ConnectionSettings, onEvent: @escaping @Sendable (AMQPEvent) -> Void
    ) async throws -> any AMQPConnection {
        let connection = try RabbitConnection(broker: broker, settings: settings, onEvent: onEvent, logger: logger)
        try await connection.start()
        return connection
    }
}

package final class RabbitConnection: AMQPConnection {
    private enum Command {
        case request(BrokerRequest, OneShot<QueueState?>)
        case publish(AMQPMessage, PublishTarget, OneShot<Void>)
        case acknowledge(UInt64)
        case close
    }

    private struct Shared {
        var commands: [Command] = []
        /// Set while the link lives, so that `abort` can shut it down and never hits a number that was used again.
        var descriptor: Int32?
        /// Why the connection is to end, or has ended.
        var end: AMQPError?
        var isOpen = false
        var isBlocked = false
    }

    private let broker: BrokerAddress
    private let settings: ConnectionSettings
    private let onEvent: @Sendable (AMQPEvent) -> Void
    private let logger: Logger
    private let wakeUp: WakeUp
    private let shared = Mutex(Shared())
    private let opened = OneShot<Void>()
    private let gone = OneShot<Void>()

    init(
        broker: BrokerAddress, settings: ConnectionSettings, onEvent: @escaping @Sendable (AMQPEvent) -> Void,
        logger: Logger
    ) throws(AMQPError) {
        guard let wakeUp = WakeUp() else {
            throw AMQPError(
                .connectFailed, "connect to \(broker)", reason: "no event descriptor, errno \(errno) (host)")
        }
        self.wakeUp = wakeUp
        self.broker = broker
        self.settings = settings
        self.onEvent = onEvent
        self.logger = logger
    }

    func start() async throws {
        guard startConnectionThread({ self.runThread() }) else {
            throw AMQPError(.connectFailed, "connect to \(broker)", reason: "no thread (host)")
        }
        let late = AMQPError(
            .timedOut, "connect to \(broker)", reason: "not logged in within \(settings.connectTimeout)")
        do {
            try await opened.value(until: .now + settings.connectTimeout, or: late)
            try await request(.openChannel)
        } catch {
            abort(error as? AMQPError ?? AMQPError(.closed, "connect to \(broker)", reason: "cancelled"))
            throw error
        }
    }

    // MARK: AMQPConnection

    package var isOpen: Bool { shared.withLock { $0.isOpen && $0.end == nil } }
    package var isBlocked: Bool { shared.withLock { $0.isBlocked } }

    package func declare(_ exchange: ExchangeDeclaration) async throws { try await request(.declareExchange(exchange)) }

    @discardableResult
    package func declare(_ queue: QueueDeclaration) async throws -> QueueState {
        try await request(.declareQueue(queue)) ?? QueueState(messageCount: 0, consumerCount: 0)
    }

    package func bind(queue: String, exchange: String, routingKey: String) async throws {
        try await request(.bind(queue: queue, exchange: exchange, routingKey: routingKey))
    }

    package func deleteQueue(_ name: String) async throws { try await request(.deleteQueue(name)) }
    package func setPrefetch(_ count: UInt16) async throws { try await request(.setPrefetch(count)) }

    package func consume(queue: String, tag: String, arguments: [String: FieldValue]) async throws {
        try await request(.consume(queue: queue, tag: tag, arguments: arguments))
    }

    package func selectConfirms() async throws { try await request(.selectConfirms) }
    package func cancelConsumer(tag: String) async throws { try await request(.cancelConsumer(tag: tag)) }

    package func publish(_ message: AMQPMessage, to target: PublishTarget) async throws {
        let operation = "publish to \(target.exchange)/\(target.routingKey)"
        let result = OneShot<Void>()
        try enqueue(.publish(message, target, result), operation, unlessBlocked: true)
        try await answer(of: result, operation)
    }

    package func acknowledge(_ deliveryTag: UInt64) {
        try? enqueue(.acknowledge(deliveryTag), "acknowledge")
    }

    package func close() async {
        do {
            try enqueue(.close, "close")
            let late = AMQPError(.timedOut, "close connection", reason: "no answer in time")
            try await gone.value(until: .now + min(settings.answerTimeout, .seconds(3)), or: late)
        } catch {
            abort(AMQPError(.closed, "use connection to \(broker)", reason: "closed"))
        }
    }

    package func abort(_ reason: AMQPError) {
        shared.withLock { shared in
            if shared.end == nil { shared.end = reason }
            if let descriptor = shared.descriptor { _ = shutdown(descriptor, Int32(SHUT_RDWR)) }
        }
        opened.resolve(.failure(reason))
        wakeUp.signal()
    }

    @discardableResult
    private func request(_ request: BrokerRequest) async throws -> QueueState? {
        let result = OneShot<QueueState?>()
        try enqueue(.request(request, result), request.description)
        return try await answer(of: result, request.description)
    }

    private func enqueue(_ command: Command, _ operation: String, unlessBlocked: Bool = false) throws {
        try shared.withLock { shared in
            if let end = shared.end {
                throw AMQPError(end.code == .closed ? .closed : .connectionLost, operation, reason: end.reason)
            }
            if unlessBlocked, shared.isBlocked {
                throw AMQPError(.blocked, operation, reason: "the broker takes no messages for now")
            }
            shared.commands.append(command)
        }
        wakeUp.signal()
    }

    /// An answer that does not come leaves the conversation out of step: the connection ends.
    private func answer<Value>(of result: OneShot<Value>, _ operation: String) async throws -> Value {
        let late = AMQPError(.timedOut, operation, reason: "no answer within \(settings.answerTimeout)")
        do {
            return try await result.value(until: .now + settings.answerTimeout, or: late)
        } catch let error as AMQPError where error == late {
            abort(late)
            throw late
        }
    }

    // MARK: The thread

    private func runThread() {
        var conversation = ChannelConversation(maximumBodyByteCount: settings.maximumBodyByteCount)
        let end: AMQPError
        do throws(AMQPError) {
            let link = try RabbitLink(to: broker, tls: settings.tls, timeout: settings.connectTimeout)
            shared.withLock { $0.descriptor = link.descriptor }
            // The link closes its descriptor when this scope ends: nobody may know the number by then.
            defer { shared.withLock { $0.descriptor = nil } }
            setKernelTimeout(link.descriptor)
            let heartbeat = try logIn(link)
            shared.withLock { $0.isOpen = true }
            opened.resolve(.success(()))
            end = converse(link, heartbeat: heartbeat, &conversation)
        } catch {
            end = error
        }
        let wasOpen = shared.withLock { $0.isOpen }
        let reason = shared.withLock { shared in
            shared.isOpen = false
            shared.isBlocked = false
            if shared.end == nil { shared.end = end }
            return shared.end ?? end
        }
        opened.resolve(.failure(reason))
        for command in shared.withLock({ $0.commands }) {
            switch command {
            case .request(_, let result): result.resolve(.failure(reason))
            case .publish(_, _, let result): result.resolve(.failure(reason))
            case .acknowledge, .close: break
            }
        }
        for effect in conversation.abandon(reason) { perform(effect) }
        gone.resolve(.success(()))
        // A connection that never was is told to the caller of `connect`, and to nobody else.
        if wasOpen { onEvent(.closed(reason)) }
    }

    /// Unacknowledged data for longer than the heartbeat's time-out: the kernel ends the connection (as py-amqp asks it to).
    private func setKernelTimeout(_ descriptor: Int32) {
        guard settings.heartbeatSeconds > 0 else { return }
        var milliseconds = UInt32(clamping: settings.heartbeatSeconds * 1000)
        // SAFETY: the value lives for the call and has the size passed.
        unsafe setsockopt(
            descriptor, Int32(IPPROTO_TCP), TCP_USER_TIMEOUT, &milliseconds, socklen_t(MemoryLayout<UInt32>.size))
    }

    /// connection.start to connection.open-ok; answers with the heartbeat time-out agreed on.
    private func logIn(_ link: borrowing RabbitLink) throws(AMQPError) -> Int {
        let operation = "log in to \(broker)"
        let deadline = ContinuousClock.now + settings.connectTimeout
        func refused(_ reason: String, _ code: UInt16? = nil) -> AMQPError {
            AMQPError(.loginRefused, operation, reason: reason, replyCode: code)
        }
        try link.sendHeader()
        var heartbeat = 0
        while true {
            switch try nextFrame(link, until: deadline, operation) {
            case .start(let mechanisms):
                guard mechanisms.split(separator: " ").contains(where: { $0 == settings.loginMethod.rawValue }) else {
                    throw refused("the broker offers \(mechanisms), not \(settings.loginMethod.rawValue)")
                }
                let response = settings.loginMethod.response(user: broker.user, password: broker.password)
                try link.startOK(settings.loginMethod, response: response, name: settings.connectionName)
            case .secure: throw refused("a challenge, which \(settings.loginMethod.rawValue) does not have")
            case .tune(let channelMax, let frameMax, let offered):
                heartbeat = offered == 0 ? settings.heartbeatSeconds : min(Int(offered), settings.heartbeatSeconds)
                try link.tuneOK(
                    channelMax: channelMax, frameMax: frameMax == 0 ? 131_072 : min(frameMax, 131_072),
                    heartbeat: UInt16(clamping: heartbeat))
                try link.open(broker.virtualHost)
            case .connectionClose(let code, let text):
                try? link.closeOK()
                throw refused(text, code)
            case .done(MethodNumber.connectionOpenOK): return heartbeat
            case let frame: throw AMQPError(.protocolViolation, operation, reason: "unexpected frame \(frame)")
            }
        }
    }

    private func nextFrame(
        _ link: borrowing RabbitLink, until deadline: ContinuousClock.Instant, _ operation: String
    ) throws(AMQPError) -> BrokerFrame {
        while true {
            if let end = shared.withLock({ $0.end }) { throw end }
            do {
                if let frame = try link.nextFrame() { return frame }
            } catch {
                // Brokers before authentication_failure_close just hang up on a bad password.
                throw AMQPError(.loginRefused, operation, reason: error.reason)
            }
            let left = deadline - .now
            guard left > .zero else { throw AMQPError(.timedOut, operation, reason: "no answer in time") }
            if wakeUp.wait(orReadable: link.descriptor, timeout: left).isSignalled { wakeUp.clear() }
        }
    }

    /// The loop of an open connection; returns why it ended.
    private func converse(
        _ link: borrowing RabbitLink, heartbeat: Int, _ conversation: inout ChannelConversation
    ) -> AMQPError {
        var pulse = Heartbeat(timeoutSeconds: heartbeat, rate: settings.heartbeatRate, now: .now)
        var closeDeadline: ContinuousClock.Instant?
        do throws(AMQPError) {
            while true {
                let commands = shared.withLock { shared in
                    defer { shared.commands = [] }
                    return shared.commands
                }
                for (index, command) in commands.enumerated() {
                    if case .close = command { closeDeadline = .now + .seconds(2) }
                    do throws(AMQPError) {
                        try send(command, link, &conversation)
                    } catch {
                        // What was not sent is failed with the rest by the caller of this loop.
                        shared.withLock { $0.commands.insert(contentsOf: commands[(index + 1)...], at: 0) }
                        throw error
                    }
                }
                if !commands.isEmpty { pulse.sent(at: .now) }
                while let frame = try link.nextFrame() {
                    pulse.received(at: .now)
                    for effect in conversation.receive(frame) {
                        if let end = perform(effect, link) { return end }
                    }
                }
                if let end = shared.withLock({ $0.end }) { return end }
                let now = ContinuousClock.now
                if let closeDeadline, now >= closeDeadline {
                    return AMQPError(.closed, "use connection to \(broker)", reason: "closed")
                }
                switch pulse.due(at: now) {
                case .nothing: break
                case .send:
                    try link.heartbeat()
                    pulse.sent(at: now)
                case .dead:
                    return AMQPError(
                        .connectionLost, "keep connection to \(broker)",
                        reason: "the broker was silent for \(pulse.silenceLimit)")
                }
                let limit =
                    closeDeadline.map { min($0 - now, pulse.nextCheck(after: now)) } ?? pulse.nextCheck(after: now)
                let (isReadable, isSignalled) = wakeUp.wait(orReadable: link.descriptor, timeout: limit)
                if isSignalled { wakeUp.clear() }
                // Heartbeats are swallowed by librabbitmq: bytes are the sign of life.
                if isReadable { pulse.received(at: .now) }
            }
        } catch {
            return error
        }
    }

    private func send(
        _ command: Command, _ link: borrowing RabbitLink, _ conversation: inout ChannelConversation
    ) throws(AMQPError) {
        switch command {
        case .request(let request, let result):
            conversation.sent(request, result)
            try link.send(request)
        case .publish(let message, let target, let result):
            conversation.sent(message, to: target, result)
            try link.publish(message, to: target)
        case .acknowledge(let tag): try link.acknowledge(tag)
        case .close: try link.close()
        }
    }

    /// Carries an effect out; answers with the error the connection ends with.
    @discardableResult
    private func perform(_ effect: ChannelConversation.Effect) -> AMQPError? {
        switch effect {
        case .answer(let result, let value): result.resolve(value)
        case .published(let result, let value): result.resolve(value)
        case .report(let event):
            switch event {
            case .blocked(let reason):
                shared.withLock { $0.isBlocked = true }
                logger.warning(
                    "The broker blocks publishing", metadata: ["reason": "\(reason)", "broker": "\(broker)"])
            case .unblocked: shared.withLock { $0.isBlocked = false }
            case .delivery, .consumerCancelled, .closed: break
            }
            onEvent(event)
        case .end(let error), .endAfterChannelClose(let error), .endAfterConnectionClose(let error): return error
        }
        return nil
    }

    private func perform(_ effect: ChannelConversation.Effect, _ link: borrowing RabbitLink) -> AMQPError? {
        switch effect {
        case .endAfterChannelClose:
            try? link.channelCloseOK()
            try? link.close()
        case .endAfterConnectionClose: try? link.closeOK()
        default: break
        }
        return perform(effect)
    }
}
