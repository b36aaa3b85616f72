// A host that resizes its servers: the manager, the host's books and the null driver as they are, over a database and a Placement
// in memory. Messages that the host sends to itself are delivered, as the broker would.
import Compute
import ComputeDriver
import Foundation
import JSON
import Logging
import NovaObjects
import OsloMessaging
import Placement
import ServiceConfiguration
import ServiceMetrics
import Testing

struct ResizeWorld: Sendable {
    static let migrationUUID = "09cf7b2b-01d8-4c2e-8f77-6d86d5fdbd18"

    let journal = Journal()
    let database: HostDatabase
    let placement: MemoryPlacement
    let driver: NullDriver
    let parts: HostParts
    let tracker: ResourceTracker
    let manager: ComputeManager
    let network: RecordingNetwork
    private let endpoint: ComputeEndpoint
    private let statePath: String

    let tiny = Self.flavor(1, "m1.tiny", memoryMiB: 256, vcpus: 1, rootGiB: 1)
    let small = Self.flavor(2, "m1.small", memoryMiB: 512, vcpus: 2, rootGiB: 2)
    var uuid: String { HostSamples.uuid }

    /// - Parameter vmState: "active" or "stopped".
    init(vmState: String = "active", options: [(group: String, name: String, value: String)] = []) async throws {
        let resources = HostResources(
            vcpus: 10, memoryMiB: 8192, diskGiB: 100, diskFreeGiB: 100, hypervisorType: "QEMU", hypervisorVersion: 1_000_000,
            cpuInfo: ["arch": "x86_64"], supportedInstances: [["x86_64", "kvm", "hvm"]], hypervisorHostname: "host1.example")
        try self.init(
            HostDatabase(), MemoryPlacement(), NullDriver(resources: resources),
            statePath: FileManager.default.temporaryDirectory.appending(path: "apus-resize-\(UUID().uuidString)").path,
            options: options)
        var instance = HostSamples.instance(vmState: vmState)
        instance.take(tiny)
        instance.powerState = vmState == "stopped" ? 4 : 1
        for field in ["old_flavor", "new_flavor", "migration_context"] { instance.set(field, to: .null) }
        instance.systemMetadata = ["image_base_image_ref": "6c31e66c"]
        instance.object.resetChanges()
        let made = instance
        database.change { $0.instances = [made] }
        try await start()
        // After the start: a host with guests that the control plane does not know would not begin.
        try await driver.spawn(
            SpawnRequest(
                instance: instance, image: ["id": "image"], interfaces: [], configDrive: nil, fetchImage: { _, _ in 0 },
                startsPaused: false))
        if vmState == "stopped" { try await driver.powerOff(instance: instance, timeout: .zero, retryInterval: .zero) }
    }

    /// The next life of a service that ended: the machines, the database and Placement are as it left them.
    init(restarting world: ResizeWorld) async throws {
        try self.init(world.database, world.placement, world.driver, statePath: world.statePath, options: [])
        try await start()
    }

    private init(
        _ database: HostDatabase, _ placement: MemoryPlacement, _ driver: NullDriver, statePath: String,
        options: [(group: String, name: String, value: String)]
    ) throws {
        (self.database, self.placement, self.driver, self.statePath) = (database, placement, driver, statePath)
        let configuration = try Configuration.load(
            files: ConfigurationFiles(paths: []), environment: [:],
            overrides: [(group: "DEFAULT", name: "state_path", value: statePath)] + options,
            host: HostDefaults(hostName: "host1", address: "192.0.2.7")
        ).configuration
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        parts = HostParts(
            conductor: database.conductor, driver: driver, placement: placement, configuration: configuration,
            news: SchedulerNews(client: database, host: "host1", profile: .zed, isEnabled: false, logger: logger),
            health: HostHealth(), names: GuestNames { "instance-\($0)" }, logger: logger)
        tracker = ResourceTracker(parts: parts)
        network = RecordingNetwork(journal)
        manager = ComputeManager(
            ComputeServices(
                conductor: database.conductor, driver: driver, books: tracker, network: network,
                notifications: RecordingNotifications(journal: journal), metadata: FixedMetadata(),
                glance: RecordingGlance(journal: journal), configuration: configuration,
                metrics: ComputeMetrics(version: "test", rpcVersion: "6.1", serviceVersion: 64, host: "host1"), logger: logger))
        endpoint = ComputeEndpoint(manager)
    }

    private func start() async throws {
        try await HostStartup(
            parts: parts, tracker: tracker,
            service: ServiceRecord(conductor: parts.conductor, host: "host1", health: parts.health, logger: parts.logger),
            configurationFiles: [], instances: RecordingInstances(), network: NoNetwork()
        ).run()
    }

    func cleanUp() { try? FileManager.default.removeItem(atPath: statePath) }

    private static func flavor(_ id: Int, _ name: String, memoryMiB: Int, vcpus: Int, rootGiB: Int) -> Flavor {
        var flavor = Flavor(in: .zed)
        for (field, value) in [
            ("id", id), ("memory_mb", memoryMiB), ("vcpus", vcpus), ("root_gb", rootGiB), ("ephemeral_gb", 0), ("swap", 0),
        ] { flavor.set(field, to: value) }
        flavor.set("name", to: name)
        flavor.object.resetChanges()
        return flavor
    }

    // MARK: What a test sees

    var instance: Instance { get throws { try #require(database.read { $0.instances.first { $0.uuid == HostSamples.uuid } }) } }
    var migration: Migration { get throws { try #require(database.read { $0.migrations.last }) } }
    /// Without what the host keeps for itself.
    var usedMemoryMiB: Int? { database.read { $0.nodes.first?.integer("memory_mb_used") }.map { $0 - 512 } }
    var usedVCPUs: Int? { database.read { $0.nodes.first?.integer("vcpus_used") } }
    /// Consumer → what it holds of this host.
    var allocations: [String: [String: Int]] { placement.read { $0.providers.values.first?.allocations ?? [:] } }

    static func amounts(_ flavor: Flavor) -> [String: Int] {
        ["VCPU": flavor.vcpus, "MEMORY_MB": flavor.memoryMiB, "DISK_GB": flavor.rootGiB]
    }

    // MARK: What the control plane does

    /// Runs the instances' runners while `body` runs.
    func running(_ body: () async throws -> Void) async throws {
        let runners = Task { await manager.runners.run() }
        defer { runners.cancel() }
        try await body()
        manager.runners.close()
        await runners.value
    }

    /// As the conductor after the scheduler: the migration holds the old size, the instance the new one.
    func resize(to flavor: Flavor) async throws {
        var instance = try instance
        let old = try #require(instance.flavor)
        var migration = Migration(in: .zed)
        let numbers: [(String, Int?)] = [("id", 7), ("old_instance_type_id", old.id), ("new_instance_type_id", flavor.id)]
        for (field, value) in numbers { migration.set(field, to: value) }
        for (field, value) in [
            ("uuid", Self.migrationUUID), ("source_compute", "host1"), ("source_node", "host1.example"),
            ("instance_uuid", instance.uuid), ("status", "pre-migrating"), ("migration_type", "resize"),
        ] { migration.set(field, to: value) }
        migration.object.resetChanges()
        instance.taskState = "resize_prep"
        instance.object.resetChanges()
        let (prepared, made) = (instance, migration)
        database.change {
            $0.instances = [prepared]
            $0.migrations = [made]
        }
        placement.change { state in
            for uuid in state.providers.keys {
                state.providers[uuid]?.allocations = [
                    prepared.uuid: Self.amounts(flavor), Self.migrationUUID: Self.amounts(old),
                ]
            }
        }
        try await send(
            "prep_resize", [
                "flavor": flavor.primitive, "image": [:], "request_spec": RequestSpec(in: .zed).primitive, "filter_properties": [:],
                "node": "host1.example", "clean_shutdown": true, "host_list": [],
            ])
    }

    func confirm() async throws {
        database.change { $0.migrations[0].object.load("status", "confirming") }
        try await send("confirm_resize")
    }

    func revert() async throws {
        database.change {
            $0.migrations[0].object.load("status", "reverting")
            $0.instances[0].object.load("task_state", "resize_reverting")
        }
        try await send("revert_resize", ["request_spec": RequestSpec(in: .zed).primitive])
    }

    /// Sends a message and delivers what follows from it, until there is none.
    func send(_ method: String, _ further: [String: JSONValue] = [:]) async throws {
        var arguments = further
        arguments["instance"] = try instance.primitive
        arguments["migration"] = try migration.primitive
        try await dispatch(method, arguments)
        try await deliver()
    }

    func deliver() async throws {
        while let message = takeMessage() { try await dispatch(message.method, message.arguments) }
    }

    func takeMessage() -> (method: String, arguments: [String: JSONValue])? {
        var taken: (method: String, arguments: [String: JSONValue])?
        database.change { if !$0.messages.isEmpty { taken = $0.messages.removeFirst() } }
        return taken
    }

    func dispatch(_ method: String, _ arguments: [String: JSONValue]) async throws {
        let context = RequestContext(entries: ["request_id": "req-1", "auth_token": "token", "user_id": "u", "project_id": "p1"])
        _ = try await endpoint.dispatch(
            RPCRequest(
                method: method, arguments: arguments, namespace: nil, version: "6.0", context: context, isCall: false))
        try await settle()
    }

    func settle() async throws {
        let runners = manager.runners
        try await eventually("the end of all operations") { runners.activeCount == 0 }
    }
}
