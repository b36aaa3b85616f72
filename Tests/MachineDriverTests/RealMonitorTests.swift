import ComputeDriver
import Foundation
import Glibc
import JSON
import NovaObjects
import Testing

@testable import MachineDriver

private func setting(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
private let hasMonitor =
    setting("APUS_TEST_MONITOR") != nil && setting("APUS_TEST_KERNEL") != nil && access("/dev/kvm", R_OK | W_OK) == 0
private let boots = hasMonitor && setting("APUS_KVM_TESTS") == "1" && setting("APUS_TEST_INITRD") != nil

/// The driver with apus-vmm itself: made and paused wherever there is a KVM, booted where that KVM can.
@Suite(
    .enabled(if: hasMonitor, "needs /dev/kvm, APUS_TEST_MONITOR and APUS_TEST_KERNEL"), .serialized,
    .timeLimit(.minutes(15)))
struct RealMonitorTests {
    private func fixture() throws -> DriverFixture {
        var fixture = try DriverFixture()
        fixture.options.monitorPath = try #require(setting("APUS_TEST_MONITOR"))
        fixture.options.kvmPath = "/dev/kvm"
        fixture.options.startTimeout = .seconds(60)
        fixture.options.quitTimeout = .seconds(10)
        return fixture
    }

    private func request(_ fixture: DriverFixture, _ words: String, startsPaused: Bool = true) throws -> SpawnRequest {
        var request = fixture.request(
            words: words,
            configDrive: ["openstack/latest/meta_data.json": Array("{\"uuid\": \"\(fixture.uuid)\"}".utf8)],
            startsPaused: startsPaused)
        request.instance.set("memory_mb", to: 256)
        let files = ["kernel": setting("APUS_TEST_KERNEL"), "ramdisk": setting("APUS_TEST_INITRD")]
        request.fetchImage = { id, descriptor in
            var bytes = [UInt8](repeating: 0, count: 1 << 20)
            if let path = files[id].flatMap({ $0 }) {
                bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
            }
            guard write(descriptor, bytes, bytes.count) == bytes.count else { throw POSIXError(.EIO) }
            return Int64(bytes.count)
        }
        return request
    }

    @Test func pausedMachineIsFoundAgainAndEnded() async throws {
        let fixture = try fixture()
        let first = try await fixture.driver()
        try await first.spawn(request(fixture, "console=ttyS0"))
        let pid = try fixture.pid()
        #expect(try await first.powerState(of: fixture.uuid) == .paused)
        let words = try String(contentsOfFile: "/proc/\(pid)/cmdline", encoding: .utf8)
        #expect(words.hasPrefix("apus-vmm") && words.contains(fixture.uuid), "\(words)")
        first.abandonSessions()
        let driver = try await fixture.driver()
        #expect(try await driver.powerState(of: fixture.uuid) == .paused)
        let statistics = try await driver.statistics(of: fixture.uuid)
        #expect(statistics.vcpuTimes.count == 2 && statistics.memoryMiB == 256 && statistics.residentKiB > 0)
        #expect(statistics.disks.map(\.name) == ["virtio-disk0", "virtio-disk1"])
        try await driver.powerOff(instance: fixture.instance(), timeout: .seconds(5), retryInterval: .seconds(1))
        #expect(try ProcessIdentity(pid: pid) == nil)
        #expect(try await driver.powerState(of: fixture.uuid) == .shutdown)
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        fixture.expectNothingLeft()
    }

    @Test func fileThatIsNoKernelIsTheMonitorsWordsToTheOperator() async throws {
        let fixture = try fixture()
        let driver = try await fixture.driver()
        let error = try await #require(throws: DriverError.self) { try await driver.spawn(fixture.request()) }
        #expect(error.operatorMessage.contains("kernel"), "\(error)")
        fixture.expectNothingLeft()
    }

    @Test(.enabled(if: boots, "needs a KVM that boots Linux: APUS_KVM_TESTS=1 and APUS_TEST_INITRD"))
    func guestBootsRebootsAndGoesDownByItsPowerButton() async throws {
        let fixture = try fixture()
        let driver = try await fixture.driver()
        func console() async throws -> String {
            String(
                decoding: try await driver.consoleOutput(instanceUUID: fixture.uuid, byteCount: 1 << 20), as: UTF8.self)
        }
        func expectReady(_ what: String) async throws {
            do {
                // A guest under a software processor needs what a busy poll would take.
                _ = try await eventually(what, seconds: 300, every: .milliseconds(500)) {
                    try await console().contains("ready ") ? true : nil
                }
            } catch let error as TimedOut {
                Issue.record("\(error); its console: \(try await console().suffix(3000))")
                throw error
            }
        }
        try await driver.spawn(request(fixture, "console=ttyS0 panic=-1"))
        try await driver.unpause(instanceUUID: fixture.uuid)
        try await expectReady("the guest is ready")
        let text = try await console()
        #expect(text.contains("config drive: \(fixture.uuid)"), "\(text.suffix(2000))")
        #expect(try await driver.softReboot(instance: fixture.instance(), timeout: .seconds(60)))
        try await expectReady("the guest is ready again")
        let begin = ContinuousClock.now
        try await driver.powerOff(instance: fixture.instance(), timeout: .seconds(60), retryInterval: .seconds(10))
        #expect(ContinuousClock.now - begin < .seconds(50), "the guest did not answer its power button")
        try await driver.powerOn(instance: fixture.instance(), interfaces: [])
        #expect(try await driver.powerState(of: fixture.uuid) == .running)
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        fixture.expectNothingLeft()
    }
}
