// ComputeDriver's counters, under a name that MonitorProtocol does not have.
import ComputeDriver

typealias DriverStatistics = MachineStatistics
