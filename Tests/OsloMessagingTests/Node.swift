// What the tests of the driver share: a running client and notifier, endpoints, and places to note things down.
import AMQP
import JSON
import Logging
import Synchronization

@testable import OsloMessaging

/// Client, server and notifier on one transport, running.
final class Node: Sendable {
    let transport: RabbitTransport
    let client: RabbitRPCClient
    let notifier: RabbitNotifier
    private let tasks: Mutex<[Task<Void, any Error>]>

    init(_ url: String, options: RabbitOptions = RabbitOptions(), connector: (any AMQPConnector)? = nil, brokerPatience: Duration = .seconds(300)) throws {
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let transport = try RabbitTransport(
            url: url, options: options, programName: "test", logger: logger, connector: connector)
        self.transport = transport
        let client = RabbitRPCClient(transport, brokerPatience: brokerPatience)
        self.client = client
        notifier = RabbitNotifier(transport)
        tasks = Mutex([Task { try await transport.run() }, Task { try await client.run() }])
    }

    func serve(
        _ topic: String, _ server: String, _ endpoints: [any RPCEndpoint], _ options: RPCServerOptions = .init()
    ) async throws -> RPCServer {
        let server = RPCServer(transport, topic: topic, server: server, endpoints: endpoints, options: options)
        tasks.withLock { $0.append(Task { try await server.run() }) }
        try await server.ready(within: .seconds(20))
        return server
    }

    func stop() {
        for task in tasks.withLock({ $0 }) { task.cancel() }
    }

    var counters: MessagingCounters.Snapshot { transport.counters.snapshot }
}

/// Values in the order they came.
final class Notes: Sendable {
    private let values = Mutex<[JSONValue]>([])
    func add(_ value: JSONValue) { values.withLock { $0.append(value) } }
    var all: [JSONValue] { values.withLock { $0 } }
}

/// What the peers call.
func testEndpoints(_ notes: Notes = Notes()) -> [any RPCEndpoint] {
    [
        TestEndpoint(
            namespace: nil, version: "6.1",
            methods: ["echo", "context", "not_found", "not_implemented", "slow", "note"]
        ) { request in
            switch request.method {
            case "echo": return request.arguments["value"] ?? .null
            case "context": return .object(request.context.entries)
            case "not_found":
                throw RemoteFailure(
                    className: "InstanceNotFound", message: "Instance abc could not be found.",
                    keywords: ["instance_id": "abc", "code": 404])
            case "not_implemented":
                throw RemoteFailure(className: "NotImplementedError", module: "builtins", message: "not here")
            case "slow":
                try await Task.sleep(for: .seconds(request.arguments["seconds"]?.doubleValue ?? 0))
                return "slept"
            default:
                notes.add(request.arguments["value"] ?? .null)
                return .null
            }
        },
        TestEndpoint(namespace: "baseapi", version: "1.1", methods: ["ping"]) { request in
            ["service": "compute", "arg": request.arguments["arg"] ?? .null]
        },
    ]
}

/// A mutex that several closures can hold.
final class Locked<Value: Sendable>: Sendable {
    private let mutex: Mutex<Value>
    init(_ value: Value) { mutex = Mutex(value) }
    func withLock<Result>(_ body: (inout sending Value) throws -> sending Result) rethrows -> sending Result {
        try mutex.withLock(body)
    }
}
