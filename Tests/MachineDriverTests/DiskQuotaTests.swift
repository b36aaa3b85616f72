import ComputeDriver
import MachineConfiguration
import Testing

@testable import MachineDriver

@Suite struct DiskQuotaTests {
    @Test func eachSpecBecomesALimitAndZeroIsNone() throws {
        let read = try DiskQuota.read([
            "quota:disk_read_bytes_sec": "1048576", "quota:disk_write_iops_sec": "200", "quota:disk_write_bytes_sec": "0", "hw:cpu_cores": "2",
        ])
        #expect(read == ["read_bytes_sec": 1_048_576, "write_iops_sec": 200])
        #expect(DiskQuota.limits(read) == DiskLimits([.readBytes: .init(perSecond: 1_048_576), .writeOperations: .init(perSecond: 200)]))
        #expect(DiskQuota.limits([:]).isEmpty)
    }

    @Test(arguments: [
        ["quota:disk_read_bytes_sec": "fast"], ["quota:disk_read_bytes_sec": "-1"], ["quota:disk_latency": "3"],
        ["quota:disk_total_iops_sec": "10", "quota:disk_read_iops_sec": "10"],
    ])
    func whatCannotBeHonouredIsRefusedInWords(specs: [String: String]) {
        let error = #expect(throws: DriverError.self) { try DiskQuota.read(specs) }
        #expect(error?.fault == .caller && error?.tenantMessage.contains("quota:disk_") == true)
    }
}
