// The driver on the in-memory broker: what needs no RabbitMQ.
import AMQP
import JSON
import Logging
import Testing

@testable import OsloMessaging

@Suite struct InMemoryTests {
    private let broker = InMemoryBroker()
    private let context = RequestContext(entries: ["request_id": "req-1"])

    private func node(_ change: (inout RabbitOptions) -> Void = { _ in }) throws -> Node {
        var options = RabbitOptions()
        options.reconnectDelay = 0.01
        options.retryIntervalMaximum = 0
        change(&options)
        return try Node("rabbit://", options: options, connector: broker)
    }

    @Test func callsCastsAndFanoutsArrive() async throws {
        let (one, two) = (try node(), try node())
        defer {
            one.stop()
            two.stop()
        }
        let notes = Notes()
        _ = try await one.serve("compute", "h1", testEndpoints(notes))
        _ = try await two.serve("compute", "h2", testEndpoints(notes))
        let target = RPCTarget(topic: "compute", server: "h2", version: "6.0")
        let answer = try await one.client.call(
            target, "echo", ["value": 1], context: context, timeout: .seconds(10), monitor: nil)
        #expect(answer == 1)
        try await one.client.cast(target, "note", ["value": "cast"], context: context)
        try await one.client.cast(
            RPCTarget(topic: "compute", isFanout: true, version: "6.0"), "note", ["value": "all"], context: context)
        _ = await eventually("three notes") { notes.all.count == 3 }
        #expect(notes.all.count { $0 == "all" } == 2)
    }

    @Test func noReplyQueueBeforeTheFirstCall() async throws {
        let node = try node()
        defer { node.stop() }
        try await node.client.cast(RPCTarget(topic: "x", version: "1.0"), "y", [:], context: context)
        #expect(broker.depth(of: node.client.replyQueue) == nil)
    }

    @Test func everythingIsDeclaredAgainAfterALoss() async throws {
        let node = try node()
        defer { node.stop() }
        _ = try await node.serve("compute", "h", testEndpoints())
        let target = RPCTarget(topic: "compute", server: "h", version: "6.0")
        for round in 0..<3 {
            let answer = try await node.client.call(
                target, "echo", ["value": .integer(Int64(round))], context: context, timeout: .seconds(10), monitor: nil
            )
            #expect(answer == .integer(Int64(round)))
            broker.disconnectAll()
            _ = await eventually("consuming again") { node.counters.isConnected && node.counters.reconnects > round }
        }
        #expect(node.counters.connectionsLost >= 9)
    }

    @Test func aCastWaitsForTheBroker() async throws {
        let node = try node()
        defer { node.stop() }
        _ = try await node.serve("compute", "h", testEndpoints())
        broker.accept(false)
        broker.disconnectAll()
        let notes = Task {
            try await node.client.cast(
                RPCTarget(topic: "compute", server: "h", version: "6.0"), "note", ["value": 1], context: context)
        }
        _ = await eventually("the loss is seen") { node.counters.connectionsLost > 0 && !node.counters.isConnected }
        broker.accept(true)
        try await notes.value
        _ = await eventually("it was carried out") { node.counters.dispatched == 1 }
    }

    @Test func aCallsTimeCountsFromWhenTheBrokerHasIt() async throws {
        let node = try node()
        defer { node.stop() }
        _ = try await node.serve("compute", "h", testEndpoints())
        let target = RPCTarget(topic: "compute", server: "h", version: "6.0")
        // The first makes the connections that are then lost.
        _ = try await node.client.call(target, "echo", ["value": 0], context: context, timeout: .seconds(10), monitor: nil)
        broker.accept(false)
        broker.disconnectAll()
        _ = await eventually("the loss is seen") { node.counters.connectionsLost > 0 && !node.counters.isConnected }
        let answer = Task { [context] in
            try await node.client.call(target, "echo", ["value": 7], context: context, timeout: .seconds(4), monitor: nil)
        }
        try await Task.sleep(for: .seconds(5))
        broker.accept(true)
        #expect(try await answer.value == 7)
        #expect(node.counters.callsTimedOut == 0)
    }

    @Test func aBrokerThatStaysAwayEndsACall() async throws {
        broker.accept(false)
        let node = try Node("rabbit://", connector: broker, brokerPatience: .seconds(2))
        defer { node.stop() }
        await #expect(throws: MessagingTimeout.self) {
            try await node.client.call(RPCTarget(topic: "t", version: "1.0"), "x", [:], context: context, timeout: .seconds(1), monitor: nil)
        }
    }

    @Test func anUndeclaredFailureBecomesNovaException() async throws {
        struct Oops: Error {}
        let node = try node()
        defer { node.stop() }
        let endpoint = TestEndpoint(namespace: nil, version: "1.0", methods: ["x"]) { _ in throw Oops() }
        _ = try await node.serve("t", "h", [endpoint])
        do {
            _ = try await node.client.call(
                RPCTarget(topic: "t", version: "1.0"), "x", [:], context: context, timeout: .seconds(10), monitor: nil)
            Issue.record("no failure")
        } catch let failure as RemoteFailure {
            #expect(failure.className == "NovaException" && failure.module == "nova.exception")
        }
    }

    @Test func cancellingACallForgetsIt() async throws {
        let node = try node()
        defer { node.stop() }
        let entered = OneShot<Void>()
        let endpoint = TestEndpoint(namespace: nil, version: "1.0", methods: ["x"]) { _ in
            entered.resolve(.success(()))
            return .null
        }
        let call = Task {
            try await node.client.call(
                RPCTarget(topic: "t", version: "1.0"), "x", [:], context: context, timeout: .seconds(60), monitor: nil)
        }
        _ = await eventually("it was sent") { node.counters.callsSent == 1 }
        call.cancel()
        await #expect(throws: CancellationError.self) { try await call.value }
        _ = endpoint
    }

    @Test func shutdownEndsEveryLoop() async throws {
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let transport = try RabbitTransport(
            url: "rabbit://", options: RabbitOptions(), programName: "test", logger: logger, connector: broker)
        let client = RabbitRPCClient(transport)
        let server = RPCServer(transport, topic: "t", server: "h", endpoints: testEndpoints())
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await transport.run() }
            group.addTask { try await client.run() }
            group.addTask { try await server.run() }
            try await server.ready(within: .seconds(60))
            _ = try await client.call(
                RPCTarget(topic: "t", version: "6.0"), "echo", ["value": 1], context: context, timeout: .seconds(10),
                monitor: nil)
            server.shutdown()
            client.shutdown()
            transport.shutdown()
            try await group.waitForAll()
        }
        #expect(broker.connectionCount == 0)
        #expect(broker.depth(of: server.fanoutQueue) == nil && broker.depth(of: "t.h") == 0)
    }
}
