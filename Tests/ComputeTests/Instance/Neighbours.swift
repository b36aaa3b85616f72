// The parts around the manager, in memory: they write down what they are asked, and can be told to fail or to wait.
import Compute
import ComputeDriver
import Glance
import JSON
import NovaObjects
import OpenStackHTTP
import OsloMessaging
import Synchronization

/// What a part does when it is asked for something, by the name of it.
final class Behaviour: Sendable {
    typealias Action = @Sendable () async throws -> Void
    private let actions = Mutex<[String: Action]>([:])

    subscript(name: String) -> Action? {
        get { actions.withLock { $0[name] } }
        set { actions.withLock { $0[name] = newValue } }
    }

    func perform(_ name: String) async throws { try await self[name]?() }
}

final class RecordingDriver: ComputeDriver {
    let journal: Journal
    let behaviour = Behaviour()
    private let states = Mutex<[String: PowerState]>([:])
    private let spawns = Mutex<[SpawnRequest]>([])
    let events: AsyncStream<LifecycleEvent>
    let traits: Set<String> = []

    init(_ journal: Journal) {
        self.journal = journal
        events = AsyncStream { $0.finish() }
    }

    var spawned: [SpawnRequest] { spawns.withLock { $0 } }
    func set(_ state: PowerState?, of uuid: String) { states.withLock { $0[uuid] = state } }
    func state(of uuid: String) -> PowerState? { states.withLock { $0[uuid] } }

    private func perform(_ name: String, _ uuid: String, then state: PowerState?) async throws {
        journal.note("driver \(name)")
        try await behaviour.perform(name)
        if let state { set(state, of: uuid) }
    }

    func initialize() async throws {}
    func hostResources() async throws -> HostResources {
        throw DriverError(tenantMessage: "not asked in these tests", fault: .caller)
    }
    func machines() async throws -> [MachineSummary] {
        states.withLock { $0.map { MachineSummary(instanceUUID: $0.key, powerState: $0.value) } }
    }
    func powerState(of instanceUUID: String) async throws -> PowerState {
        guard let state = state(of: instanceUUID) else {
            throw DriverError(novaClass: "InstanceNotFound", tenantMessage: "no such machine", fault: .caller)
        }
        return state
    }
    func spawn(_ request: SpawnRequest) async throws {
        spawns.withLock { $0.append(request) }
        try await perform("spawn", request.instance.uuid, then: request.startsPaused ? .paused : .running)
    }
    func destroy(instance: Instance, interfaces: [InterfaceRequest], destroysDisks: Bool) async throws {
        try await perform("destroy", instance.uuid, then: nil)
        set(nil, of: instance.uuid)
    }
    func powerOff(instance: Instance, timeout: Duration, retryInterval: Duration) async throws {
        try await perform("power_off \(timeout.components.seconds)", instance.uuid, then: .shutdown)
    }
    func powerOn(instance: Instance, interfaces: [InterfaceRequest]) async throws {
        try await perform("power_on", instance.uuid, then: .running)
    }
    func softReboot(instance: Instance, timeout: Duration) async throws -> Bool {
        try await perform("soft_reboot", instance.uuid, then: nil)
        return behaviour["guest ignores the button"] == nil
    }
    func withSnapshot(
        of instance: Instance, format: DiskSnapshot.Format, _ body: nonisolated(nonsending) (DiskSnapshot) async throws -> Void
    ) async throws {
        try await perform("snapshot \(format.rawValue)", instance.uuid, then: nil)
        try await body(DiskSnapshot(descriptor: -1, byteCount: 512, format: format))
        journal.note("driver snapshot removed")
    }
    func rescue(_ request: SpawnRequest) async throws {
        spawns.withLock { $0.append(request) }
        try await perform("rescue", request.instance.uuid, then: .running)
    }
    func unrescue(instance: Instance, interfaces: [InterfaceRequest]) async throws {
        try await perform("unrescue", instance.uuid, then: .running)
    }
    func suspend(instance: Instance) async throws { try await perform("suspend", instance.uuid, then: .suspended) }
    func resume(instance: Instance, interfaces: [InterfaceRequest]) async throws {
        try await perform("resume", instance.uuid, then: .running)
    }
    func injectNMI(instanceUUID: String) async throws { try await perform("inject_nmi", instanceUUID, then: nil) }
    func checkResize(_ request: ResizeRequest) async throws {
        try await perform("check_resize", request.instance.uuid, then: nil)
    }
    func beginResize(_ request: ResizeRequest) async throws {
        try await perform("begin_resize", request.instance.uuid, then: nil)
    }
    func finishResize(_ request: ResizeRequest) async throws {
        try await perform("finish_resize \(request.flavor.name)", request.instance.uuid, then: nil)
    }
    func confirmResize(instanceUUID: String) async throws { try await perform("confirm_resize", instanceUUID, then: nil) }
    func revertResize(instanceUUID: String) async throws { try await perform("revert_resize", instanceUUID, then: nil) }
    func pause(instanceUUID: String) async throws { try await perform("pause", instanceUUID, then: .paused) }
    func unpause(instanceUUID: String) async throws { try await perform("unpause", instanceUUID, then: .running) }
    func consoleOutput(instanceUUID: String, byteCount: Int) async throws -> [UInt8] {
        try await perform("get_console_output", instanceUUID, then: nil)
        return Array("FAKE CONSOLE OUTPUT\r\nANOTHER\nLAST LINE".utf8) + [0xFF]
    }
    func statistics(of instanceUUID: String) async throws -> MachineStatistics {
        try await perform("get_diagnostics", instanceUUID, then: nil)
        var statistics = MachineStatistics()
        statistics.vcpuTimes = [17_300_000_000]
        statistics.memoryMiB = 512
        return statistics
    }
    func hostUptime() async throws -> String { "up 1 day" }
}

struct RecordingBooks: HostBooks {
    let journal: Journal
    let conductor: Conductor
    let behaviour = Behaviour()
    let nodeName = "node"

    func claim(_ instance: inout Instance, limits: JSONValue, context: RequestContext) async throws {
        journal.note("books claim")
        try await behaviour.perform("claim")
        instance.host = "host2"
        instance.launchedOn = "host2"
        instance.node = "host2"
        try await conductor.save(&instance, context: context)
    }
    func abortClaim(_ instance: inout Instance, context: RequestContext) async {
        journal.note("books abort claim")
        instance.object.resetChanges()
        instance.host = nil
        instance.node = nil
        try? await conductor.save(&instance, context: context)
    }
    func updateUsage(_ instance: Instance, context: RequestContext) async { journal.note("books usage") }
    func deleteAllocations(of instanceUUID: String) async throws { journal.note("books delete allocations") }
    func claimResize(
        _ instance: inout Instance, _ migration: inout Migration, to flavor: Flavor, context: RequestContext
    ) async throws {
        journal.note("books claim resize")
        try await behaviour.perform("claim resize")
        migration.set("dest_compute", to: "host2")
        migration.set("dest_node", to: "host2")
        try await conductor.call(&migration, "save", context: context)
        let moved = MigrationContext(instanceUUID: instance.uuid, migrationID: migration.id, profile: conductor.profile)
        instance.object.load("migration_context", moved.primitive)
    }
    func endResize(
        _ instance: inout Instance, _ migration: inout Migration, as end: ResizeEnd, context: RequestContext
    ) async throws {
        journal.note("books end resize \(end.rawValue)")
        try await behaviour.perform("end resize")
        migration.status = end.rawValue
        try await conductor.call(&migration, "save", context: context)
    }
    func revertAllocations(of migration: Migration, to instanceUUID: String) async throws {
        journal.note("books revert allocations")
        try await behaviour.perform("revert allocations")
    }
    func dropAllocations(of migration: Migration) async throws { journal.note("books drop allocations") }
    func setEnabled(_ isEnabled: Bool, context: RequestContext) async throws { journal.note("books enabled \(isEnabled)") }
    func buildFinished(successfully: Bool) async { journal.note("books build \(successfully)") }
    func tellSchedulers(updated instance: Instance, context: RequestContext) async { journal.note("scheduler update") }
    func tellSchedulers(deleted instanceUUID: String, context: RequestContext) async { journal.note("scheduler delete") }
}

struct RecordingNetwork: InstanceNetwork {
    let journal: Journal
    let behaviour = Behaviour()
    /// The VIF that an allocation makes; inactive, as a port is before it is wired.
    let vif: VIF

    init(_ journal: Journal, vif: VIF = RecordingNetwork.inactiveVIF) {
        self.journal = journal
        self.vif = vif
    }

    static let portID = "5f8d8aa4-0c5d-4d6f-a1c6-0d4e2a7b6a11"
    static let inactiveVIF = VIF([
        "id": .string(portID), "address": "fa:16:3e:00:00:01", "type": "bridge", "active": false,
        "vnic_type": "normal", "network": ["id": "n1", "bridge": "brq1", "label": "private", "subnets": []],
    ])

    func allocate(
        for instance: Instance, requested: NetworkRequestList?, securityGroups: [String], context: RequestContext
    ) async throws -> NetworkInfo {
        journal.note("network allocate")
        try await behaviour.perform("allocate")
        return [vif]
    }
    func deallocate(for instance: Instance, requested: NetworkRequestList?, context: RequestContext) async throws {
        journal.note("network deallocate")
        try await behaviour.perform("deallocate")
    }
    @discardableResult
    func refresh(_ instance: Instance, portID: String?, context: RequestContext) async throws -> NetworkInfo {
        journal.note("network refresh \(portID ?? "all")")
        try await behaviour.perform("refresh")
        return [vif]
    }
    func activateBindings(of instance: Instance, on host: String, context: RequestContext) async throws {
        journal.note("network activate \(host)")
        try await behaviour.perform("activate")
    }
    func bindPorts(of instance: Instance, to host: String, context: RequestContext) async throws {
        journal.note("network bind \(host)")
        try await behaviour.perform("bind")
    }
    func clearMoveMarks(of instance: Instance, context: RequestContext) async throws {
        journal.note("network clear marks")
        try await behaviour.perform("clear marks")
    }
    func cached(_ instance: Instance) -> NetworkInfo { instance.infoCache?.networkInfo.map { VIF($0) } ?? [] }
    func bind(_ instance: Instance, context: RequestContext) async throws { journal.note("network bind") }
    func forget(portID: String, of instance: Instance, context: RequestContext) async throws -> VIF? {
        journal.note("network forget \(portID)")
        return vif
    }
}

struct RecordingNotifications: InstanceNotifications {
    let journal: Journal

    func instance(
        _ instance: Instance, action: String, phase: NotificationPhase?, networkInfo: NetworkInfo?,
        extra: [String: JSONValue], fault: NovaException?, context: RequestContext
    ) async { journal.note("notify \(action).\(phase?.rawValue ?? "")") }

    func exception(
        _ error: NovaException, method: String, arguments: [String: JSONValue], context: RequestContext
    ) async { journal.note("notify exception \(method) \(error.className) \(arguments.keys.contains { $0.contains("_pass") })") }
}

struct FixedMetadata: InstanceMetadata {
    func configDrive(
        for instance: Instance, networkInfo: NetworkInfo, injectedFiles: [(path: String, content: [UInt8])],
        adminPassword: String?, context: RequestContext
    ) async throws -> [String: [UInt8]] { ["openstack/latest/meta_data.json": Array("{}".utf8)] }
}

/// Fails as told; else writes nothing.
struct RecordingGlance: GlanceAPI {
    let journal: Journal
    let behaviour = Behaviour()

    func image(_ id: String, as authorization: RequestAuthorization) async throws -> JSONValue {
        journal.note("glance image")
        return ["id": .string(id), "status": behaviour["image is queued"] == nil ? "active" : "queued"]
    }
    func download(_ image: JSONValue, to descriptor: CInt, as authorization: RequestAuthorization) async throws -> Int64 {
        journal.note("glance download \(authorization == .service ? "service" : "user")")
        try await behaviour.perform(authorization == .service ? "download as service" : "download")
        return 0
    }
    func update(_ id: String, fields: [String: JSONValue], as authorization: RequestAuthorization) async throws {
        journal.note("glance update " + fields.keys.sorted().joined(separator: ","))
        try await behaviour.perform("update")
    }
    func upload(_ id: String, from descriptor: CInt, byteCount: Int64, as authorization: RequestAuthorization) async throws {
        journal.note("glance upload \(byteCount)")
        try await behaviour.perform("upload")
    }
    func delete(_ id: String, as authorization: RequestAuthorization) async throws { journal.note("glance delete \(id)") }
    func images(where filters: [(String, String)], as authorization: RequestAuthorization) async throws -> [JSONValue] {
        journal.note("glance images " + filters.map { "\($0)=\($1)" }.joined(separator: ","))
        return (1...3).map { ["id": .string("backup-\($0)")] }
    }
}
