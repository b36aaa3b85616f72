// The values of AMQP 0-9-1 that oslo.messaging uses: entities, messages, deliveries. AMQP's own words.

/// A value of a field table (AMQP 0-9-1 section 4.2.5.5; the kinds that occur here).
package enum FieldValue: Sendable, Equatable {
    case bool(Bool)
    case integer(Int64)
    case string(String)
}

package struct ExchangeDeclaration: Sendable, Hashable {
    package enum Kind: String, Sendable { case topic, fanout, direct }

    package var name: String
    package var kind: Kind
    package var isDurable: Bool
    package var isAutoDeleted: Bool
    /// Only asks whether it exists.
    package var isPassive: Bool

    package init(
        _ name: String, kind: Kind, isDurable: Bool = false, isAutoDeleted: Bool = false, isPassive: Bool = false
    ) {
        self.name = name
        self.kind = kind
        self.isDurable = isDurable
        self.isAutoDeleted = isAutoDeleted
        self.isPassive = isPassive
    }
}

package struct QueueDeclaration: Sendable, Equatable {
    package var name: String
    package var isDurable: Bool
    package var isAutoDeleted: Bool
    package var isExclusive: Bool
    /// Only asks whether it exists.
    package var isPassive: Bool
    package var arguments: [String: FieldValue]

    package init(
        _ name: String, isDurable: Bool = false, isAutoDeleted: Bool = false, isExclusive: Bool = false,
        isPassive: Bool = false, arguments: [String: FieldValue] = [:]
    ) {
        self.name = name
        self.isDurable = isDurable
        self.isAutoDeleted = isAutoDeleted
        self.isExclusive = isExclusive
        self.isPassive = isPassive
        self.arguments = arguments
    }
}

/// What the broker says of a declared queue.
package struct QueueState: Sendable, Equatable {
    package var messageCount: Int
    package var consumerCount: Int

    package init(messageCount: Int, consumerCount: Int) {
        self.messageCount = messageCount
        self.consumerCount = consumerCount
    }
}

/// A message: oslo.messaging always sends JSON with these properties.
package struct AMQPMessage: Sendable, Equatable {
    package var body: [UInt8]
    package var contentType: String
    package var contentEncoding: String
    /// 2: the broker writes it to disk where its queue is durable.
    package var deliveryMode: UInt8
    package var priority: UInt8
    /// Milliseconds as decimal text; the broker drops the message after them.
    package var expiration: String?

    package init(
        body: [UInt8], contentType: String = "application/json", contentEncoding: String = "utf-8",
        deliveryMode: UInt8 = 2, priority: UInt8 = 0, expiration: String? = nil
    ) {
        self.body = body
        self.contentType = contentType
        self.contentEncoding = contentEncoding
        self.deliveryMode = deliveryMode
        self.priority = priority
        self.expiration = expiration
    }
}

/// Where a message is published to.
package struct PublishTarget: Sendable, Equatable {
    package var exchange: String
    package var routingKey: String
    /// The broker returns the message where no queue takes it.
    package var isMandatory: Bool

    package init(exchange: String, routingKey: String, isMandatory: Bool = false) {
        self.exchange = exchange
        self.routingKey = routingKey
        self.isMandatory = isMandatory
    }
}

package struct Delivery: Sendable, Equatable {
    package var consumerTag: String
    package var deliveryTag: UInt64
    package var isRedelivered: Bool
    package var exchange: String
    package var routingKey: String
    package var message: AMQPMessage
    /// The body was longer than the connection's bound; `message.body` is empty.
    package var isOversized: Bool

    package init(
        consumerTag: String, deliveryTag: UInt64, isRedelivered: Bool = false, exchange: String, routingKey: String,
        message: AMQPMessage, isOversized: Bool = false
    ) {
        self.consumerTag = consumerTag
        self.deliveryTag = deliveryTag
        self.isRedelivered = isRedelivered
        self.exchange = exchange
        self.routingKey = routingKey
        self.message = message
        self.isOversized = isOversized
    }
}
