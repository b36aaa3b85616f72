// One librabbitmq connection state, used by one thread. It sends methods and reads single frames; what they mean for the
// conversation is `ChannelConversation`'s business. librabbitmq may block in sending (a full socket): another thread then ends
// the wait with `shutdown` on the descriptor, see `RabbitConnection.abort`.
import CRabbitMQ
import Glibc

/// A frame of the broker, as far as the driver looks at it.
enum BrokerFrame: Equatable {
    case start(mechanisms: String)
    case secure
    case tune(channelMax: UInt16, frameMax: UInt32, heartbeat: UInt16)
    case connectionClose(code: UInt16, text: String)
    case connectionCloseOK
    case channelClose(code: UInt16, text: String)
    case blocked(reason: String)
    case unblocked
    case deliver(tag: UInt64, consumerTag: String, isRedelivered: Bool, exchange: String, routingKey: String)
    case returned(code: UInt16, text: String, exchange: String, routingKey: String)
    case acknowledged(tag: UInt64, isMultiple: Bool)
    case refused(tag: UInt64, isMultiple: Bool)
    case consumerCancelled(tag: String)
    case queueDeclared(QueueState)
    /// The answer to any other synchronous method.
    case done(method: UInt32)
    case header(bodySize: UInt64, properties: AMQPMessage)
    case body([UInt8])
}

/// A method we send and the broker answers.
package enum BrokerRequest: Sendable, Equatable {
    case openChannel
    case selectConfirms
    case declareExchange(ExchangeDeclaration)
    case declareQueue(QueueDeclaration)
    case bind(queue: String, exchange: String, routingKey: String)
    case deleteQueue(String)
    case setPrefetch(UInt16)
    case consume(queue: String, tag: String, arguments: [String: FieldValue])
    case cancelConsumer(tag: String)
}

@safe struct RabbitLink: ~Copyable {
    static let channel: UInt16 = 1

    private let state: amqp_connection_state_t
    /// The socket, for poll and for `shutdown` from another thread while this value lives.
    let descriptor: Int32

    /// Connects; blocks for up to `timeout`, and in name resolution for as long as the resolver takes.
    init(to broker: BrokerAddress, tls: TLSSettings?, timeout: Duration) throws(AMQPError) {
        let operation = "connect to \(broker)"
        // SAFETY: the state is freed once, here on failure or in deinit; the socket belongs to the state.
        guard let state = unsafe amqp_new_connection() else {
            throw AMQPError(.connectFailed, operation, reason: "out of memory")
        }
        let socket = unsafe tls == nil ? amqp_tcp_socket_new(state) : amqp_ssl_socket_new(state)
        guard let socket = unsafe socket else {
            unsafe amqp_destroy_connection(state)
            throw AMQPError(.connectFailed, operation, reason: "no socket")
        }
        var status = AMQP_STATUS_OK.rawValue
        if let tls {
            unsafe amqp_ssl_socket_set_verify_peer(socket, tls.caFile == nil ? 0 : 1)
            unsafe amqp_ssl_socket_set_verify_hostname(socket, tls.caFile != nil && tls.verifiesHostName ? 1 : 0)
            if let file = tls.caFile { status = unsafe amqp_ssl_socket_set_cacert(socket, file) }
            if status == 0, let certificate = tls.certificateFile {
                status = unsafe amqp_ssl_socket_set_key(socket, certificate, tls.keyFile ?? certificate)
            }
        }
        if status == 0 {
            let (seconds, attoseconds) = timeout.components
            var limit = timeval(tv_sec: Int(seconds), tv_usec: Int(attoseconds / 1_000_000_000_000))
            status = unsafe amqp_socket_open_noblock(socket, broker.host, Int32(clamping: broker.port), &limit)
        }
        guard status == 0 else {
            let reason = Self.describe(status)
            unsafe amqp_destroy_connection(state)
            throw AMQPError(.connectFailed, operation, reason: reason)
        }
        unsafe self.state = unsafe state
        descriptor = unsafe amqp_get_sockfd(state)
    }

    deinit {
        // SAFETY: only this value knows the state. The socket is shut down first, so that TLS has nothing to wait for.
        _ = shutdown(descriptor, Int32(SHUT_RDWR))
        unsafe amqp_destroy_connection(state)
    }

    /// librabbitmq's word for a status.
    private static func describe(_ status: Int32) -> String {
        // SAFETY: the library answers with a static text for every number.
        unsafe String(cString: amqp_error_string2(status))
    }

    private func check(_ status: Int32, _ operation: String) throws(AMQPError) {
        guard status == AMQP_STATUS_OK.rawValue else {
            throw AMQPError(.connectionLost, operation, reason: Self.describe(status))
        }
    }

    // SAFETY, for all below: the state is alive and this is its thread; C strings and buffers live for the call.

    func sendHeader() throws(AMQPError) { try check(unsafe amqp_send_header(state), "send protocol header") }

    func startOK(_ method: LoginMethod, response: [UInt8], name: String) throws(AMQPError) {
        let status = unsafe response.withUnsafeBytes {
            unsafe apus_amqp_start_ok(state, method.rawValue, $0.baseAddress, $0.count, name)
        }
        try check(status, "log in")
    }

    func tuneOK(channelMax: UInt16, frameMax: UInt32, heartbeat: UInt16) throws(AMQPError) {
        try check(unsafe apus_amqp_tune_ok(state, channelMax, frameMax, heartbeat), "tune connection")
    }

    func open(_ virtualHost: String) throws(AMQPError) {
        try check(unsafe apus_amqp_open(state, virtualHost), "open virtual host")
    }

    func close() throws(AMQPError) { try check(unsafe apus_amqp_close(state), "close connection") }
    func closeOK() throws(AMQPError) { try check(unsafe apus_amqp_close_ok(state), "close connection") }
    func heartbeat() throws(AMQPError) { try check(unsafe apus_amqp_heartbeat(state), "send heartbeat") }

    func channelCloseOK() throws(AMQPError) {
        try check(unsafe apus_amqp_channel_close_ok(state, Self.channel), "close channel")
    }

    func acknowledge(_ tag: UInt64) throws(AMQPError) {
        try check(unsafe apus_amqp_ack(state, Self.channel, tag), "acknowledge")
    }

    func publish(_ message: AMQPMessage, to target: PublishTarget) throws(AMQPError) {
        let status = unsafe message.body.withUnsafeBytes { body in
            func send(_ expiration: UnsafePointer<CChar>?) -> Int32 {
                unsafe apus_amqp_publish(
                    state, Self.channel, target.exchange, target.routingKey, target.isMandatory ? 1 : 0,
                    message.contentType, message.contentEncoding, message.deliveryMode, message.priority, expiration,
                    body.baseAddress, body.count)
            }
            guard let expiration = message.expiration else { return send(nil) }
            return unsafe expiration.withCString { unsafe send($0) }
        }
        try check(status, "publish to \(target.exchange)/\(target.routingKey)")
    }

    func send(_ request: BrokerRequest) throws(AMQPError) {
        let channel = Self.channel
        let status: Int32
        switch request {
        case .openChannel: status = unsafe apus_amqp_channel_open(state, channel)
        case .selectConfirms: status = unsafe apus_amqp_confirm_select(state, channel)
        case .declareExchange(let exchange):
            status = unsafe apus_amqp_exchange_declare(
                state, channel, exchange.name, exchange.kind.rawValue, exchange.isPassive ? 1 : 0,
                exchange.isDurable ? 1 : 0, exchange.isAutoDeleted ? 1 : 0)
        case .declareQueue(let queue):
            status = unsafe Self.withTable(queue.arguments) { table in
                unsafe apus_amqp_queue_declare(
                    state, channel, queue.name, queue.isPassive ? 1 : 0, queue.isDurable ? 1 : 0,
                    queue.isExclusive ? 1 : 0, queue.isAutoDeleted ? 1 : 0, table)
            }
        case .bind(let queue, let exchange, let key):
            status = unsafe apus_amqp_queue_bind(state, channel, queue, exchange, key)
        case .deleteQueue(let name): status = unsafe apus_amqp_queue_delete(state, channel, name)
        case .setPrefetch(let count): status = unsafe apus_amqp_qos(state, channel, count)
        case .consume(let queue, let tag, let arguments):
            status = unsafe Self.withTable(arguments) { unsafe apus_amqp_consume(state, channel, queue, tag, $0) }
        case .cancelConsumer(let tag): status = unsafe apus_amqp_cancel(state, channel, tag)
        }
        try check(status, request.description)
    }

    private static func withTable(
        _ arguments: [String: FieldValue], _ body: (UnsafeMutablePointer<apus_amqp_table>?) -> Int32
    ) -> Int32 {
        guard !arguments.isEmpty, let table = unsafe apus_amqp_table_new() else { return body(nil) }
        defer { unsafe apus_amqp_table_free(table) }
        for (key, value) in arguments.sorted(by: { $0.key < $1.key }) {
            switch value {
            case .bool(let truth): unsafe apus_amqp_table_add_bool(table, key, truth ? 1 : 0)
            case .integer(let number): unsafe apus_amqp_table_add_integer(table, key, number)
            case .string(let text): unsafe apus_amqp_table_add_string(table, key, text)
            }
        }
        return unsafe body(table)
    }

    /// The next complete frame of our channel or of channel 0; nil where none has arrived. Never waits.
    func nextFrame() throws(AMQPError) -> BrokerFrame? {
        while true {
            var frame = unsafe apus_amqp_frame()
            let status = unsafe apus_amqp_next_frame(state, &frame)
            if status == AMQP_STATUS_TIMEOUT.rawValue { return nil }
            try check(status, "read from the broker")
            if let decoded = unsafe BrokerFrame(frame) { return decoded }
        }
    }
}

extension BrokerRequest: CustomStringConvertible {
    package var description: String {
        switch self {
        case .openChannel: "open channel"
        case .selectConfirms: "turn publisher confirms on"
        case .declareExchange(let exchange): "declare exchange \(exchange.name)"
        case .declareQueue(let queue): "declare queue \(queue.name)"
        case .bind(let queue, let exchange, _): "bind queue \(queue) to \(exchange)"
        case .deleteQueue(let name): "delete queue \(name)"
        case .setPrefetch: "set prefetch"
        case .consume(let queue, _, _): "consume from \(queue)"
        case .cancelConsumer(let tag): "cancel consumer \(tag)"
        }
    }
}
