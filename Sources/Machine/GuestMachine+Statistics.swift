// What the machine did so far, collected from the objects that count. Any time, any thread.
import HostSystem
import MachineConfiguration
import MachineCore
import MonitorProtocol
import VirtIO

extension GuestMachine {
    /// Asks the guest's balloon for new numbers, too: the next call has them.
    func statistics(residentKiB: Int) -> MachineStatistics {
        let threads = processors.threadNumbers
        return MachineStatistics(
            vcpus: threads.indices.map {
                VCPUStatistics(
                    id: $0, cpuNanoseconds: Int(clamping: ThreadNumber.nanoseconds(of: threads[$0])),
                    thread: Int(threads[$0]))
            },
            memoryMiB: configuration.memoryMiB, residentKiB: residentKiB, balloon: balloonReport,
            disks: zip(configuration.disks, board.diskCounters).map { disk, device in
                let counters = device.values
                var statistics = DiskStatistics(id: disk.id)
                statistics.readRequests = Int(clamping: counters.readRequests)
                statistics.readBytes = Int(clamping: counters.readBytes)
                statistics.writeRequests = Int(clamping: counters.writeRequests)
                statistics.writeBytes = Int(clamping: counters.writeBytes)
                statistics.flushRequests = Int(clamping: counters.flushRequests)
                statistics.errors = Int(clamping: counters.errors)
                return statistics
            },
            networks: zip(configuration.networks, board.networks).map { network, device in
                let counters = device.counters.values
                var statistics = NetworkStatistics(id: network.id, mac: network.mac.description)
                statistics.receivedPackets = Int(clamping: counters.readRequests)
                statistics.receivedBytes = Int(clamping: counters.readBytes)
                statistics.receiveDrops = Int(clamping: counters.readDrops)
                statistics.sentPackets = Int(clamping: counters.writeRequests)
                statistics.sentBytes = Int(clamping: counters.writeBytes)
                statistics.sendDrops = Int(clamping: counters.writeDrops)
                // The device counts chains that were no frames: the guest sent them.
                statistics.sendErrors = Int(clamping: counters.errors)
                return statistics
            })
    }

    private var balloonReport: BalloonReport? {
        guard let balloon = board.balloon else { return nil }
        let all = configuration.memoryMiB
        var statistics: [String: Int] = [:]
        for (tag, value) in balloon.statistics?.values ?? [:] where Self.balloonTags.indices.contains(Int(tag)) {
            statistics[Self.balloonTags[Int(tag)]] = Int(clamping: value)
        }
        balloon.requestStatistics()
        return BalloonReport(
            actualMiB: all - Int(balloon.actualPages / 256), targetMiB: all - Int(balloon.targetPages / 256),
            statistics: statistics)
    }

    /// virtio 1.2 §5.5.6.4, by tag.
    private static let balloonTags = [
        "swap-in", "swap-out", "major-faults", "minor-faults", "free-memory", "total-memory", "available-memory",
        "disk-caches",
        "hugetlb-allocations", "hugetlb-failures",
    ]
}
