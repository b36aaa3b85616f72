import Foundation
import ServiceConfiguration
import Testing

/// etc/nova.conf.sample, with every option switched on.
private func sample() throws -> String {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let text = try String(contentsOf: root.appendingPathComponent("etc/nova.conf.sample"), encoding: .utf8)
    return text.split(separator: "\n").map { line in
        // "#name = value" is an option, "# words" is not.
        line.hasPrefix("#") && !line.hasPrefix("# ") ? String(line.dropFirst()) : String(line)
    }.joined(separator: "\n")
}

@Suite struct SampleFileTests {
    private func load(_ text: String) throws -> LoadedConfiguration {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).conf")
        try Data(text.utf8).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        return try Configuration.load(
            files: ConfigurationFiles(paths: [file.path]), environment: [:],
            host: HostDefaults(hostName: "node-1", address: "192.0.2.7"))
    }

    @Test func `every option of the sample is one that is read`() throws {
        let loaded = try load(sample())
        #expect(loaded.unknownOptions == [])
        #expect(loaded.notices == [])
    }

    @Test func `options with a default show it`() throws {
        let written = try load(sample()).configuration
        let silent = try load("").configuration
        #expect(written.intervals == silent.intervals)
        #expect(written.images.cacheSubdirectory == silent.images.cacheSubdirectory)
        #expect(written.images.cacheManagerInterval == silent.images.cacheManagerInterval)
        #expect(written.compute.shutdownTimeout == silent.compute.shutdownTimeout)
        #expect(written.compute.maximumConcurrentBuilds == silent.compute.maximumConcurrentBuilds)
        #expect(written.compute.gracefulShutdownTimeout == silent.compute.gracefulShutdownTimeout)
        #expect(written.apus.metricsListen == silent.apus.metricsListen)
        #expect(written.apus.release == silent.apus.release)
        #expect(written.messaging.transientQueueTTL == silent.messaging.transientQueueTTL)
        #expect(written.messaging.heartbeatTimeout == silent.messaging.heartbeatTimeout)
        #expect(written.messaging.reconnectDelay == silent.messaging.reconnectDelay)
        #expect(written.logging.contextFormat == silent.logging.contextFormat)
        #expect(written.logging.instanceFormat == silent.logging.instanceFormat)
        #expect(written.resources.reservedHostMemoryMiB == silent.resources.reservedHostMemoryMiB)
    }
}
