// Nova's quota:disk_* extra specs: how much a guest may ask of each of its disks.
import ComputeDriver
import MachineConfiguration

enum DiskQuota {
    private static let kinds: [String: DiskLimits.Kind] = [
        "total_bytes_sec": .totalBytes, "read_bytes_sec": .readBytes, "write_bytes_sec": .writeBytes,
        "total_iops_sec": .totalOperations, "read_iops_sec": .readOperations, "write_iops_sec": .writeOperations,
    ]

    /// The specs' values by their names after "quota:disk_"; 0 is no limit. One that is no number, or that nothing knows, is
    /// refused: a tenant must not believe in a limit that is not there.
    static func read(_ specs: [String: String]) throws(DriverError) -> [String: Int] {
        var limits: [String: Int] = [:]
        for (name, text) in specs where name.hasPrefix("quota:disk_") {
            let kind = String(name.dropFirst("quota:disk_".count))
            guard kinds[kind] != nil else { throw refusal("Extra spec \(name.prefix(64)) is not supported by this compute host.") }
            guard let value = Int(text), (0...1 << 53).contains(value) else {
                throw refusal("Extra spec \(name) has the value \(text.prefix(32)), which is no number of 0 or more.")
            }
            if value > 0 { limits[kind] = value }
        }
        if limits["total_bytes_sec"] != nil, limits["read_bytes_sec"] != nil || limits["write_bytes_sec"] != nil {
            throw refusal("quota:disk_total_bytes_sec does not go with quota:disk_read_bytes_sec or quota:disk_write_bytes_sec.")
        }
        if limits["total_iops_sec"] != nil, limits["read_iops_sec"] != nil || limits["write_iops_sec"] != nil {
            throw refusal("quota:disk_total_iops_sec does not go with quota:disk_read_iops_sec or quota:disk_write_iops_sec.")
        }
        return limits
    }

    /// For the monitor.
    static func limits(_ values: [String: Int]) -> DiskLimits {
        var limits = DiskLimits()
        for (name, value) in values where value > 0 {
            if let kind = kinds[name] { limits.limits[kind] = .init(perSecond: UInt64(value)) }
        }
        return limits
    }

    private static func refusal(_ reason: String) -> DriverError {
        DriverError(novaClass: "InvalidInput", tenantMessage: "Invalid input received: \(reason)", fault: .caller)
    }
}
