// The monitor's counters: MonitorProtocol and ComputeDriver both call theirs MachineStatistics.
import MonitorProtocol

typealias MonitorStatistics = MachineStatistics
