// Numbers of the guests for /metrics (operations §3.1). A scrape takes what was read last and asks for the next
// reading, so that a guest whose monitor does not answer delays nobody: its numbers grow old, and their age is one of
// the metrics.
package import ComputeDriver
package import Logging
import ServiceLifecycle
package import ServiceMetrics
import Synchronization

package final class GuestSampler: Service {
    private struct Reading {
        var sample: GuestSample
        var readAt: ContinuousClock.Instant
    }
    private static let deadline: Duration = .seconds(2)
    /// Monitors asked at a time.
    private static let width = 8

    private let driver: any ComputeDriver
    private let names: GuestNames
    private let logger: Logger
    private let readings = Mutex<[String: Reading]>([:])
    private let scrapes: AsyncStream<Void>
    private let scraped: AsyncStream<Void>.Continuation

    package init(driver: any ComputeDriver, names: GuestNames, logger: Logger) {
        self.driver = driver
        self.names = names
        self.logger = logger
        (scrapes, scraped) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }

    /// The source for the metrics tree.
    package var metrics: GuestMetrics {
        GuestMetrics {
            self.scraped.yield()
            let now = ContinuousClock.now
            return self.readings.withLock { $0.values }.map { reading in
                var sample = reading.sample
                sample.ageSeconds = reading.readAt.duration(to: now) / .seconds(1)
                return sample
            }.sorted { $0.uuid < $1.uuid }
        }
    }

    package func run() async {
        scraped.yield()
        for await _ in scrapes.cancelOnGracefulShutdown() {
            do {
                try await sampleAll()
            } catch {
                logger.debug("guests not counted", error: error)
            }
        }
    }

    func sampleAll() async throws {
        let machines = try await driver.machines()
        let present = Set(machines.map(\.instanceUUID))
        readings.withLock { readings in readings = readings.filter { present.contains($0.key) } }
        await withTaskGroup(of: Void.self) { group in
            for (index, machine) in machines.enumerated() {
                if index >= Self.width { await group.next() }
                group.addTask { await self.sample(machine) }
            }
        }
    }

    private func sample(_ machine: MachineSummary) async {
        let uuid = machine.instanceUUID
        let name = names[uuid] ?? uuid
        guard machine.powerState == .running || machine.powerState == .paused else {
            keep(GuestSample(domain: name, uuid: uuid))
            return
        }
        do {
            let statistics = try await withDeadline(Self.deadline) { try await self.driver.statistics(of: uuid) }
            var sample = GuestSample(statistics, domain: name, uuid: uuid)
            sample.isRunning = machine.powerState == .running
            keep(sample)
        } catch {
            logger.debug("guest not counted", error: error, metadata: ["instance": "\(uuid)"])
        }
    }

    private func keep(_ sample: GuestSample) {
        readings.withLock { $0[sample.uuid] = Reading(sample: sample, readAt: .now) }
    }
}

extension GuestSample {
    init(_ statistics: MachineStatistics, domain: String, uuid: String) {
        self.init(domain: domain, uuid: uuid)
        vcpuSeconds = statistics.vcpuTimes.map { Double($0) / 1_000_000_000 }
        memoryBytes = UInt64(clamping: statistics.memoryMiB) << 20
        residentBytes = statistics.residentKiB > 0 ? UInt64(clamping: statistics.residentKiB) << 10 : nil
        blocks = statistics.disks.map { disk in
            var block = Block(device: disk.name)
            block.readBytes = UInt64(clamping: disk.readBytes)
            block.writtenBytes = UInt64(clamping: disk.writeBytes)
            block.reads = UInt64(clamping: disk.readRequests)
            block.writes = UInt64(clamping: disk.writeRequests)
            return block
        }
        networks = statistics.interfaces.map { interface in
            var network = Network(device: interface.name)
            network.receivedBytes = UInt64(clamping: interface.receivedBytes)
            network.receivedPackets = UInt64(clamping: interface.receivedPackets)
            network.receivedDrops = UInt64(clamping: interface.receiveDrops)
            network.transmittedBytes = UInt64(clamping: interface.sentBytes)
            network.transmittedPackets = UInt64(clamping: interface.sentPackets)
            network.transmittedDrops = UInt64(clamping: interface.sendDrops)
            return network
        }
    }
}
