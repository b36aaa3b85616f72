// Counters of a machine, in the driver's terms.
package import ComputeDriver

extension MachineDriver {
    package func statistics(of instanceUUID: String) async throws -> MachineStatistics {
        let session = try runningSession(instanceUUID)
        return try await translatingErrors(while: "read the statistics of instance \(instanceUUID)") {
            let counters = try await session.statistics()
            var statistics = counters.forDriver
            statistics.uptimeSeconds = try await session.uptimeSeconds()
            return statistics
        }
    }
}
