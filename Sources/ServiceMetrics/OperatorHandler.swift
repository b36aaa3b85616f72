// The two channel handlers of the listener: one that bounds an exchange in bytes and time before HTTP is parsed, and one
// that turns a request into its answer. Both run on their channel's event loop alone.
import NIOCore
import NIOHTTP1

/// Closes a connection that sends too much for one request, or whose exchange takes too long in either direction.
final class ExchangeGuard: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = IOData
    typealias OutboundOut = IOData

    private let timeout: TimeAmount
    private let byteLimit: Int
    private var byteCount = 0
    private var timer: Scheduled<Void>?

    init(timeout: TimeAmount, byteLimit: Int) {
        self.timeout = timeout
        self.byteLimit = byteLimit
    }

    func channelActive(context: ChannelHandlerContext) {
        startTimer(context)
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        timer?.cancel()
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        byteCount += unwrapInboundIn(data).readableBytes
        guard byteCount <= byteLimit else { return context.close(promise: nil) }
        context.fireChannelRead(data)
    }

    /// An answer is out: the next request starts with a fresh budget.
    func exchangeEnded(_ channel: any Channel) {
        byteCount = 0
        timer?.cancel()
        timer = channel.eventLoop.scheduleTask(in: timeout) { channel.close(promise: nil) }
    }

    private func startTimer(_ context: ChannelHandlerContext) {
        let channel = context.channel
        timer = context.eventLoop.scheduleTask(in: timeout) { channel.close(promise: nil) }
    }
}

final class OperatorHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let responder: OperatorResponder
    private let guardian: ExchangeGuard
    private var head: HTTPRequestHead?

    init(responder: OperatorResponder, guardian: ExchangeGuard) {
        self.responder = responder
        self.guardian = guardian
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): self.head = head
        case .body: break  // bounded by the guard, and of no interest
        case .end:
            guard let head else { return }
            self.head = nil
            respond(to: head, context)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
    }

    private func respond(to head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        let responder = responder
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        context.eventLoop.makeFutureWithTask {
            await responder.answer(head.method, head.uri)
        }.whenSuccess { answer in
            let (handler, context) = bound.value
            handler.write(answer, to: head, context)
        }
    }

    private func write(_ answer: OperatorAnswer, to head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        let body = context.channel.allocator.buffer(string: answer.body)
        var headers: HTTPHeaders = [
            "Content-Type": answer.contentType, "Content-Length": "\(body.readableBytes)", "Cache-Control": "no-store",
        ]
        if let allow = answer.allow { headers.add(name: "Allow", value: allow) }
        if !head.isKeepAlive { headers.add(name: "Connection", value: "close") }
        let response = HTTPResponseHead(version: head.version, status: answer.status, headers: headers)
        context.write(wrapOutboundOut(.head(response)), promise: nil)
        if head.method != .HEAD { context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil) }
        let bound = NIOLoopBound((guardian, context.channel), eventLoop: context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in
            let (guardian, channel) = bound.value
            if head.isKeepAlive { guardian.exchangeEnded(channel) } else { channel.close(promise: nil) }
        }
    }
}
