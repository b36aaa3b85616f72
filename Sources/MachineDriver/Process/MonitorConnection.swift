// The control connection to one monitor: requests with ids and deadlines, replies in any order, events in between. Everything
// of a connection happens on its event loop.
import JSON
import MonitorProtocol
import NIOCore
import NIOPosix

/// Why a monitor did not do what it was asked.
enum MonitorFault: Error, Sendable, CustomStringConvertible {
    case refused(command: String, MonitorRefusal)
    case timedOut(command: String, seconds: Double)
    /// The connection ended, or there is none.
    case disconnected
    /// What came is no message of this protocol.
    case malformed(String)

    var description: String {
        switch self {
        case .refused(let command, let refusal): "the monitor refused \(command): \(refusal)"
        case .timedOut(let command, let seconds): "the monitor did not answer \(command) within \(seconds) s"
        case .disconnected: "the connection to the monitor ended"
        case .malformed(let reason): "the monitor's answer is malformed: \(reason)"
        }
    }
}

extension Duration {
    var timeAmount: TimeAmount {
        .nanoseconds(components.seconds * 1_000_000_000 + components.attoseconds / 1_000_000_000)
    }
    var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}

/// A connection that has greeted. Thread-safe.
final class MonitorConnection: Sendable {
    private let channel: any Channel
    var eventLoop: any EventLoop { channel.eventLoop }

    private init(channel: any Channel) { self.channel = channel }

    /// Connects and waits for the greeting. `onEvent` and `onClose` are called on the event loop; `onClose` once, and only for
    /// a connection that this returned.
    static func open(
        _ path: String, on eventLoop: any EventLoop, timeout: Duration,
        onEvent: @escaping @Sendable (MonitorEvent) -> Void, onClose: @escaping @Sendable () -> Void
    ) -> EventLoopFuture<MonitorConnection> {
        let greeting = eventLoop.makePromise(of: Void.self)
        let expiry = eventLoop.scheduleTask(in: timeout.timeAmount) {
            greeting.fail(MonitorFault.timedOut(command: "the connection", seconds: timeout.inSeconds))
        }
        let connected = ClientBootstrap(group: eventLoop)
            .connectTimeout(timeout.timeAmount)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(MonitorHandler(greeting: greeting, onEvent: onEvent))
                }
            }
            .connect(unixDomainSocketPath: path)
        connected.whenFailure { greeting.fail($0) }
        return connected.flatMap { channel in
            greeting.futureResult.map {
                expiry.cancel()
                channel.closeFuture.whenComplete { _ in onClose() }
                return MonitorConnection(channel: channel)
            }.flatMapErrorThrowing { error in
                expiry.cancel()
                channel.close(promise: nil)
                throw error
            }
        }
    }

    /// Sends a command; the future ends with its reply, at the deadline, or with the connection.
    func send(_ command: MonitorCommand, timeout: Duration) -> EventLoopFuture<JSONValue> {
        let call = MonitorCall(command: command, timeout: timeout, answer: eventLoop.makePromise())
        channel.writeAndFlush(call).whenFailure {
            call.answer.fail($0 is ChannelError ? MonitorFault.disconnected : $0)
        }
        return call.answer.futureResult
    }

    /// As `send`; a cancelled task stops waiting.
    func execute(_ command: MonitorCommand, timeout: Duration) async throws -> JSONValue {
        try await send(command, timeout: timeout).cancellableValue()
    }

    func close() { channel.close(promise: nil) }
}

extension EventLoopFuture where Value: Sendable {
    /// The value; a cancelled task stops waiting for it.
    func cancellableValue() async throws -> Value {
        let promise = eventLoop.makePromise(of: Value.self)
        cascade(to: promise)
        return try await withTaskCancellationHandler {
            try await promise.futureResult.get()
        } onCancel: {
            promise.fail(CancellationError())
        }
    }

    /// The value, or nil when `limit` has passed first; a cancelled task stops waiting.
    func value(within limit: Duration) async throws -> Value? {
        let promise = eventLoop.makePromise(of: Value?.self)
        let expiry = eventLoop.scheduleTask(in: limit.timeAmount) { promise.succeed(nil) }
        map { Optional($0) }.cascade(to: promise)
        defer { expiry.cancel() }
        return try await promise.futureResult.cancellableValue()
    }
}

/// One request on its way through the channel.
struct MonitorCall: Sendable {
    let command: MonitorCommand
    let timeout: Duration
    let answer: EventLoopPromise<JSONValue>
}

/// Lines in, lines out; who waits for which id.
private final class MonitorHandler: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = MonitorCall
    typealias OutboundOut = ByteBuffer

    private struct Waiting {
        let answer: EventLoopPromise<JSONValue>
        let command: String
        let expiry: Scheduled<Void>
    }
    private var framer = LineFramer(limit: LineFramer.replyLimit)
    private var waiting: [Int64: Waiting] = [:]
    private var nextID: Int64 = 1
    private let greeting: EventLoopPromise<Void>
    private let onEvent: @Sendable (MonitorEvent) -> Void

    init(greeting: EventLoopPromise<Void>, onEvent: @escaping @Sendable (MonitorEvent) -> Void) {
        self.greeting = greeting
        self.onEvent = onEvent
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        framer.append(unwrapInboundIn(data).readableBytesView)
        do {
            while let line = try framer.next() {
                if !line.isEmpty { receive(try MonitorMessage(parsing: line)) }
            }
        } catch {
            fail(MonitorFault.malformed("\(error)"))
            context.close(promise: nil)
        }
    }

    private func receive(_ message: MonitorMessage) {
        switch message {
        case .greeting: greeting.succeed()
        case .event(let event): onEvent(event)
        case .reply(let reply):
            // A reply that nobody waits for came after its deadline.
            guard case .integer(let id)? = reply.id, let call = waiting.removeValue(forKey: id) else { return }
            call.expiry.cancel()
            switch reply.outcome {
            case .success(let value): call.answer.succeed(value)
            case .failure(let refusal): call.answer.fail(MonitorFault.refused(command: call.command, refusal))
            }
        }
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        let call = unwrapOutboundIn(data)
        let id = nextID
        nextID += 1
        let command = call.command.name, seconds = call.timeout.inSeconds
        let expiry = context.eventLoop.assumeIsolated().scheduleTask(in: call.timeout.timeAmount) {
            guard let call = self.waiting.removeValue(forKey: id) else { return }
            call.answer.fail(MonitorFault.timedOut(command: command, seconds: seconds))
        }
        waiting[id] = Waiting(answer: call.answer, command: command, expiry: expiry)
        let line = MonitorRequest(call.command, id: .integer(id)).line
        context.write(wrapOutboundOut(context.channel.allocator.buffer(bytes: line)), promise: promise)
    }

    func channelInactive(context: ChannelHandlerContext) {
        fail(MonitorFault.disconnected)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
    }

    private func fail(_ fault: MonitorFault) {
        greeting.fail(fault)
        for call in waiting.values {
            call.expiry.cancel()
            call.answer.fail(fault)
        }
        waiting = [:]
    }
}
