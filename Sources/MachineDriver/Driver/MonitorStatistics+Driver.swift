// From the monitor's counters to the driver's.
import ComputeDriver
import MonitorProtocol

extension MonitorStatistics {
    var forDriver: DriverStatistics {
        var statistics = DriverStatistics()
        statistics.vcpuTimes = vcpus.map { UInt64($0.cpuNanoseconds) }
        statistics.memoryMiB = memoryMiB
        statistics.residentKiB = residentKiB
        statistics.disks = disks.map { disk in
            var counters = DriverStatistics.Disk()
            counters.name = disk.id
            counters.readRequests = Int64(disk.readRequests)
            counters.readBytes = Int64(disk.readBytes)
            counters.writeRequests = Int64(disk.writeRequests)
            counters.writeBytes = Int64(disk.writeBytes)
            counters.errors = Int64(disk.errors)
            return counters
        }
        statistics.interfaces = networks.map { network in
            var counters = DriverStatistics.Interface()
            counters.name = network.id
            counters.macAddress = network.mac
            counters.receivedBytes = Int64(network.receivedBytes)
            counters.receivedPackets = Int64(network.receivedPackets)
            counters.receiveDrops = Int64(network.receiveDrops)
            counters.receiveErrors = Int64(network.receiveErrors)
            counters.sentBytes = Int64(network.sentBytes)
            counters.sentPackets = Int64(network.sentPackets)
            counters.sendDrops = Int64(network.sendDrops)
            counters.sendErrors = Int64(network.sendErrors)
            return counters
        }
        statistics.balloon = (balloon?.statistics ?? [:]).mapValues { UInt64($0) }
        return statistics
    }
}
