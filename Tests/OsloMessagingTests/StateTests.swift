// Small pieces of state: duplicates, back-off, dispatching, topology.
import AMQP
import JSON
import Testing

@testable import OsloMessaging

struct TestEndpoint: RPCEndpoint {
    var namespace: String?
    var version: String
    var methods: Set<String>
    var body: @Sendable (RPCRequest) async throws -> JSONValue = { .string($0.method) }
    func dispatch(_ request: RPCRequest) async throws -> JSONValue { try await body(request) }
}

@Suite struct StateTests {
    @Test func duplicatesAreKnownWithinTheCapacity() {
        let filter = DuplicateFilter(capacity: 16)
        for number in 0..<16 { #expect(filter.isNew("\(number)")) }
        #expect(!filter.isNew("0") && !filter.isNew("15"))
        #expect(filter.isNew("16"))
        #expect(filter.isNew("0"), "the oldest is forgotten")
        #expect(!filter.isNew("2"))
    }

    @Test func backoffGrowsToItsLimit() {
        var backoff = Backoff(RabbitOptions())
        let waits = (0..<20).map { _ in backoff.next() }
        #expect(waits.prefix(4) == [.seconds(1), .seconds(2), .seconds(4), .seconds(6)])
        #expect(waits.last == .seconds(31))
        backoff.reset()
        #expect(backoff.next() == .seconds(1))
    }

    private func request(_ method: String, version: String, namespace: String? = nil) -> WireRequest {
        WireRequest(
            method: method, arguments: [:], namespace: namespace, version: version, context: RequestContext(),
            uniqueID: "", reply: nil, monitorSeconds: nil)
    }

    private let dispatcher = RPCDispatcher(endpoints: [
        TestEndpoint(namespace: nil, version: "6.1", methods: ["build"]),
        TestEndpoint(namespace: "baseapi", version: "1.1", methods: ["ping"]),
        TestEndpoint(namespace: nil, version: "5.13", methods: ["build", "old"]),
    ])

    @Test func dispatchGoesByNamespaceVersionAndMethod() async {
        #expect(await dispatcher.dispatch(request("build", version: "6.0")) == .success("build"))
        #expect(await dispatcher.dispatch(request("old", version: "5.0")) == .success("old"))
        #expect(await dispatcher.dispatch(request("ping", version: "1.0", namespace: "baseapi")) == .success("ping"))
    }

    @Test(arguments: [
        ("old", "6.0", "NoSuchMethod", "Endpoint does not support RPC method old"),
        ("_build", "6.0", "NoSuchMethod", "Endpoint does not support RPC method _build"),
        ("build", "6.2", "UnsupportedVersion", "Endpoint does not support RPC version 6.2. Attempted method: build"),
        ("build", "x", "UnsupportedVersion", "Endpoint does not support RPC version x. Attempted method: build"),
        ("ping", "1.0", "UnsupportedVersion", "Endpoint does not support RPC version 1.0. Attempted method: ping"),
    ])
    func refusalsAreOslos(_ method: String, _ version: String, _ name: String, _ message: String) async {
        guard case .failure(let failure) = await dispatcher.dispatch(request(method, version: version)) else {
            Issue.record("dispatched")
            return
        }
        #expect(failure.className == name && failure.message == message)
        #expect(failure.module == "oslo_messaging.rpc.dispatcher")
    }

    @Test func queuesHaveTheArgumentsOfOslo() {
        var options = RabbitOptions()
        #expect(
            Topology(options).transientQueue("reply_1")
                == QueueDeclaration("reply_1", arguments: ["x-expires": .integer(1_800_000)]))
        #expect(Topology(options).topicQueue("compute") == QueueDeclaration("compute"))
        #expect(Topology(options).fanoutExchange("compute").isAutoDeleted)
        options.isQuorumQueue = true
        options.quorumDeliveryLimit = 5
        #expect(
            Topology(options).topicQueue("compute")
                == QueueDeclaration(
                    "compute", isDurable: true,
                    arguments: ["x-queue-type": .string("quorum"), "x-delivery-limit": .integer(5)]))
        #expect(Topology(options).transientQueue("f").isDurable == false)
    }

    @Test func deadQueuesAreRemembered() {
        let queues = DeadQueues()
        #expect(!queues.contains("a"))
        queues.insert("a")
        #expect(queues.contains("a"))
        for number in 0..<300 { queues.insert("\(number)") }
        #expect(queues.contains("299"))
    }
}
