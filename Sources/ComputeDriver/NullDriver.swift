// A driver whose machines exist in memory only. It keeps the contract of ComputeDriver (what a state allows, what is missing,
// which error says so) and does nothing to the host, so that the service can be tested anywhere.
import Glibc
import JSON
package import NovaObjects
import Synchronization

/// Machines in memory, for tests of the service.
package final class NullDriver: ComputeDriver {
    /// An operation of this driver, for `fail` and `calls`.
    package enum Operation: String, Sendable {
        case spawn, destroy, powerOff, powerOn, softReboot, snapshot, rescue, unrescue, suspend, resume, injectNMI, pause, unpause, consoleOutput, statistics
        case checkResize, beginResize, finishResize, confirmResize, revertResize
    }
    /// What a flavor gives a machine.
    package struct Size: Sendable, Equatable {
        package var memoryMiB: Int
        package var vcpus: Int

        package init(memoryMiB: Int, vcpus: Int) {
            self.memoryMiB = memoryMiB
            self.vcpus = vcpus
        }
    }
    private struct Machine {
        var powerState: PowerState
        /// Before a resize that nobody has confirmed.
        var keptSize: Size?
        var memoryMiB: Int
        var vcpus: Int
        var interfaces: [InterfaceRequest]
        var console: [UInt8]
        var isRescued = false
    }
    private struct State {
        var machines: [String: Machine] = [:]
        var failures: [Operation: [any Error]] = [:]
        var calls: [(operation: Operation, instanceUUID: String)] = []
        var ignoresPowerButton: Set<String> = []
    }
    private let state = Mutex(State())
    private let resources: HostResources
    private let eventSink: AsyncStream<LifecycleEvent>.Continuation

    package let events: AsyncStream<LifecycleEvent>
    package let traits: Set<String> = [
        "COMPUTE_IMAGE_TYPE_RAW", "COMPUTE_NET_VIF_MODEL_VIRTIO", "COMPUTE_STORAGE_BUS_VIRTIO",
    ]

    package init(
        resources: HostResources = HostResources(
            vcpus: 8, memoryMiB: 16384, diskGiB: 100, diskFreeGiB: 100, hypervisorType: "QEMU",
            hypervisorVersion: 1_000_000,
            cpuInfo: ["arch": "x86_64"], supportedInstances: [["x86_64", "kvm", "hvm"]],
            hypervisorHostname: "null.example")
    ) {
        self.resources = resources
        (events, eventSink) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(256))
    }

    package func initialize() async throws {}
    package func hostResources() async throws -> HostResources { resources }

    package func machines() async throws -> [MachineSummary] {
        state.withLock { $0.machines.map { MachineSummary(instanceUUID: $0.key, powerState: $0.value.powerState) } }
    }

    package func powerState(of instanceUUID: String) async throws -> PowerState {
        try withMachine(instanceUUID) { $0.powerState }
    }

    package func spawn(_ request: SpawnRequest) async throws {
        let uuid = request.instance.uuid
        try begin(.spawn, uuid)
        guard state.withLock({ $0.machines[uuid] == nil }) else {
            throw DriverError(
                novaClass: "InstanceExists", tenantMessage: "Instance \(uuid) already exists on this host",
                fault: .caller)
        }
        for image in Self.images(of: request) { try await Self.discard(image, by: request.fetchImage) }
        try Task.checkCancellation()
        let machine = Machine(
            powerState: request.startsPaused ? .paused : .running, memoryMiB: request.instance.memoryMiB,
            vcpus: request.instance.vcpus, interfaces: request.interfaces,
            console: Array("null: \(uuid) started\n".utf8))
        state.withLock { $0.machines[uuid] = machine }
    }

    private static func images(of request: SpawnRequest) -> [String] {
        let root = request.image["id"]?.stringValue ?? request.instance.imageRef
        return [root, request.instance.kernelID, request.instance.ramdiskID].compactMap { $0 }.filter { !$0.isEmpty }
    }

    private static func discard(_ image: String, by fetch: @Sendable (String, CInt) async throws -> Int64) async throws
    {
        // SAFETY: a literal path; the descriptor is closed below.
        let descriptor = unsafe open("/dev/null", O_WRONLY | O_CLOEXEC)
        defer { close(descriptor) }
        _ = try await fetch(image, descriptor)
    }

    package func destroy(instance: Instance, interfaces: [InterfaceRequest], destroysDisks: Bool) async throws {
        try begin(.destroy, instance.uuid)
        state.withLock { state in
            if destroysDisks {
                state.machines[instance.uuid] = nil
            } else {
                state.machines[instance.uuid]?.powerState = .shutdown
                state.machines[instance.uuid]?.interfaces = []
            }
        }
    }

    package func powerOff(instance: Instance, timeout: Duration, retryInterval: Duration) async throws {
        try begin(.powerOff, instance.uuid)
        try withMachine(instance.uuid) { $0.powerState = .shutdown }
    }

    package func powerOn(instance: Instance, interfaces: [InterfaceRequest]) async throws {
        try begin(.powerOn, instance.uuid)
        try withMachine(instance.uuid) { machine in
            guard machine.powerState != .running && machine.powerState != .paused else { return }
            machine.interfaces = interfaces
            machine.powerState = .running
        }
    }

    package func softReboot(instance: Instance, timeout: Duration) async throws -> Bool {
        try begin(.softReboot, instance.uuid)
        let answers = state.withLock { !$0.ignoresPowerButton.contains(instance.uuid) }
        try withMachine(instance.uuid) { machine in
            if answers { machine.console += Array("null: \(instance.uuid) started\n".utf8) }
        }
        return answers
    }

    package func withSnapshot(
        of instance: Instance, format: DiskSnapshot.Format, _ body: (DiskSnapshot) async throws -> Void
    ) async throws {
        try begin(.snapshot, instance.uuid)
        _ = try withMachine(instance.uuid) { $0.powerState }
        // SAFETY: a literal path; the descriptor is closed below.
        let descriptor = unsafe open("/dev/null", O_RDONLY | O_CLOEXEC)
        defer { close(descriptor) }
        try await body(DiskSnapshot(descriptor: descriptor, byteCount: 0, format: format))
    }

    package func rescue(_ request: SpawnRequest) async throws {
        let uuid = request.instance.uuid
        try begin(.rescue, uuid)
        for image in Self.images(of: request) { try await Self.discard(image, by: request.fetchImage) }
        try withMachine(uuid) { machine in
            machine.isRescued = true
            machine.interfaces = request.interfaces
            machine.powerState = .running
        }
    }

    package func unrescue(instance: Instance, interfaces: [InterfaceRequest]) async throws {
        try begin(.unrescue, instance.uuid)
        try withMachine(instance.uuid) { machine in
            machine.isRescued = false
            machine.interfaces = interfaces
            machine.powerState = .running
        }
    }

    package func suspend(instance: Instance) async throws {
        try begin(.suspend, instance.uuid)
        try withMachine(instance.uuid) { machine in
            guard machine.powerState == .running || machine.powerState == .paused else { throw Self.notRunning(instance.uuid) }
            machine.powerState = .suspended
        }
    }

    package func resume(instance: Instance, interfaces: [InterfaceRequest]) async throws {
        try begin(.resume, instance.uuid)
        try withMachine(instance.uuid) { machine in
            machine.interfaces = interfaces
            machine.powerState = .running
        }
    }

    package func injectNMI(instanceUUID: String) async throws {
        try begin(.injectNMI, instanceUUID)
        try withMachine(instanceUUID) { machine in
            guard machine.powerState == .running else { throw Self.notRunning(instanceUUID) }
            machine.console += Array("null: NMI\n".utf8)
        }
    }

    package func checkResize(_ request: ResizeRequest) async throws {
        try begin(.checkResize, request.instance.uuid)
        _ = try withMachine(request.instance.uuid) { $0.powerState }
        let (old, new) = (request.instance.flavor?.rootGiB ?? request.instance.rootGiB, request.flavor.rootGiB)
        guard new >= old else {
            throw DriverError(
                novaClass: "ResizeError",
                tenantMessage: "Resize error: the root disk has \(old) GiB, the flavor \(new) GiB; a disk cannot become smaller.",
                fault: .caller)
        }
    }

    package func beginResize(_ request: ResizeRequest) async throws {
        try begin(.beginResize, request.instance.uuid)
        try withOffMachine(request.instance.uuid) { $0.keptSize = Size(memoryMiB: $0.memoryMiB, vcpus: $0.vcpus) }
    }

    package func finishResize(_ request: ResizeRequest) async throws {
        try begin(.finishResize, request.instance.uuid)
        try withOffMachine(request.instance.uuid) { machine in
            machine.memoryMiB = request.flavor.memoryMiB
            machine.vcpus = request.flavor.vcpus
        }
    }

    package func confirmResize(instanceUUID: String) async throws {
        try begin(.confirmResize, instanceUUID)
        state.withLock { $0.machines[instanceUUID]?.keptSize = nil }
    }

    package func revertResize(instanceUUID: String) async throws {
        try begin(.revertResize, instanceUUID)
        try withMachine(instanceUUID) { machine in
            guard let kept = machine.keptSize else { return }
            (machine.memoryMiB, machine.vcpus, machine.keptSize) = (kept.memoryMiB, kept.vcpus, nil)
            machine.powerState = .shutdown
        }
    }

    private func withOffMachine(_ uuid: String, _ body: (inout Machine) -> Void) throws {
        try withMachine(uuid) { machine in
            guard machine.powerState != .running && machine.powerState != .paused else {
                throw DriverError(
                    novaClass: "InstanceInvalidState", tenantMessage: "Instance \(uuid) runs; it must be off for this.",
                    fault: .caller)
            }
            body(&machine)
        }
    }

    package func pause(instanceUUID: String) async throws {
        try begin(.pause, instanceUUID)
        try withMachine(instanceUUID) { machine in
            guard machine.powerState == .running || machine.powerState == .paused else {
                throw Self.notRunning(instanceUUID)
            }
            machine.powerState = .paused
        }
    }

    package func unpause(instanceUUID: String) async throws {
        try begin(.unpause, instanceUUID)
        try withMachine(instanceUUID) { machine in
            guard machine.powerState == .running || machine.powerState == .paused else {
                throw Self.notRunning(instanceUUID)
            }
            machine.powerState = .running
        }
    }

    package func consoleOutput(instanceUUID: String, byteCount: Int) async throws -> [UInt8] {
        try begin(.consoleOutput, instanceUUID)
        return try withMachine(instanceUUID) { Array($0.console.suffix(max(0, byteCount))) }
    }

    package func statistics(of instanceUUID: String) async throws -> MachineStatistics {
        try begin(.statistics, instanceUUID)
        return try withMachine(instanceUUID) { machine in
            guard machine.powerState == .running || machine.powerState == .paused else {
                throw Self.notRunning(instanceUUID)
            }
            var statistics = MachineStatistics()
            statistics.vcpuTimes = Array(repeating: 1_000_000_000, count: machine.vcpus)
            statistics.memoryMiB = machine.memoryMiB
            statistics.uptimeSeconds = 1
            statistics.interfaces = machine.interfaces.map { interface in
                var counters = MachineStatistics.Interface()
                counters.name = interface.deviceName
                counters.macAddress = interface.macAddress
                return counters
            }
            return statistics
        }
    }

    package func hostUptime() async throws -> String {
        " 12:00:00 up 1 day,  1:00,  0 users,  load average: 0.00, 0.00, 0.00"
    }

    private func begin(_ operation: Operation, _ uuid: String) throws {
        try Task.checkCancellation()
        let failure = state.withLock { state -> (any Error)? in
            state.calls.append((operation, uuid))
            guard var failures = state.failures[operation], !failures.isEmpty else { return nil }
            let first = failures.removeFirst()
            state.failures[operation] = failures
            return first
        }
        if let failure { throw failure }
    }

    private func withMachine<Result>(_ uuid: String, _ body: (inout Machine) throws -> Result) throws -> Result {
        try state.withLock { state in
            guard var machine = state.machines[uuid] else { throw DriverError.instanceNotFound(uuid) }
            let result = try body(&machine)
            state.machines[uuid] = machine
            return result
        }
    }

    private static func notRunning(_ uuid: String) -> DriverError {
        DriverError(novaClass: "InstanceNotRunning", tenantMessage: "Instance \(uuid) is not running.", fault: .caller)
    }
}

// What a test does to it and reads from it.
extension NullDriver {
    /// The next calls of `operation` fail, one error each, in order.
    package func fail(_ operation: Operation, with error: any Error) {
        state.withLock { $0.failures[operation, default: []].append(error) }
    }

    /// Operations asked for so far, in order.
    package var calls: [(operation: Operation, instanceUUID: String)] { state.withLock { $0.calls } }

    package func interfaces(of instanceUUID: String) -> [InterfaceRequest]? {
        state.withLock { $0.machines[instanceUUID]?.interfaces }
    }

    package func isRescued(_ instanceUUID: String) -> Bool { state.withLock { $0.machines[instanceUUID]?.isRescued ?? false } }

    /// The machine's size, and the one it had before a resize that nobody has confirmed.
    package func sizes(of instanceUUID: String) -> (now: Size, kept: Size?)? {
        state.withLock { $0.machines[instanceUUID].map { (Size(memoryMiB: $0.memoryMiB, vcpus: $0.vcpus), $0.keptSize) } }
    }

    /// The guest does not answer the power button: a soft reboot fails.
    package func ignorePowerButton(of instanceUUID: String) {
        state.withLock { _ = $0.ignoresPowerButton.insert(instanceUUID) }
    }

    /// The machine changes its state by itself and says so.
    package func happen(_ event: LifecycleEvent) {
        let (uuid, powerState): (String, PowerState) =
            switch event {
            case .started(let uuid), .resumed(let uuid): (uuid, .running)
            case .paused(let uuid): (uuid, .paused)
            case .stopped(let uuid): (uuid, .shutdown)
            case .crashed(let uuid): (uuid, .crashed)
            }
        state.withLock { $0.machines[uuid]?.powerState = powerState }
        eventSink.yield(event)
    }
}
