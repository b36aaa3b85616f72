// One question to a local socket: connect, send, collect bytes until the answer is complete, all before one deadline.
import NIOCore
import NIOPosix
import Synchronization

enum SocketExchange {
    enum Address: CustomStringConvertible {
        case unix(String)
        case network(host: String, port: Int)

        var description: String {
            switch self {
            case .unix(let path): path
            case .network(let host, let port): "\(host):\(port)"
            }
        }
    }
    static let byteLimit = 1 << 20

    /// Bytes until `isComplete` says so or the peer closes.
    static func ask(
        _ address: Address, _ question: [UInt8], within limit: Duration,
        isComplete: @escaping @Sendable ([UInt8]) -> Bool = { _ in false }
    ) async throws -> [UInt8] {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let answer = loop.makePromise(of: [UInt8].self)
        let deadline = loop.scheduleTask(in: TimeAmount(limit)) {
            answer.fail(Failure("\(address) did not answer within \(limit)"))
        }
        let bootstrap = ClientBootstrap(group: loop).channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandler(Collector(answer: answer, isComplete: isComplete))
            }
        }
        let connected =
            switch address {
            case .unix(let path): bootstrap.connect(unixDomainSocketPath: path)
            case .network(let host, let port): bootstrap.connect(host: host, port: port)
            }
        connected.whenFailure { answer.fail(Failure("\(address) cannot be reached: \($0)")) }
        connected.whenSuccess { channel in
            channel.writeAndFlush(channel.allocator.buffer(bytes: question), promise: nil)
            answer.futureResult.whenComplete { _ in channel.close(promise: nil) }
        }
        defer { deadline.cancel() }
        return try await answer.futureResult.get()
    }

    private final class Collector: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let answer: EventLoopPromise<[UInt8]>
        private let isComplete: @Sendable ([UInt8]) -> Bool
        private var bytes: [UInt8] = []

        init(answer: EventLoopPromise<[UInt8]>, isComplete: @escaping @Sendable ([UInt8]) -> Bool) {
            self.answer = answer
            self.isComplete = isComplete
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            bytes.append(contentsOf: unwrapInboundIn(data).readableBytesView)
            if bytes.count > byteLimit {
                answer.fail(Failure("an answer of more than \(byteLimit) bytes"))
            } else if isComplete(bytes) {
                answer.succeed(bytes)
            }
        }
        func channelInactive(context: ChannelHandlerContext) { answer.succeed(bytes) }
        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            answer.fail(Failure("the connection broke: \(error)"))
            context.close(promise: nil)
        }
    }
}
