// A manager with everything around it in memory, driven by recorded messages.
import Compute
import ComputeDriver
import Foundation
import JSON
import Logging
import NovaObjects
import OsloMessaging
import ServiceConfiguration
import ServiceMetrics
import Testing

struct World: Sendable {
    let journal = Journal()
    let rows: RecordingConductor
    let driver: RecordingDriver
    let books: RecordingBooks
    let network: RecordingNetwork
    let glance: RecordingGlance
    let manager: ComputeManager
    let metrics: ComputeMetrics
    let endpoint: ComputeEndpoint

    init(
        vif: VIF = RecordingNetwork.inactiveVIF, profile: ReleaseProfile = .zed,
        configure: (inout Configuration) -> Void = { _ in }
    ) throws {
        rows = RecordingConductor(journal)
        driver = RecordingDriver(journal)
        network = RecordingNetwork(journal, vif: vif)
        glance = RecordingGlance(journal: journal)
        let conductor = Conductor(client: rows, profile: profile, timeout: .seconds(60))
        books = RecordingBooks(journal: journal, conductor: conductor)
        var configuration = try Configuration.load(
            files: ConfigurationFiles(paths: []), environment: [:],
            host: HostDefaults(hostName: "host2", address: "127.0.0.1")
        ).configuration
        configuration.network.vifPluggingTimeout = .zero
        configure(&configuration)
        metrics = ComputeMetrics(version: "test", rpcVersion: "6.1", serviceVersion: 64, host: "host2")
        manager = ComputeManager(
            ComputeServices(
                conductor: conductor, driver: driver, books: books, network: network,
                notifications: RecordingNotifications(journal: journal), metadata: FixedMetadata(), glance: glance,
                configuration: configuration, metrics: metrics,
                logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })))
        endpoint = ComputeEndpoint(manager)
    }

    /// Runs the instances' runners while `body` runs.
    func running<Result>(_ body: () async throws -> Result) async throws -> Result {
        let runners = Task { await manager.runners.run() }
        defer { runners.cancel() }
        let result = try await body()
        try await settle()
        manager.runners.close()
        await runners.value
        return result
    }

    /// Until nothing is on its way.
    func settle() async throws {
        let runners = manager.runners
        try await eventually("the end of all operations") { runners.activeCount == 0 }
    }

    /// The recorded message of this name, with its instance's row stored as the message has it.
    func message(_ name: String, method: String? = nil) throws -> RPCRequest {
        let sample = try Recording.sample("rpc-compute-\(name)")
        let arguments = try #require(sample["args"]?.objectValue)
        if let primitive = arguments["instance"], let instance = try? Instance(primitive: primitive) { rows.store(instance) }
        return RPCRequest(
            method: method ?? sample["method"]?.stringValue ?? "", arguments: arguments, namespace: nil,
            version: sample["version"]?.stringValue ?? "6.0",
            context: RequestContext(entries: [
                "request_id": "req-11111111-2222-3333-4444-555555555555", "auth_token": "token", "roles": ["member"],
            ]), isCall: sample["kind"]?.stringValue == "call")
    }

    /// Sends a recorded message and waits for the end of what it began.
    @discardableResult
    func send(_ request: RPCRequest) async throws -> JSONValue {
        try await running { try await endpoint.dispatch(request) }
    }
}

/// The recorded messages beside the tests of NovaObjects.
enum Recording {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("NovaObjectsTests/Samples")

    static func sample(_ name: String) throws -> JSONValue {
        let data = try Data(contentsOf: folder.appendingPathComponent(name + ".json"))
        return try JSONValue.parse([UInt8](data), limits: JSONLimits(depth: 128))
    }

    static var computeNames: [String] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return names.filter { $0.hasPrefix("rpc-compute-") && $0.hasSuffix(".json") }.map { String($0.dropLast(5)) }.sorted()
    }
}

extension RPCRequest {
    var instance: Instance {
        get throws { try Instance(primitive: arguments["instance"] ?? .null) }
    }

    func with(_ change: (inout [String: JSONValue]) -> Void) -> RPCRequest {
        var copy = self
        change(&copy.arguments)
        return copy
    }
}
