// Notifications against recorded ones: whole payloads where the same instance was recorded in a request, key sets otherwise.
import Foundation
import JSON
import Logging
import NovaObjects
import OsloMessaging
import ServiceConfiguration
import Synchronization
import Testing

@testable import Compute

private final class Broker: Notifier {
    struct Message: Sendable {
        var topic: String
        var publisher: String
        var event: String
        var priority: String
        var payload: JSONValue

        var data: [String: JSONValue] { (payload["nova_object.data"] ?? payload).objectValue ?? [:] }
    }
    enum Mood: Sendable { case accepting, refusing, silent }

    let messages = Mutex<[Message]>([])
    let cancellations = Mutex(0)
    let mood: Mood

    init(_ mood: Mood = .accepting) { self.mood = mood }

    func notify(
        topic: String, publisherID: String, eventType: String, priority: String, payload: JSONValue,
        context: RequestContext
    ) async throws {
        switch mood {
        case .accepting: break
        case .refusing: throw RemoteFailure(className: "MessageDeliveryFailure", message: "no")
        case .silent:
            do { try await Task.sleep(for: .seconds(600)) } catch {
                cancellations.withLock { $0 += 1 }
                throw error
            }
        }
        messages.withLock {
            $0.append(
                Message(topic: topic, publisher: publisherID, event: eventType, priority: priority, payload: payload))
        }
    }

    var all: [Message] { messages.withLock { $0 } }
}

struct NotificationTests {
    private let broker = Broker()
    private let context = RequestContext(entries: [
        "request_id": "req-e6d3688e-94e3-4e40-9816-0abad7e656c8", "user_id": "admin",
        "project_id": "6f70656e737461636b20342065766572",
    ])

    private static func options(_ format: String, driver: String = "messagingv2") throws -> NotificationOptions {
        try Configuration.load(
            files: ConfigurationFiles(paths: []), environment: [:],
            overrides: [
                ("oslo_messaging_notifications", "driver", driver), ("notifications", "notification_format", format),
            ], host: HostDefaults(hostName: "host2", address: "192.0.2.7")
        ).configuration.notifications
    }

    private func notifications(
        _ format: String, broker: Broker? = nil, host: String = "host2", conductor: Conductor? = nil,
        patience: Duration = .seconds(30), now: String = "2026-11-22T21:48:55.827464"
    ) throws -> NovaNotifications {
        NovaNotifications(
            notifier: broker ?? self.broker, conductor: conductor,
            options: .init(
                notifications: try Self.options(format), host: host, imageEndpoint: "http://localhost:9292", patience: patience),
            logger: Logger(label: "test"), now: { NovaTime(now) ?? .now })
    }

    private static func sample(_ name: String) throws -> JSONValue {
        let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let file = tests.appendingPathComponent("NovaObjectsTests/Samples/\(name).json")
        return try JSONValue.parse([UInt8](Data(contentsOf: file)), limits: JSONLimits(depth: 128))
    }

    /// The first Instance inside of a recorded request.
    private static func instance(in name: String) throws -> Instance {
        func search(_ value: JSONValue) -> JSONValue? {
            if value["nova_object.name"] == "Instance" { return value }
            switch value {
            case .array(let elements): return elements.lazy.compactMap(search).first
            case .object(let members): return members.values.lazy.compactMap(search).first
            case .string(let text) where text.hasPrefix("{"): return (try? JSONValue.parse(text)).flatMap(search)
            default: return nil
            }
        }
        return try Instance(primitive: try #require(search(try sample(name))))
    }

    private static func with(_ instance: Instance, _ fields: [String: JSONValue]) -> Instance {
        var instance = instance
        for (field, value) in fields { instance.object.load(field, value) }
        return instance
    }

    private func send(
        _ notifications: NovaNotifications, _ instance: Instance, _ action: String, _ phase: NotificationPhase? = nil,
        networkInfo: NetworkInfo? = nil, extra: [String: JSONValue] = [:], fault: NovaException? = nil
    ) async {
        await notifications.instance(
            instance, action: action, phase: phase, networkInfo: networkInfo, extra: extra, fault: fault, context: context)
    }

    // MARK: Whole payloads

    @Test func theVersionedStartOfADeleteIsTheRecordedOne() async throws {
        let recorded = try Self.sample("notification-versioned-instance.delete.start")
        await send(
            try notifications("versioned", host: "host1"), try Self.instance(in: "rpc-compute-terminate_instance"), "delete", .start)
        let message = try #require(broker.all.first)
        #expect(broker.all.count == 1)
        #expect(message.payload.serialize() == recorded["payload"]?.serialize())
        #expect(message.event == "instance.delete.start")
        #expect(message.publisher == "nova-compute:host1")
        #expect(message.topic == "versioned_notifications")
        #expect(message.priority == "INFO")
    }

    @Test func theVersionedEndOfACreateIsTheRecordedOne() async throws {
        let recorded = try Self.sample("notification-versioned-instance.create.end")
        let cache = try Self.instance(in: "rpc-compute-terminate_instance").object["info_cache"] ?? .null
        let instance = Self.with(
            try Self.instance(in: "rpc-compute-build_and_run_instance"),
            [
                "host": "host2", "node": "host2", "vm_state": "active", "task_state": .null, "power_state": 1,
                "launched_at": "2026-11-22T21:48:50Z", "updated_at": "2026-11-22T21:48:50Z", "info_cache": cache,
                "availability_zone": "nova", "architecture": "x86_64",
            ])
        var context = context
        context.entries["request_id"] = recorded["payload"]?["nova_object.data"]?["request_id"]
        try await notifications("versioned").instance(
            instance, action: "create", phase: .end, networkInfo: nil, extra: ["message": "Success"], fault: nil,
            context: context)
        #expect(broker.all.first?.payload.serialize() == recorded["payload"]?.serialize())
    }

    @Test func theLegacyEndOfADeleteIsTheRecordedOne() async throws {
        let recorded = try Self.sample("notification-legacy-compute.instance.delete.end")
        let instance = Self.with(
            try Self.instance(in: "rpc-compute-terminate_instance"),
            [
                "vm_state": "deleted", "task_state": .null, "terminated_at": "2026-11-22T21:49:06.222313",
                "deleted_at": "2026-11-22T21:49:06.251932", "launched_at": "2026-11-22T21:49:05.282569",
            ])
        await send(try notifications("unversioned", host: "host1"), instance, "delete", .end)
        let message = try #require(broker.all.first)
        #expect(message.payload.serialize() == recorded["payload"]?.serialize())
        #expect(message.event == "compute.instance.delete.end")
        #expect(message.publisher == "compute.host1")
        #expect(message.topic == "notifications")
        #expect(message.priority == "INFO")
    }

    @Test func theLegacyEndOfACreateIsTheRecordedOne() async throws {
        let recorded = try Self.sample("notification-legacy-compute.instance.create.end")
        let info = try Self.instance(in: "rpc-compute-terminate_instance").infoCache?.networkInfo.map { VIF($0) }
        let instance = Self.with(
            try Self.instance(in: "rpc-compute-build_and_run_instance"),
            [
                "host": "host2", "node": "host2", "vm_state": "active", "task_state": .null, "availability_zone": "nova",
                "launched_at": "2026-11-22T21:48:50.970604", "architecture": "x86_64",
            ])
        await send(
            try notifications("unversioned"), instance, "create", .end, networkInfo: info, extra: ["message": "Success"])
        #expect(broker.all.first?.payload.serialize() == recorded["payload"]?.serialize())
    }

    @Test func existsTellsTheRunningPeriod() async throws {
        let instance = try Self.instance(in: "rpc-compute-rescue_instance")
        await send(try notifications("both"), instance, "exists")
        let messages = broker.all
        #expect(messages.map(\.event) == ["compute.instance.exists", "instance.exists"])
        let legacy = try Self.sample("notification-legacy-compute.instance.exists")
        #expect(messages.first?.payload.serialize() == legacy["payload"]?.serialize())
        let versioned = try Self.sample("notification-versioned-instance.exists")["payload"]?["nova_object.data"]
        #expect(messages.last?.data["audit_period"] == versioned?["audit_period"])
        #expect(messages.last.map { $0.data.keys.sorted() } == versioned?.objectValue?.keys.sorted())
    }

    // MARK: Key sets

    @Test(arguments: [
        ("rebuild.end", "rebuild", "rpc-compute-rebuild_instance"), ("rescue.end", "rescue", "rpc-compute-rescue_instance"),
        ("snapshot.end", "snapshot", "rpc-compute-snapshot_instance"),
        ("resize_prep.end", "resize_prep", "rpc-compute-prep_resize"),
        ("volume_attach.end", "volume_attach", "rpc-compute-attach_volume"),
    ]) func otherPayloadsHaveTheRecordedKeysAndVersions(_ name: String, _ action: String, _ request: String) async throws {
        let recorded = try #require(try Self.sample("notification-versioned-instance.\(name)")["payload"])
        let data = try #require(recorded["nova_object.data"])
        var extra: [String: JSONValue] = [:]
        for key in ["snapshot_image_id", "rescue_image_ref", "volume_id"] { data[key].map { extra[key] = $0 } }
        let flavor = try Self.instance(in: "rpc-compute-terminate_instance").object["flavor"] ?? .null
        if action == "resize_prep" { extra["new_flavor"] = flavor }
        let instance = Self.with(try Self.instance(in: request), ["flavor": flavor])
        await send(try notifications("versioned"), instance, action, .end, extra: extra)
        let message = try #require(broker.all.first)
        #expect(message.event == "instance.\(name)")
        for key in ["nova_object.name", "nova_object.version"] { #expect(message.payload[key] == recorded[key]) }
        #expect(message.data.keys.sorted() == data.objectValue?.keys.sorted())
        #expect(message.data["block_devices"] == data["block_devices"])
        for key in extra.keys where key != "new_flavor" { #expect(message.data[key] == data[key]) }
        #expect(message.data["new_flavor"]?["nova_object.name"] == data["new_flavor"]?["nova_object.name"])
    }

    @Test func aVolumesLegacyNotificationIsOfItsEnd() async throws {
        let recorded = try Self.sample("notification-legacy-compute.instance.volume.attach")
        let flavor = try Self.instance(in: "rpc-compute-terminate_instance").object["flavor"] ?? .null
        let instance = Self.with(try Self.instance(in: "rpc-compute-attach_volume"), ["flavor": flavor])
        for phase in [NotificationPhase.start, .end] {
            await send(try notifications("unversioned"), instance, "volume_attach", phase, extra: ["volume_id": "v"])
        }
        #expect(broker.all.map(\.event) == ["compute.instance.volume.attach"])
        #expect(broker.all.first?.data.keys.sorted() == recorded["payload"]?.objectValue?.keys.sorted())
    }

    @Test(arguments: [
        ("resize_finish", "finish_resize.start"), ("live_migration_post", "live_migration._post.start"),
        ("power_off", "power_off.start"), ("never_heard_of", "never_heard_of.start"),
    ]) func legacyNamesDiffer(_ action: String, _ event: String) async throws {
        await send(try notifications("both"), try Self.instance(in: "rpc-compute-terminate_instance"), action, .start)
        #expect(broker.all.map(\.event) == ["compute.instance.\(event)", "instance.\(action).start"])
    }

    @Test func someActionsHaveOneKindOnly() async throws {
        let instance = try Self.instance(in: "rpc-compute-terminate_instance")
        await send(try notifications("both"), instance, "interface_attach", .end)
        await send(try notifications("both"), instance, "create_ip", .end)
        #expect(broker.all.map(\.event) == ["instance.interface_attach.end", "compute.instance.create_ip.end"])
    }

    @Test func volumesAreToldWhereTheCallerNamesThem() async throws {
        var mapping = BlockDeviceMapping(in: .zed)
        for (field, value) in ["device_name": "/dev/vdb", "volume_id": "vol-1"] { mapping.set(field, to: value) }
        let local = BlockDeviceMapping(in: .zed)
        await send(
            try notifications("both"), try Self.instance(in: "rpc-compute-terminate_instance"), "delete", .end,
            extra: ["block_devices": [mapping.primitive, local.primitive]])
        #expect(broker.all.first?.data["block_devices"] == nil)
        let devices = broker.all.last?.data["block_devices"]?.arrayValue
        #expect(devices?.count == 1)
        #expect(
            devices?.first?["nova_object.data"] == [
                "device_name": "/dev/vdb", "boot_index": .null, "delete_on_termination": false, "volume_id": "vol-1",
                "tag": .null,
            ])
    }

    // MARK: Failures

    @Test func aFaultIsToldInBothForms() async throws {
        let fault = NovaException("NoMoreFixedIps", "No fixed IP addresses available for network: n", code: 500)
        await send(
            try notifications("both"), try Self.instance(in: "rpc-compute-terminate_instance"), "create", .error, fault: fault)
        let legacy = try #require(broker.all.first)
        #expect(legacy.event == "compute.instance.create.error")
        #expect(legacy.priority == "ERROR")
        #expect(legacy.data["message"]?.stringValue == fault.message)
        #expect(legacy.data["exception"]?.stringValue == fault.message)
        #expect(legacy.data["code"] == 500)
        let versioned = try #require(broker.all.last)
        #expect(versioned.priority == "ERROR")
        #expect(versioned.data["fault"]?["nova_object.name"] == "ExceptionPayload")
        #expect(versioned.data["fault"]?["nova_object.data"]?["exception"] == "NoMoreFixedIps")
    }

    @Test func anOperationsExceptionIsToldWithoutPasswords() async throws {
        let error = NovaException("InstanceNotFound", "Instance x could not be found.", code: 404)
        try await notifications("both").exception(
            error, method: "set_admin_password", arguments: ["new_pass": "secret", "admin_password": "s", "instance": "x"],
            context: context)
        #expect(broker.all.map(\.event) == ["set_admin_password", "compute.exception"])
        #expect(broker.all.map(\.priority) == ["ERROR", "ERROR"])
        #expect(broker.all.first?.data["args"] == ["instance": "x"])
        #expect(broker.all.last?.payload["nova_object.version"] == "1.1")
        #expect(
            broker.all.last?.data.keys.sorted() == [
                "exception", "exception_message", "function_name", "module_name", "traceback",
            ])
    }

    @Test(arguments: ["unversioned", "versioned", "both"]) func withoutADriverNothingIsSent(_ format: String) async throws {
        let silent = NovaNotifications(
            notifier: broker, conductor: nil,
            options: .init(notifications: try Self.options(format, driver: "noop"), host: "h"), logger: Logger(label: "test"))
        await send(silent, try Self.instance(in: "rpc-compute-terminate_instance"), "delete", .end)
        #expect(broker.all.isEmpty)
    }

    @Test func aBrokerThatRefusesIsNoErrorOfTheOperation() async throws {
        let refusing = Broker(.refusing)
        await send(
            try notifications("both", broker: refusing), try Self.instance(in: "rpc-compute-terminate_instance"), "delete", .end)
        #expect(refusing.all.isEmpty)
    }

    @Test(.timeLimit(.minutes(1))) func aBrokerThatIsSilentIsLeftBehind() async throws {
        let silent = Broker(.silent)
        await send(
            try notifications("both", broker: silent, patience: .milliseconds(20)),
            try Self.instance(in: "rpc-compute-terminate_instance"), "delete", .end)
        #expect(silent.cancellations.withLock { $0 } == 2)
    }

    // MARK: Fields a message left out

    @Test func aFlavorThatWasLeftOutIsLoaded() async throws {
        let full = try Self.instance(in: "rpc-compute-terminate_instance")
        let conductor = ConductorTwin(answers: ["Instance.get_by_uuid": full.primitive])
        let bare = try Self.instance(in: "rpc-compute-pause_instance")
        try #require(!bare.object.isSet("flavor"))
        await send(try notifications("unversioned", conductor: conductor.conductor), bare, "pause", .start)
        #expect(broker.all.first?.data["instance_type"] == "m1.tiny")
        #expect(broker.all.first?.data["state_description"] == "pausing")
        #expect(conductor.names == ["Instance.get_by_uuid"])
    }

    @Test func anInstanceThatIsGoneIsToldWithoutThem() async throws {
        let conductor = ConductorTwin()
        conductor.fail("Instance.get_by_uuid", with: RemoteFailure(className: "InstanceNotFound", message: "x"))
        let bare = try Self.instance(in: "rpc-compute-pause_instance")
        await send(try notifications("both", conductor: conductor.conductor), bare, "delete", .end)
        #expect(broker.all.map(\.event) == ["compute.instance.delete.end", "instance.delete.end"])
        #expect(broker.all.first?.data["memory_mb"] == 512)
    }
}
