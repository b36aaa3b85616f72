// A compute host of tests: memory conductor, memory Placement, a driver of fixed resources, a state directory of its
// own.
import Compute
import ComputeDriver
import Foundation
import JSON
import Logging
import NovaObjects
import OsloMessaging
import ServiceConfiguration
import Synchronization

struct HostFixture {
    let database: HostDatabase
    let placement = MemoryPlacement()
    let driver: FixedDriver
    let statePath: String
    let parts: HostParts
    let tracker: ResourceTracker

    init(
        profile: ReleaseProfile = .zed, options: [(group: String, name: String, value: String)] = [],
        machines: [MachineSummary] = [], _ change: (inout HostDatabase.Rows) -> Void = { _ in }
    ) throws {
        statePath = FileManager.default.temporaryDirectory.appending(path: "apus-host-\(UUID().uuidString)").path
        database = HostDatabase(profile: profile, change)
        driver = FixedDriver(machines: machines)
        let overrides = [(group: "DEFAULT", name: "state_path", value: statePath)] + options
        let loaded = try Configuration.load(
            files: ConfigurationFiles(paths: []), environment: [:], overrides: overrides,
            host: HostDefaults(hostName: "host1", address: "192.0.2.7"))
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        parts = HostParts(
            conductor: database.conductor, driver: driver, placement: placement, configuration: loaded.configuration,
            news: SchedulerNews(client: database, host: "host1", profile: profile, isEnabled: true, logger: logger),
            health: HostHealth(), names: GuestNames { "instance-\($0)" }, logger: logger)
        tracker = ResourceTracker(parts: parts)
    }

    func cleanUp() { try? FileManager.default.removeItem(atPath: statePath) }

    func startup(instances: any InstanceStartup, files: [String] = []) -> HostStartup {
        HostStartup(
            parts: parts, tracker: tracker,
            service: ServiceRecord(
                conductor: parts.conductor, host: "host1", health: parts.health, logger: parts.logger),
            configurationFiles: files, instances: instances, network: NoNetwork())
    }
}

/// Reports one host; makes no machines.
final class FixedDriver: ComputeDriver {
    let state: Mutex<[MachineSummary]>
    let destroyed = Mutex<[String]>([])
    let traits: Set<String> = ["COMPUTE_IMAGE_TYPE_RAW", "COMPUTE_IMAGE_TYPE_QCOW2"]
    let events = AsyncStream<LifecycleEvent> { $0.finish() }

    init(machines: [MachineSummary]) { state = Mutex(machines) }

    func initialize() async throws {}
    func hostResources() async throws -> HostResources {
        HostResources(
            vcpus: 10, memoryMiB: 8192, diskGiB: 1028, diskFreeGiB: 1000, hypervisorType: "QEMU",
            hypervisorVersion: 1_000_000,
            cpuInfo: ["arch": "x86_64", "features": ["pge", "sse4_2", "svm"]],
            supportedInstances: [["x86_64", "kvm", "hvm"]], hypervisorHostname: "host1.example")
    }
    func machines() async throws -> [MachineSummary] { state.withLock { $0 } }
    func powerState(of instanceUUID: String) async throws -> PowerState {
        guard let machine = state.withLock({ $0.first { $0.instanceUUID == instanceUUID } }) else {
            throw DriverError(novaClass: "InstanceNotFound", tenantMessage: "none", fault: .caller)
        }
        return machine.powerState
    }
    func destroy(instance: Instance, interfaces: [InterfaceRequest], destroysDisks: Bool) async throws {
        destroyed.withLock { $0.append(instance.uuid) }
        state.withLock { $0.removeAll { $0.instanceUUID == instance.uuid } }
    }
    func spawn(_ request: SpawnRequest) async throws {}
    func powerOff(instance: Instance, timeout: Duration, retryInterval: Duration) async throws {}
    func powerOn(instance: Instance, interfaces: [InterfaceRequest]) async throws {}
    func softReboot(instance: Instance, timeout: Duration) async throws -> Bool { true }
    func withSnapshot(
        of instance: Instance, format: DiskSnapshot.Format, _ body: nonisolated(nonsending) (DiskSnapshot) async throws -> Void
    ) async throws {}
    func rescue(_ request: SpawnRequest) async throws {}
    func unrescue(instance: Instance, interfaces: [InterfaceRequest]) async throws {}
    func suspend(instance: Instance) async throws {}
    func resume(instance: Instance, interfaces: [InterfaceRequest]) async throws {}
    func injectNMI(instanceUUID: String) async throws {}
    func checkResize(_ request: ResizeRequest) async throws {}
    func beginResize(_ request: ResizeRequest) async throws {}
    func finishResize(_ request: ResizeRequest) async throws {}
    func confirmResize(instanceUUID: String) async throws {}
    func revertResize(instanceUUID: String) async throws {}
    func pause(instanceUUID: String) async throws {}
    func unpause(instanceUUID: String) async throws {}
    func consoleOutput(instanceUUID: String, byteCount: Int) async throws -> [UInt8] { [] }
    func statistics(of instanceUUID: String) async throws -> MachineStatistics { MachineStatistics() }
    func hostUptime() async throws -> String { "" }
}

/// Notes what the host's work asks of instances.
final class RecordingInstances: InstanceStartup {
    let asked = Mutex<[String]>([])
    private let note: @Sendable () -> Void
    init(_ note: @escaping @Sendable () -> Void = {}) { self.note = note }

    func initInstance(_ instance: Instance, context: RequestContext) async {
        note()
        asked.withLock { $0.append("init \(instance.uuid)") }
    }
    func powerStateChanged(_ instance: Instance, to powerState: PowerState, context: RequestContext) async {
        asked.withLock { $0.append("\(powerState) \(instance.uuid)") }
    }
    func reap(_ instance: Instance, context: RequestContext) async {
        asked.withLock { $0.append("reap \(instance.uuid)") }
    }
    func request(_ work: DueWork, for instance: Instance, context: RequestContext) async {
        asked.withLock { $0.append("\(work) \(instance.uuid)") }
    }
}

struct NoNetwork: InstanceNetwork {
    func allocate(
        for instance: Instance, requested: NetworkRequestList?, securityGroups: [String], context: RequestContext
    ) async throws -> NetworkInfo { [] }
    func deallocate(for instance: Instance, requested: NetworkRequestList?, context: RequestContext) async throws {}
    func refresh(_ instance: Instance, portID: String?, context: RequestContext) async throws -> NetworkInfo { [] }
    func activateBindings(of instance: Instance, on host: String, context: RequestContext) async throws {}
    func bindPorts(of instance: Instance, to host: String, context: RequestContext) async throws {}
    func clearMoveMarks(of instance: Instance, context: RequestContext) async throws {}
    func cached(_ instance: Instance) -> NetworkInfo { [] }
    func bind(_ instance: Instance, context: RequestContext) async throws {}
    func forget(portID: String, of instance: Instance, context: RequestContext) async throws -> VIF? { nil }
}

enum HostSamples {
    static let uuid = "b32d371a-9b1b-46c6-a157-83b93f58edd7"

    /// A server as the conductor gives it, with nothing marked as changed.
    static func instance(
        _ uuid: String = uuid, host: String? = "host1", vmState: String = "active", taskState: String? = nil,
        memoryMiB: Int = 256, vcpus: Int = 1, rootGiB: Int = 1
    ) -> Instance {
        var flavor = Flavor(in: .zed)
        flavor.set("memory_mb", to: memoryMiB)
        flavor.set("vcpus", to: vcpus)
        flavor.set("root_gb", to: rootGiB)
        flavor.set("ephemeral_gb", to: 0)
        flavor.set("swap", to: 0)
        flavor.object.resetChanges()
        var instance = Instance(in: .zed)
        instance.set("id", to: 5)
        instance.set("uuid", to: uuid)
        instance.host = host
        instance.node = host.map { _ in "host1.example" }
        instance.vmState = vmState
        instance.taskState = taskState
        instance.set("project_id", to: "p1")
        instance.set("os_type", to: String?.none)
        instance.set("image_ref", to: "6c31e66c-5cea-4199-a20d-3cd7f7485108")
        instance.set("flavor", to: flavor.primitive)
        instance.set("numa_topology", to: .null)
        instance.object.resetChanges()
        return instance
    }
}
