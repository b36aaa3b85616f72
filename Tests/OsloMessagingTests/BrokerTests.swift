// Against a real RabbitMQ and real oslo.messaging peers.
import AMQP
import Foundation
import JSON
import Logging
import Testing

@testable import OsloMessaging

@Suite(
    .serialized,
    .enabled(if: Broker.isAvailable, "needs root and Debian's rabbitmq-server: Tests/Lab/install rabbitmq-server"),
    .broker)
struct BrokerTests {
    let broker: Broker
    private let context = RequestContext(entries: ["request_id": "req-7", "roles": ["member"], "is_admin": false])

    init() throws {
        broker = try #require(Broker.shared)
    }

    private func parse(_ line: String) throws -> JSONValue { try JSONValue.parse(line) }

    // MARK: Python peers

    @Test(.enabled(if: Broker.hasPython, "needs python3-oslo.messaging"))
    func pythonClientCallsOurServer() async throws {
        let notes = Notes()
        let node = try Node(broker.url)
        defer { node.stop() }
        _ = try await node.serve("compute", "host-1", testEndpoints(notes))
        let peer = try broker.peer("client")
        defer { peer.end() }
        let isDone = await eventually(within: .seconds(60), "the client is done") { peer.lines.last == #"["done"]"# }
        try #require(isDone, "\(peer.output)")
        let answers = Dictionary(
            uniqueKeysWithValues: try peer.lines.compactMap { line -> (String, [JSONValue])? in
                guard line.hasPrefix("["), let values = try parse(line).arrayValue, let name = values[0].stringValue
                else { return nil }
                return (name, Array(values.dropFirst()))
            })
        func answer(_ name: String) throws -> JSONValue { try #require(answers[name]?.first) }
        #expect(try answer("echo")["result"] == answers["echo"]?[1])
        #expect(try answer("topic")["result"] == 1)
        let context = try #require(try answer("context")["result"]?.objectValue)
        let sent = try #require(answers["context"]?[1].objectValue)
        for (key, value) in sent { #expect(context[key] == value) }
        #expect(try answer("not_found")["is_instance_not_found"] == true)
        #expect(try answer("not_found")["code"] == 404)
        #expect(try answer("not_implemented")["is_not_implemented"] == true)
        #expect(try answer("unknown_method")["exc_type"] == "NoSuchMethod")
        #expect(try answer("unknown_version")["exc_type"] == "UnsupportedVersion")
        #expect(try answer("namespace")["result"] == ["service": "compute", "arg": "a"])
        #expect(try answer("monitored")["result"] == "slept", "heartbeats kept the call alive")
        _ = await eventually("both notes came") { Set(notes.all) == ["cast", "fanout"] }
        #expect(notes.all.count == 2)
    }

    @Test(.enabled(if: Broker.hasPython, "needs python3-oslo.messaging"))
    func ourClientCallsAPythonServer() async throws {
        let peer = try broker.peer("server")
        defer { peer.end() }
        let isReady = await eventually(within: .seconds(60), "the server is ready") {
            peer.lines.contains(#"["ready"]"#)
        }
        try #require(isReady, "\(peer.output)")
        let node = try Node(broker.url)
        defer { node.stop() }
        let target = RPCTarget(topic: "peer", server: "python", version: "6.0")
        func call(_ method: String, _ arguments: [String: JSONValue] = [:], monitor: Duration? = nil) async throws
            -> JSONValue
        {
            try await node.client.call(
                target, method, arguments, context: context, timeout: .seconds(20), monitor: monitor)
        }
        let value: JSONValue = ["text": "größe \u{1F600}", "list": [1, 2.5, nil, true], "big": .integer(1 << 40)]
        #expect(try await call("echo", ["value": value]) == value)
        let seen = try await call("context")
        for (key, value) in context.entries { #expect(seen[key] == value) }
        do {
            _ = try await call("not_found")
            Issue.record("no failure")
        } catch let failure as RemoteFailure {
            #expect(failure.className == "InstanceNotFound" && failure.module == "nova.exception")
            #expect(failure.message == "Instance abc could not be found.")
            #expect(failure.keywords["code"] == 404)
        }
        do {
            _ = try await call("not_implemented")
            Issue.record("no failure")
        } catch let failure as RemoteFailure {
            #expect(failure.className == "NotImplementedError" && failure.module == "builtins")
        }
        #expect(try await call("slow", ["seconds": 4], monitor: .seconds(2)) == "slept")
        try await node.client.cast(target, "note", ["value": "cast"], context: context)
        try await node.client.cast(
            RPCTarget(topic: "peer", isFanout: true, version: "6.0"), "note", ["value": "fanout"], context: context)
        _ = await eventually("both notes came") {
            Set(peer.lines).isSuperset(of: [#"["note", "cast"]"#, #"["note", "fanout"]"#])
        }
    }

    @Test(.enabled(if: Broker.hasPython, "needs python3-oslo.messaging"))
    func pythonListenerTakesOurNotifications() async throws {
        let node = try Node(broker.url)
        defer { node.stop() }
        // Before anybody listens: the queue keeps it.
        try await node.notifier.notify(
            topic: "versioned_notifications", publisherID: "nova-compute:h", eventType: "instance.create.end",
            priority: "INFO", payload: ["a": 1], context: context)
        let peer = try broker.peer("listener")
        defer { peer.end() }
        let hasCome = await eventually(within: .seconds(60), "the notification came") { peer.lines.count > 1 }
        try #require(hasCome, "\(peer.output)")
        let line = try #require(peer.lines.first { $0.hasPrefix("[{") })
        let values = try #require(try parse(line).arrayValue)
        for (key, value) in context.entries { #expect(values[0][key] == value) }
        #expect(values[1...3] == ["nova-compute:h", "instance.create.end", ["a": 1]])
        #expect(values[4]["message_id"]?.stringValue?.count == 36)
        #expect(values[4]["timestamp"]?.stringValue?.count == 26)
    }

    // MARK: Limits and faults

    @Test func sixtyFourRequestsAtATimeAndTheRestLater() async throws {
        let running = Locked((now: 0, most: 0, done: 0))
        let release = OneShot<Void>()
        let node = try Node(broker.url)
        defer { node.stop() }
        let endpoint = TestEndpoint(namespace: nil, version: "1.0", methods: ["work"]) { _ in
            running.withLock {
                $0.now += 1
                $0.most = max($0.most, $0.now)
            }
            try await release.value()
            running.withLock {
                $0.now -= 1
                $0.done += 1
            }
            return .null
        }
        _ = try await node.serve("limit", "h", [endpoint])
        let target = RPCTarget(topic: "limit", server: "h", version: "1.0")
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<72 {
                group.addTask { [context] in try await node.client.cast(target, "work", [:], context: context) }
            }
            try await group.waitForAll()
        }
        _ = await eventually("64 run") { running.withLock { $0.now } == 64 }
        #expect(node.counters.received == 64, "the rest is not acknowledged")
        release.resolve(.success(()))
        _ = await eventually("all are done") { running.withLock { $0.done } == 72 }
        #expect(running.withLock { $0.most } == 64)
    }

    @Test func silenceEndsAMonitoredCall() async throws {
        let node = try Node(broker.url)
        defer { node.stop() }
        // A queue that takes the request and nobody who reads it.
        let start = ContinuousClock.now
        await #expect(throws: MessagingTimeout.self) {
            try await node.client.call(
                RPCTarget(topic: "nobody", version: "1.0"), "x", [:], context: context, timeout: .seconds(30),
                monitor: .seconds(2))
        }
        // One and a half of its heartbeats of 4 s, looked for once a second.
        #expect(ContinuousClock.now - start < .seconds(12))
    }

    @Test func aCallTimesOut() async throws {
        let node = try Node(broker.url)
        defer { node.stop() }
        await #expect(throws: MessagingTimeout.self) {
            try await node.client.call(
                RPCTarget(topic: "nobody", version: "1.0"), "x", [:], context: context, timeout: .seconds(1),
                monitor: nil)
        }
        #expect(node.counters.callsTimedOut == 1)
    }

    @Test func malformedMessagesAreCountedAndDoNoHarm() async throws {
        let node = try Node(broker.url)
        defer { node.stop() }
        let notes = Notes()
        _ = try await node.serve("compute", "malformed", testEndpoints(notes))
        let bodies = malformedBodies()
        let target = PublishTarget(exchange: "nova", routingKey: "compute.malformed")
        for body in bodies {
            try await node.transport.publish(
                AMQPMessage(body: body), to: target, declaring: nil, until: .now + .seconds(20), declare: { _ in })
        }
        _ = await eventually(within: .seconds(60), "all are taken") { node.counters.received == bodies.count }
        let answer = try await node.client.call(
            RPCTarget(topic: "compute", server: "malformed", version: "6.0"), "echo", ["value": "alive"],
            context: context, timeout: .seconds(20), monitor: nil)
        #expect(answer == "alive")
        _ = await eventually("all are dropped") { node.counters.dropped.values.reduce(0, +) == bodies.count }
        let counters = node.counters
        for reason in [DropReason.notJSON, .notAMessage, .envelopeVersion, .malformedRequest] {
            #expect(counters.dropped[reason, default: 0] > 0)
        }
        #expect(counters.connectionsLost == 0)
    }

    @Test func duplicatesAreCarriedOutOnce() async throws {
        let node = try Node(broker.url)
        defer { node.stop() }
        let notes = Notes()
        _ = try await node.serve("compute", "twice", testEndpoints(notes))
        let target = PublishTarget(exchange: "nova", routingKey: "compute.twice")
        for number in 0..<500 {
            let request = WireRequest(
                method: "note", arguments: ["value": .integer(Int64(number / 2))], namespace: nil, version: "6.0",
                context: context, uniqueID: "\(number / 2)", reply: nil, monitorSeconds: nil)
            try await node.transport.publish(
                AMQPMessage(body: Envelope.encode(request.message)), to: target, declaring: nil,
                until: .now + .seconds(20), declare: { _ in })
        }
        _ = await eventually("all are taken") { node.counters.received == 500 }
        _ = await eventually("half are done") { notes.all.count == 250 }
        // Counted as received first, dropped a moment later.
        _ = await eventually("the other half is dropped") { node.counters.dropped == [.duplicate: 250] }
        #expect(Set(notes.all).count == 250)
    }

    @Test func aReplyToAGoneQueueIsGivenUp() async throws {
        var options = RabbitOptions()
        options.missingConsumerRetryTimeout = .seconds(1)
        let node = try Node(broker.url, options: options)
        defer { node.stop() }
        _ = try await node.serve("compute", "gone", testEndpoints())
        let request = WireRequest(
            method: "echo", arguments: [:], namespace: nil, version: "6.0", context: context, uniqueID: "1",
            reply: ReplyAddress(queue: "reply_gone", messageID: "m"), monitorSeconds: nil)
        for id in ["1", "2"] {
            var request = request
            request.uniqueID = id
            try await node.transport.publish(
                AMQPMessage(body: Envelope.encode(request.message)),
                to: PublishTarget(exchange: "nova", routingKey: "compute.gone"), declaring: nil,
                until: .now + .seconds(20), declare: { _ in })
            let count = id == "1" ? 1 : 2
            _ = await eventually("reply \(id) is given up") { node.counters.dropped[.replyQueueGone] == count }
        }
    }

    @Test func deletedQueuesAreDeclaredAgain() async throws {
        let node = try Node(broker.url)
        defer { node.stop() }
        let server = try await node.serve("compute", "deleted", testEndpoints())
        let (connection, _) = try await rawConnection()
        for queue in ["compute.deleted", server.fanoutQueue] { try await connection.deleteQueue(queue) }
        await connection.close()
        _ = await eventually("consuming again") { node.counters.reconnects > 0 && node.counters.isConnected }
        let answer = try await node.client.call(
            RPCTarget(topic: "compute", server: "deleted", version: "6.0"), "echo", ["value": 1], context: context,
            timeout: .seconds(20), monitor: nil)
        #expect(answer == 1)
    }

    @Test func gracefulStopWaitsForWhatRunsAndLeavesTheRestInTheQueue() async throws {
        let node = try Node(broker.url)
        defer { node.stop() }
        let entered = OneShot<Void>()
        let release = OneShot<Void>()
        let endpoint = TestEndpoint(namespace: nil, version: "1.0", methods: ["work"]) { _ in
            entered.resolve(.success(()))
            try await release.value()
            return "done"
        }
        let server = RPCServer(
            node.transport, topic: "stopping", server: "h", endpoints: [endpoint],
            options: RPCServerOptions(parallelRequests: 1))
        let run = Task { try await server.run() }
        try await server.ready(within: .seconds(20))
        let target = RPCTarget(topic: "stopping", server: "h", version: "1.0")
        async let answer = node.client.call(
            target, "work", [:], context: context, timeout: .seconds(20), monitor: nil)
        try await entered.value()
        try await node.client.cast(target, "work", [:], context: context)
        server.shutdown()
        let (connection, _) = try await rawConnection()
        _ = try await eventually("consumers are cancelled") {
            try await connection.declare(QueueDeclaration("stopping.h", isPassive: true)).consumerCount == 0
        }
        release.resolve(.success(()))
        #expect(try await answer == "done")
        try await run.value
        #expect(try await connection.declare(QueueDeclaration("stopping.h", isPassive: true)).messageCount == 1)
        await #expect(throws: AMQPError.self) {
            try await connection.declare(QueueDeclaration(server.fanoutQueue, isPassive: true))
        }
        await connection.close()
    }

    @Test func nothingIsLostWhenTheBrokerIsKilledUnderLoad() async throws {
        var options = RabbitOptions()
        options.areQueuesDurable = true
        options.controlExchange = "durable"
        let (node, sender) = (try Node(broker.url, options: options), try Node(broker.url, options: options))
        defer {
            node.stop()
            sender.stop()
        }
        let notes = Notes()
        _ = try await node.serve("durable", "h", testEndpoints(notes))
        let target = RPCTarget(topic: "durable", server: "h", version: "6.0")
        let count = 400
        let sent = Locked(0)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for worker in 0..<8 {
                group.addTask { [context] in
                    for number in 0..<(count / 8) {
                        let value = JSONValue.integer(Int64(worker * 1000 + number))
                        try await sender.client.cast(target, "note", ["value": value], context: context)
                        sent.withLock { $0 += 1 }
                    }
                }
            }
            _ = await eventually("half are sent") { sent.withLock { $0 } > count / 3 }
            try broker.killAndRestart()
            try await broker.waitUntilUp()
            let up = ContinuousClock.now
            _ = await eventually(within: .seconds(30), "the server consumes again") { node.counters.isConnected }
            #expect(ContinuousClock.now - up < .seconds(8))
            try await group.waitForAll()
        }
        _ = await eventually(within: .seconds(30), "all are done") { Set(notes.all).count == count }
        #expect(notes.all.count == count, "none twice")
        let answer = try await sender.client.call(
            target, "echo", ["value": "again"], context: context, timeout: .seconds(20), monitor: nil)
        #expect(answer == "again")
        #expect(node.counters.connectionsLost > 0 && node.counters.reconnects > 0)
    }

    @Test func closedConnectionsComeBack() async throws {
        let node = try Node(broker.url)
        defer { node.stop() }
        _ = try await node.serve("compute", "closed", testEndpoints())
        let target = RPCTarget(topic: "compute", server: "closed", version: "6.0")
        for round in 0..<3 {
            let answer = try await node.client.call(
                target, "echo", ["value": .integer(Int64(round))], context: context, timeout: .seconds(20), monitor: nil
            )
            #expect(answer == .integer(Int64(round)))
            let lost = node.counters.connectionsLost
            try await broker.control("close_all_connections", "test")
            _ = await eventually("the loss is seen") { node.counters.connectionsLost >= lost + 3 }
            _ = await eventually("all listeners are back") { node.counters.isConnected }
        }
    }

    // MARK: The connection alone

    private func rawConnection(
        _ change: (inout ConnectionSettings) -> Void = { _ in }
    ) async throws -> (any AMQPConnection, Locked<[AMQPEvent]>) {
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        var settings = ConnectionSettings(connectionName: "raw")
        change(&settings)
        let events = Locked<[AMQPEvent]>([])
        let connection = try await RabbitConnector(logger: logger).connect(
            to: BrokerAddress(host: "127.0.0.1", port: broker.port), settings: settings
        ) { event in events.withLock { $0.append(event) } }
        return (connection, events)
    }

    @Test(arguments: [LoginMethod.amqplain, .plain]) func logsIn(_ method: LoginMethod) async throws {
        let (connection, events) = try await rawConnection { $0.loginMethod = method }
        #expect(connection.isOpen)
        await connection.close()
        #expect(!connection.isOpen)
        _ = await eventually("the end is told") {
            if case .closed(let error)? = events.withLock({ $0.last }) { error.code == .closed } else { false }
        }
    }

    @Test(arguments: [
        // The certificate is for "localhost" and signed by itself.
        ("localhost", true, true, true), ("127.0.0.1", true, true, false), ("127.0.0.1", true, false, true),
        ("127.0.0.1", false, true, true),
    ])
    func tlsVerifiesWhatItIsTold(
        _ host: String, _ hasAuthority: Bool, _ verifiesHostName: Bool, _ isConnected: Bool
    ) async throws {
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let settings = ConnectionSettings(
            tls: TLSSettings(
                caFile: hasAuthority ? "\(broker.directory)/ca.pem" : nil, verifiesHostName: verifiesHostName),
            connectionName: "tls")
        do {
            let connection = try await RabbitConnector(logger: logger).connect(
                to: BrokerAddress(host: host, port: broker.tlsPort), settings: settings, onEvent: { _ in })
            #expect(isConnected)
            try await connection.selectConfirms()
            _ = try await connection.declare(QueueDeclaration("tls", isAutoDeleted: true))
            try await connection.publish(
                AMQPMessage(body: [UInt8](repeating: 1, count: 1 << 20)),
                to: PublishTarget(exchange: "", routingKey: "tls"))
            await connection.close()
        } catch let error as AMQPError {
            #expect(!isConnected && error.code == .connectFailed, "\(error)")
        }
    }

    @Test func aForeignAuthorityIsRefused() async throws {
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let foreign = "/etc/ssl/certs/ca-certificates.crt"
        guard FileManager.default.fileExists(atPath: foreign) else { return }
        let settings = ConnectionSettings(tls: TLSSettings(caFile: foreign), connectionName: "tls")
        await #expect(throws: AMQPError.self) {
            try await RabbitConnector(logger: logger).connect(
                to: BrokerAddress(host: "localhost", port: broker.tlsPort), settings: settings, onEvent: { _ in })
        }
    }

    @Test func aWrongPasswordIsRefused() async throws {
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        do {
            _ = try await RabbitConnector(logger: logger).connect(
                to: BrokerAddress(host: "127.0.0.1", port: broker.port, password: "wrong"),
                settings: ConnectionSettings(connectionName: "raw"), onEvent: { _ in })
            Issue.record("logged in")
        } catch let error as AMQPError {
            #expect(error.code == .loginRefused && error.replyCode == 403)
        }
    }

    @Test func channelErrorsNameTheirCode() async throws {
        let (missing, _) = try await rawConnection()
        do {
            _ = try await missing.declare(QueueDeclaration("no-such-queue", isPassive: true))
            Issue.record("declared")
        } catch let error as AMQPError {
            #expect(error.code == .channelClosed && error.replyCode == 404)
        }
        let (other, _) = try await rawConnection()
        _ = try await other.declare(QueueDeclaration("inequivalent", isAutoDeleted: true))
        do {
            _ = try await other.declare(QueueDeclaration("inequivalent"))
            Issue.record("declared")
        } catch let error as AMQPError {
            #expect(error.code == .channelClosed && error.replyCode == 406)
        }
        #expect(!other.isOpen)
    }

    @Test func aMandatoryMessageWithoutAQueueComesBack() async throws {
        let (connection, _) = try await rawConnection()
        try await connection.selectConfirms()
        do {
            try await connection.publish(
                AMQPMessage(body: [1]), to: PublishTarget(exchange: "", routingKey: "no-such-queue", isMandatory: true))
            Issue.record("published")
        } catch let error as AMQPError {
            #expect(error.code == .unroutable && error.replyCode == 312)
        }
        #expect(connection.isOpen)
        await connection.close()
    }

    @Test func sixteenMebibytesGoThereAndBack() async throws {
        let (connection, events) = try await rawConnection()
        try await connection.selectConfirms()
        _ = try await connection.declare(QueueDeclaration("large", isAutoDeleted: true))
        try await connection.consume(queue: "large", tag: "1", arguments: [:])
        let body = [UInt8](repeating: 0x61, count: 16 << 20)
        try await connection.publish(AMQPMessage(body: body), to: PublishTarget(exchange: "", routingKey: "large"))
        _ = await eventually("the body came") {
            events.withLock { events in
                events.contains {
                    if case .delivery(let delivery) = $0 { delivery.message.body == body } else { false }
                }
            }
        }
        await connection.close()
    }

    @Test func aStoppedBrokerHoldsNobody() async throws {
        let (publisher, _) = try await rawConnection { $0.answerTimeout = .seconds(2) }
        try await publisher.selectConfirms()
        let (listener, events) = try await rawConnection { $0.heartbeatSeconds = 4 }
        broker.pause()
        defer { broker.resume() }
        let start = ContinuousClock.now
        // More than the socket takes: the library blocks in sending, the caller must not.
        await #expect(throws: AMQPError.self) {
            try await publisher.publish(
                AMQPMessage(body: [UInt8](repeating: 1, count: 24 << 20)),
                to: PublishTarget(exchange: "", routingKey: "x"))
        }
        #expect(ContinuousClock.now - start < .seconds(4))
        _ = await eventually(within: .seconds(20), "silence ends the other connection") { !listener.isOpen }
        // One and a half of its heartbeats of 4 s, looked for once a second.
        #expect(ContinuousClock.now - start < .seconds(12))
        _ = await eventually("the end is told") {
            if case .closed(let error)? = events.withLock({ $0.last }) { error.code == .connectionLost } else { false }
        }
        // Connecting to it ends with its deadline and with cancellation.
        let late = ContinuousClock.now
        await #expect(throws: AMQPError.self) { try await self.rawConnection { $0.connectTimeout = .seconds(1) } }
        #expect(ContinuousClock.now - late < .seconds(3))
        let task = Task { try await self.rawConnection() }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
    }

    @Test func anAlarmBlocksPublishingAndNothingElse() async throws {
        let node = try Node(broker.url)
        defer { node.stop() }
        let notes = Notes()
        _ = try await node.serve("compute", "alarm", testEndpoints(notes))
        let target = RPCTarget(topic: "compute", server: "alarm", version: "6.0")
        try await node.client.cast(target, "note", ["value": 1], context: context)
        try await broker.control("set_vm_memory_high_watermark", "absolute", "1")
        async let second: Void = node.client.cast(target, "note", ["value": 2], context: context)
        _ = await eventually("the alarm is counted") { node.counters.blockedConnections > 0 }
        #expect(node.counters.isConnected, "consuming goes on")
        try await broker.control("set_vm_memory_high_watermark", "0.6")
        try await second
        _ = await eventually("both came") { Set(notes.all) == [1, 2] }
        #expect(notes.all.count == 2)
        _ = await eventually("the alarm is over") { node.counters.blockedConnections == 0 }
    }
}
