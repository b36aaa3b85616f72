// From the C side's flat frame to a Swift value; everything is copied, the buffers belong to the next call.
import CRabbitMQ

/// Method numbers of AMQP 0-9-1: class in the upper half, method in the lower.
enum MethodNumber {
    static let connectionStart: UInt32 = 0x000A_000A
    static let connectionSecure: UInt32 = 0x000A_0014
    static let connectionTune: UInt32 = 0x000A_001E
    static let connectionOpenOK: UInt32 = 0x000A_0029
    static let connectionClose: UInt32 = 0x000A_0032
    static let connectionCloseOK: UInt32 = 0x000A_0033
    static let connectionBlocked: UInt32 = 0x000A_003C
    static let connectionUnblocked: UInt32 = 0x000A_003D
    static let channelOpenOK: UInt32 = 0x0014_000B
    static let channelClose: UInt32 = 0x0014_0028
    static let exchangeDeclareOK: UInt32 = 0x0028_000B
    static let queueDeclareOK: UInt32 = 0x0032_000B
    static let queueBindOK: UInt32 = 0x0032_0015
    static let queueDeleteOK: UInt32 = 0x0032_0029
    static let basicQosOK: UInt32 = 0x003C_000B
    static let basicConsumeOK: UInt32 = 0x003C_0015
    static let basicCancel: UInt32 = 0x003C_001E
    static let basicCancelOK: UInt32 = 0x003C_001F
    static let basicReturn: UInt32 = 0x003C_0032
    static let basicDeliver: UInt32 = 0x003C_003C
    static let basicAck: UInt32 = 0x003C_0050
    static let basicNack: UInt32 = 0x003C_0078
    static let confirmSelectOK: UInt32 = 0x0055_000B
}

extension BrokerRequest {
    /// The method that answers it.
    var answer: UInt32 {
        switch self {
        case .openChannel: MethodNumber.channelOpenOK
        case .selectConfirms: MethodNumber.confirmSelectOK
        case .declareExchange: MethodNumber.exchangeDeclareOK
        case .declareQueue: MethodNumber.queueDeclareOK
        case .bind: MethodNumber.queueBindOK
        case .deleteQueue: MethodNumber.queueDeleteOK
        case .setPrefetch: MethodNumber.basicQosOK
        case .consume: MethodNumber.basicConsumeOK
        case .cancelConsumer: MethodNumber.basicCancelOK
        }
    }
}

extension BrokerFrame {
    /// nil for a frame that means nothing to us.
    init?(_ frame: apus_amqp_frame) {
        // SAFETY, for all below: the byte ranges are librabbitmq's, valid until the next frame is read; they are copied here.
        func text(_ bytes: amqp_bytes_t) -> String {
            unsafe String(decoding: UnsafeRawBufferPointer(start: bytes.bytes, count: bytes.len), as: UTF8.self)
        }
        let number = unsafe frame.number
        let second = unsafe frame.second
        let flag = unsafe frame.flag != 0
        switch unsafe Int32(frame.kind) {
        case AMQP_FRAME_HEADER:
            let expiration = unsafe text(frame.expiration)
            self = unsafe .header(
                bodySize: number,
                properties: AMQPMessage(
                    body: [], contentType: text(frame.text), contentEncoding: text(frame.encoding),
                    deliveryMode: frame.delivery_mode, priority: frame.priority,
                    expiration: expiration.isEmpty ? nil : expiration))
            return
        case AMQP_FRAME_BODY:
            self = unsafe .body(Array(UnsafeRawBufferPointer(start: frame.text.bytes, count: frame.text.len)))
            return
        case AMQP_FRAME_METHOD: break
        default: return nil
        }
        let code = UInt16(truncatingIfNeeded: number)
        switch unsafe frame.method {
        case MethodNumber.connectionStart: self = unsafe .start(mechanisms: text(frame.text))
        case MethodNumber.connectionSecure: self = .secure
        case MethodNumber.connectionTune:
            self = .tune(
                channelMax: UInt16(truncatingIfNeeded: second >> 16), frameMax: UInt32(truncatingIfNeeded: number),
                heartbeat: UInt16(truncatingIfNeeded: second))
        case MethodNumber.connectionClose: self = unsafe .connectionClose(code: code, text: text(frame.text))
        case MethodNumber.connectionCloseOK: self = .connectionCloseOK
        case MethodNumber.channelClose: self = unsafe .channelClose(code: code, text: text(frame.text))
        case MethodNumber.connectionBlocked: self = unsafe .blocked(reason: text(frame.text))
        case MethodNumber.connectionUnblocked: self = .unblocked
        case MethodNumber.basicDeliver:
            self = unsafe .deliver(
                tag: number, consumerTag: text(frame.text), isRedelivered: flag, exchange: text(frame.exchange),
                routingKey: text(frame.key))
        case MethodNumber.basicReturn:
            self = unsafe .returned(
                code: code, text: text(frame.text), exchange: text(frame.exchange), routingKey: text(frame.key))
        case MethodNumber.basicAck: self = .acknowledged(tag: number, isMultiple: flag)
        case MethodNumber.basicNack: self = .refused(tag: number, isMultiple: flag)
        case MethodNumber.basicCancel: self = unsafe .consumerCancelled(tag: text(frame.text))
        case MethodNumber.queueDeclareOK:
            self = .queueDeclared(
                QueueState(
                    messageCount: Int(truncatingIfNeeded: number), consumerCount: Int(truncatingIfNeeded: second)))
        default: self = unsafe .done(method: frame.method)
        }
    }
}
