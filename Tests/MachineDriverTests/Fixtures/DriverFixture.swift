import ComputeDriver
import Foundation
import Glibc
import JSON
import Logging
import NovaObjects
import Testing

@testable import MachineDriver

struct TimedOut: Error, CustomStringConvertible {
    let description: String
}

/// Polls until `value` has something.
func eventually<Value>(
    _ what: String, seconds: Double = 60, every interval: Duration = .milliseconds(5), _ value: () async throws -> Value?
) async throws -> Value {
    let deadline = ContinuousClock.now + .seconds(seconds)
    while true {
        if let found = try await value() { return found }
        guard ContinuousClock.now < deadline else { throw TimedOut(description: "not in \(seconds) s: \(what)") }
        try await Task.sleep(for: interval)
    }
}

/// A directory that goes with the last reference.
final class Scratch: Sendable {
    let path: String

    init() throws {
        path = "/tmp/apus-driver-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func names(_ below: String = "") -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: path + below)) ?? []).sorted()
    }
}

/// Images by their ids, as the fetch closure of a request gives them.
final class Images: Sendable {
    let content: [String: [UInt8]]

    init(_ content: [String: [UInt8]]) { self.content = content }

    var fetch: @Sendable (String, CInt) async throws -> Int64 {
        { [content] id, descriptor in
            guard let bytes = content[id] else {
                throw DriverError(
                    novaClass: "ImageNotFound", tenantMessage: "Image \(id) could not be found.", fault: .peer)
            }
            guard write(descriptor, bytes, bytes.count) == bytes.count else { throw POSIXError(.ENOSPC) }
            return Int64(bytes.count)
        }
    }
}

/// A driver over directories of its own with the monitor that has no machine.
struct DriverFixture {
    let scratch: Scratch
    var options: MachineDriverOptions
    let uuid = UUID().uuidString.lowercased()

    init() throws {
        scratch = try Scratch()
        let monitor = try #require(Bundle.module.path(forResource: "fake-monitor", ofType: nil, inDirectory: nil))
        options = MachineDriverOptions(
            instancesPath: scratch.path + "/instances", monitorPath: monitor, kvmPath: "/dev/null",
            runDirectory: scratch.path + "/run",
            hostname: "host.example", startTimeout: .seconds(60), commandTimeout: .seconds(60), quitTimeout: .seconds(2))
        // The programs for it are on every Debian.
        options.ephemeralFormat = "ext4"
    }

    func driver() async throws -> MachineDriver {
        let driver = MachineDriver(options: options, logger: Logger(label: "test"))
        try await driver.initialize()
        return driver
    }

    func instance(rootGiB: Int = 0) -> Instance {
        var instance = Instance(in: .zed)
        instance.set("uuid", to: uuid)
        instance.set("id", to: 10)
        instance.set("memory_mb", to: 64)
        instance.set("vcpus", to: 2)
        instance.set("root_gb", to: rootGiB)
        instance.set("ephemeral_gb", to: 0)
        return instance
    }

    func request(
        words: String = "console=ttyS0", rootGiB: Int = 0, interfaces: [InterfaceRequest] = [],
        configDrive: [String: [UInt8]]? = nil,
        image: [UInt8] = [UInt8](repeating: 0x5A, count: 4096), startsPaused: Bool = false,
        change: (inout [String: JSONValue]) -> Void = { _ in }
    ) -> SpawnRequest {
        let images = Images(["image": image, "kernel": Array("the kernel".utf8), "ramdisk": Array("the RAM disk".utf8)])
        var record: [String: JSONValue] = [
            "id": "image", "disk_format": "raw",
            "properties": ["kernel_id": "kernel", "ramdisk_id": "ramdisk", "os_command_line": .string(words)],
        ]
        change(&record)
        return SpawnRequest(
            instance: instance(rootGiB: rootGiB), image: .object(record), interfaces: interfaces,
            configDrive: configDrive,
            fetchImage: images.fetch, startsPaused: startsPaused)
    }

    var directory: InstanceDirectory { InstanceDirectory(instancesPath: options.instancesPath, uuid: uuid) }

    func pid() throws -> pid_t { try #require(try directory.process()).pid }

    /// What the monitor saw of its start.
    func report(_ driver: MachineDriver) async throws -> JSONValue {
        try await eventually("the monitor's report") {
            let text = try await driver.consoleOutput(instanceUUID: uuid, byteCount: 1 << 20)
            return try? JSONValue.parse(text)
        }
    }

    /// Nothing that belongs to an instance is left.
    func expectNothingLeft(_ location: SourceLocation = #_sourceLocation) {
        #expect(scratch.names("/instances") == ["_base"], sourceLocation: location)
        #expect(scratch.names("/run") == [], sourceLocation: location)
        #expect(scratch.names("/instances/_base").allSatisfy { !$0.hasSuffix(".part") }, sourceLocation: location)
    }
}

let isRoot = geteuid() == 0
