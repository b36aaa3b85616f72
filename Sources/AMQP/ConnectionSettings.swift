// Everything a connection needs to know before it is made.

/// How a client proves who it is (SASL mechanisms of RabbitMQ).
package enum LoginMethod: String, Sendable, CaseIterable {
    case amqplain = "AMQPLAIN"
    case plain = "PLAIN"
    case external = "EXTERNAL"
}

package struct TLSSettings: Sendable, Equatable {
    /// Without it the broker's certificate is not verified, as in oslo.messaging.
    package var caFile: String?
    package var certificateFile: String?
    package var keyFile: String?
    package var verifiesHostName: Bool

    package init(
        caFile: String? = nil, certificateFile: String? = nil, keyFile: String? = nil, verifiesHostName: Bool = false
    ) {
        self.caFile = caFile
        self.certificateFile = certificateFile
        self.keyFile = keyFile
        self.verifiesHostName = verifiesHostName
    }
}

/// One broker and the account on it.
package struct BrokerAddress: Sendable, Equatable, CustomStringConvertible {
    package var host: String
    package var port: Int
    package var user: String
    package var password: String
    package var virtualHost: String

    package init(
        host: String, port: Int = 5672, user: String = "guest", password: String = "guest", virtualHost: String = "/"
    ) {
        self.host = host
        self.port = port
        self.user = user
        self.password = password
        self.virtualHost = virtualHost
    }

    /// Without the account: this is what goes into logs.
    package var description: String { "\(host):\(port)" }
}

package struct ConnectionSettings: Sendable {
    package var loginMethod: LoginMethod
    package var tls: TLSSettings?
    /// "<program>:<pid>:<uuid>" in the broker's list of connections.
    package var connectionName: String
    /// Heartbeat time-out asked for; the lower of ours and the broker's counts, 0 turns it off.
    package var heartbeatSeconds: Int
    /// How often in a time-out the heartbeat is looked after.
    package var heartbeatRate: Int
    /// Name resolution, TCP, TLS and login together.
    package var connectTimeout: Duration
    /// Longest wait for one answer of the broker, and for the confirmation of one message.
    package var answerTimeout: Duration
    /// Longer bodies are skipped as they arrive and handed over as `isOversized`.
    package var maximumBodyByteCount: Int

    package init(
        loginMethod: LoginMethod = .amqplain, tls: TLSSettings? = nil, connectionName: String,
        heartbeatSeconds: Int = 60, heartbeatRate: Int = 2, connectTimeout: Duration = .seconds(10),
        answerTimeout: Duration = .seconds(10), maximumBodyByteCount: Int = 32 << 20
    ) {
        self.loginMethod = loginMethod
        self.tls = tls
        self.connectionName = connectionName
        self.heartbeatSeconds = heartbeatSeconds
        self.heartbeatRate = heartbeatRate
        self.connectTimeout = connectTimeout
        self.answerTimeout = answerTimeout
        self.maximumBodyByteCount = maximumBodyByteCount
    }
}
