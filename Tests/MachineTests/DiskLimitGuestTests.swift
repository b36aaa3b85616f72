import Glibc
import HostSystem
import MachineConfiguration
import Testing

/// What a guest measures, by its own clock, of a disk with limits. Of operations `LimitTests` knows: how many requests a kernel makes of
/// what it reads is its own affair.
extension GuestTests {
    @Suite struct DiskLimitGuestTests {
        /// 44 MiB at 4 MiB a second, the first 4 of them from a full bucket: ten seconds.
        @Test func aLimitOfBytesHoldsWithinFivePerCent() throws {
            let seconds = try reading(44, DiskLimits([.totalBytes: .init(perSecond: 4 << 20)]))
            #expect(abs(seconds - 10) <= 0.5, "\(seconds) s")
        }

        private func reading(_ mebibytes: Int, _ limits: DiskLimits) throws -> Double {
            let monitor = try MonitorProcess(commandLine: "apus.read=\(mebibytes) apus.test=poweroff") { machine in
                let disk = try makeMemoryFile(named: "disk", byteCount: 64 << 20).release()
                var description = DiskConfiguration(id: "virtio-disk0", fd: Int(disk))
                description.limits = limits
                machine.disks = [description]
            }
            let pattern = "read \(mebibytes) MiB from "
            #expect(monitor.waitForConsole { $0.contains(pattern) && $0.contains("ready ") }, "\(monitor.console.suffix(500))")
            let words = monitor.console.split(separator: pattern).last?.split(whereSeparator: \.isWhitespace)
            let begin = try #require(words?.first.flatMap { Double($0) }), end = try #require(words?.dropFirst(2).first.flatMap { Double($0) })
            return end - begin
        }
    }
}
