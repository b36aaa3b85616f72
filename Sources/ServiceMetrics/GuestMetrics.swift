// Metrics of the guests, from the last snapshot of each: a scrape never asks a guest's monitor and so never waits for one.
// Every sample carries `domain` (instance-%08x, what dashboards of libvirt exporters join on) and `uuid`.

package struct GuestSample: Sendable {
    package struct Block: Sendable {
        package var device: String
        package var readBytes: UInt64 = 0
        package var writtenBytes: UInt64 = 0
        package var reads: UInt64 = 0
        package var writes: UInt64 = 0
        package var flushes: UInt64 = 0
        package init(device: String) { self.device = device }
    }
    package struct Network: Sendable {
        package var device: String
        /// Directions are the guest's.
        package var receivedBytes: UInt64 = 0
        package var receivedPackets: UInt64 = 0
        package var receivedDrops: UInt64 = 0
        package var transmittedBytes: UInt64 = 0
        package var transmittedPackets: UInt64 = 0
        package var transmittedDrops: UInt64 = 0
        package init(device: String) { self.device = device }
    }
    package var domain: String
    package var uuid: String
    package var isRunning = false
    package var vcpuSeconds: [Double] = []
    package var memoryBytes: UInt64 = 0
    package var residentBytes: UInt64?
    package var blocks: [Block] = []
    package var networks: [Network] = []
    /// How old this snapshot is.
    package var ageSeconds: Double = 0

    package init(domain: String, uuid: String) {
        self.domain = domain
        self.uuid = uuid
    }
}

package struct GuestMetrics: MetricSource {
    private let snapshot: @Sendable () -> [GuestSample]

    package init(_ snapshot: @escaping @Sendable () -> [GuestSample]) { self.snapshot = snapshot }

    package func metricFamilies() -> [MetricFamily] {
        let guests = snapshot()
        return guestFamilies(guests) + blockFamilies(guests) + networkFamilies(guests)
    }

    private func guestFamilies(_ guests: [GuestSample]) -> [MetricFamily] {
        [
            MetricFamily(
                "apus_guests", .gauge, help: "Guests on this host.", samples: [MetricSample([], Double(guests.count))]),
            family("apus_guest_running", .gauge, "1 while the guest's vCPUs run.", guests) {
                [MetricSample($1, $0.isRunning ? 1 : 0)]
            },
            family("apus_guest_vcpu_seconds_total", .counter, "CPU time of the vCPU's thread.", guests) {
                guest, labels in
                guest.vcpuSeconds.enumerated().map { MetricSample(labels + [("vcpu", "\($0)")], $1) }
            },
            family("apus_guest_memory_bytes", .gauge, "Memory of the guest.", guests) {
                [MetricSample($1, Double($0.memoryBytes))]
            },
            family("apus_guest_memory_resident_bytes", .gauge, "Resident memory of its process.", guests) {
                guest, labels in
                guest.residentBytes.map { [MetricSample(labels, Double($0))] } ?? []
            },
            family("apus_guest_snapshot_age_seconds", .gauge, "Age of this guest's numbers.", guests) {
                [MetricSample($1, $0.ageSeconds)]
            },
        ]
    }

    private func blockFamilies(_ guests: [GuestSample]) -> [MetricFamily] {
        let columns: [(String, String, (GuestSample.Block) -> UInt64)] = [
            ("read_bytes", "Bytes the guest read.", { $0.readBytes }),
            ("written_bytes", "Bytes the guest wrote.", { $0.writtenBytes }),
            ("reads", "Read requests of the guest.", { $0.reads }),
            ("writes", "Write requests of the guest.", { $0.writes }),
            ("flushes", "Flush requests of the guest.", { $0.flushes }),
        ]
        return columns.map { name, help, value in
            family("apus_guest_block_\(name)_total", .counter, help, guests) { guest, labels in
                guest.blocks.map { MetricSample(labels + [("device", $0.device)], Double(value($0))) }
            }
        }
    }

    private func networkFamilies(_ guests: [GuestSample]) -> [MetricFamily] {
        let columns: [(String, String, (GuestSample.Network) -> UInt64)] = [
            ("receive_bytes", "Bytes the guest received.", { $0.receivedBytes }),
            ("receive_packets", "Packets the guest received.", { $0.receivedPackets }),
            ("receive_drops", "Packets for the guest that were dropped.", { $0.receivedDrops }),
            ("transmit_bytes", "Bytes the guest sent.", { $0.transmittedBytes }),
            ("transmit_packets", "Packets the guest sent.", { $0.transmittedPackets }),
            ("transmit_drops", "Packets of the guest that were dropped.", { $0.transmittedDrops }),
        ]
        return columns.map { name, help, value in
            family("apus_guest_network_\(name)_total", .counter, help, guests) { guest, labels in
                guest.networks.map { MetricSample(labels + [("device", $0.device)], Double(value($0))) }
            }
        }
    }

    private func family(
        _ name: String, _ kind: MetricFamily.Kind, _ help: String, _ guests: [GuestSample],
        _ samples: (GuestSample, [(String, String)]) -> [MetricSample]
    ) -> MetricFamily {
        MetricFamily(
            name, kind, help: help,
            samples: guests.flatMap { samples($0, [("domain", $0.domain), ("uuid", $0.uuid)]) })
    }
}
