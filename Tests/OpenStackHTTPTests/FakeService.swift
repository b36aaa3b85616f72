// A real HTTP/1 server on loopback that plays a service: each path has a queue of answers, the last of which stays, and
// every request is kept for the test to look at.
import JSON
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

struct FakeAnswer: Sendable {
    var status = 200
    var headers: [(String, String)] = []
    var body: [UInt8] = []
    /// Closes after this many bytes of the body.
    var cutAfter: Int?
    var delay: Duration = .zero
    /// No Content-Length: the body ends with the last chunk.
    var isChunked = false

    static func json(_ value: JSONValue, status: Int = 200, headers: [(String, String)] = []) -> FakeAnswer {
        FakeAnswer(status: status, headers: headers, body: value.serializedBytes())
    }
}

struct RecordedRequest: Sendable {
    var method: String
    var target: String
    var headers: HTTPHeaders
    var body: [UInt8]

    var json: JSONValue? { try? JSONValue.parse(body) }
}

final class FakeService: Sendable {
    private struct State {
        var answers: [String: [FakeAnswer]] = [:]
        var requests: [RecordedRequest] = []
    }
    private let state = Mutex(State())
    private let channel = Mutex<(any Channel)?>(nil)

    var requests: [RecordedRequest] { state.withLock { $0.requests } }
    var url: String { "http://127.0.0.1:\(channel.withLock { $0?.localAddress?.port } ?? 0)" }

    /// `route` is a method and a path without its query: "GET /v2.0/ports".
    func on(_ route: String, _ answers: FakeAnswer...) { state.withLock { $0.answers[route] = answers } }

    func requests(_ route: String) -> [RecordedRequest] {
        requests.filter { "\($0.method) \($0.target.prefix { $0 != "?" })" == route }
    }

    func start() async throws {
        let bound = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(FakeHandler(service: self))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        channel.withLock { $0 = bound }
    }

    func stop() async { try? await channel.withLock { $0 }?.close() }

    fileprivate func answer(_ request: RecordedRequest) -> FakeAnswer {
        state.withLock { state in
            state.requests.append(request)
            let route = "\(request.method) \(request.target.prefix { $0 != "?" })"
            guard var queue = state.answers[route], let first = queue.first else {
                return FakeAnswer(status: 404, body: Array("nothing here".utf8))
            }
            if queue.count > 1 { queue.removeFirst() }
            state.answers[route] = queue
            return first
        }
    }
}

private final class FakeHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let service: FakeService
    private var request: RecordedRequest?

    init(service: FakeService) { self.service = service }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            request = RecordedRequest(method: head.method.rawValue, target: head.uri, headers: head.headers, body: [])
        case .body(let part): request?.body += part.readableBytesView
        case .end:
            guard let request else { return }
            let answer = service.answer(request)
            let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
            context.eventLoop.scheduleTask(in: TimeAmount(answer.delay)) {
                let (handler, context) = bound.value
                handler.write(answer, context)
            }
        }
    }

    private func write(_ answer: FakeAnswer, _ context: ChannelHandlerContext) {
        var headers = HTTPHeaders(answer.headers)
        if !answer.isChunked { headers.replaceOrAdd(name: "Content-Length", value: "\(answer.body.count)") }
        let head = HTTPResponseHead(version: .http1_1, status: .init(statusCode: answer.status), headers: headers)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        let body = ByteBuffer(bytes: answer.body.prefix(answer.cutAfter ?? answer.body.count))
        let channel = context.channel
        let written = context.writeAndFlush(wrapOutboundOut(.body(.byteBuffer(body))))
        if answer.cutAfter != nil { return written.whenComplete { _ in channel.close(promise: nil) } }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }
}
