// The remote procedure calls of oslo.messaging as this project uses them: what a client and a server promise. The rabbit
// driver implements them; tests use the in-memory twin of the transport below, not of this.
package import JSON

/// Where a message goes: a topic's queue, one server's queue, or every server's.
package struct RPCTarget: Sendable, Equatable {
    package var topic: String
    package var server: String?
    package var isFanout: Bool
    package var namespace: String?
    package var version: String

    package init(topic: String, server: String? = nil, isFanout: Bool = false, namespace: String? = nil, version: String) {
        self.topic = topic
        self.server = server
        self.isFanout = isFanout
        self.namespace = namespace
        self.version = version
    }
}

/// A failure as it goes over the wire, in both directions: the class name and module that the other side knows.
package struct RemoteFailure: Error, Sendable, Equatable, CustomStringConvertible {
    /// Class name, for example "InstanceNotFound", without the `_Remote` suffix.
    package var className: String
    /// Python module, for example "nova.exception".
    package var module: String
    package var message: String
    package var arguments: [JSONValue]
    package var keywords: [String: JSONValue]
    package var traceback: [String]

    package init(
        className: String, module: String = "nova.exception", message: String, arguments: [JSONValue]? = nil,
        keywords: [String: JSONValue] = [:], traceback: [String] = []
    ) {
        self.className = className
        self.module = module
        self.message = message
        self.arguments = arguments ?? [.string(message)]
        self.keywords = keywords
        self.traceback = traceback
    }

    package var description: String { "\(className): \(message) (peer)" }
}

/// A call nobody answered in time (oslo_messaging.exceptions.MessagingTimeout).
package struct MessagingTimeout: Error, Sendable, CustomStringConvertible {
    package var method: String
    package var seconds: Double

    package init(method: String, seconds: Double) {
        self.method = method
        self.seconds = seconds
    }

    package var description: String { "call \(method): no answer within \(seconds) s (peer)" }
}

/// Sends calls and casts.
package protocol RPCClient: Sendable {
    /// Sends a call and waits for its answer. Throws `RemoteFailure`, `MessagingTimeout`, or the transport's error.
    /// `monitor`: the call-monitor timeout sent as `_timeout`; each heartbeat of the server restarts it.
    func call(
        _ target: RPCTarget, _ method: String, _ arguments: [String: JSONValue], context: RequestContext,
        timeout: Duration, monitor: Duration?
    ) async throws -> JSONValue
    /// Sends without waiting for an answer; returns once the broker confirmed it.
    func cast(
        _ target: RPCTarget, _ method: String, _ arguments: [String: JSONValue], context: RequestContext
    ) async throws
}

/// Sends a notification to `<topic>.<priority>` on the control exchange.
package protocol Notifier: Sendable {
    /// `payload` goes out with message_id, publisher_id, event_type, priority, timestamp around it.
    func notify(
        topic: String, publisherID: String, eventType: String, priority: String, payload: JSONValue,
        context: RequestContext
    ) async throws
}

/// A request as a server hands it to an endpoint.
package struct RPCRequest: Sendable {
    package var method: String
    package var arguments: [String: JSONValue]
    package var namespace: String?
    package var version: String
    package var context: RequestContext
    /// A call waits for the answer; a cast does not.
    package var isCall: Bool

    package init(
        method: String, arguments: [String: JSONValue], namespace: String?, version: String, context: RequestContext,
        isCall: Bool
    ) {
        self.method = method
        self.arguments = arguments
        self.namespace = namespace
        self.version = version
        self.context = context
        self.isCall = isCall
    }
}

/// One version of one namespace that a server answers for.
package protocol RPCEndpoint: Sendable {
    var namespace: String? { get }
    /// Highest version served, "6.1": the same major and a lower or equal minor are compatible.
    var version: String { get }
    /// The method names it has; others are NoSuchMethod.
    var methods: Set<String> { get }
    /// Carries the request out. What it throws goes back as a `RemoteFailure` (others are mapped to one).
    func dispatch(_ request: RPCRequest) async throws -> JSONValue
}
