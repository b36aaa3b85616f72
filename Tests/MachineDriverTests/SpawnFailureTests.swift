import ComputeDriver
import Foundation
import Glibc
import JSON
import NovaObjects
import Testing

@testable import MachineDriver

/// What a machine is made of, and that a failure leaves nothing and says what a tenant may read.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct SpawnFailureTests {
    private func failure(_ fixture: DriverFixture, _ request: SpawnRequest) async throws -> DriverError {
        let driver = try await fixture.driver()
        let error = try await #require(throws: DriverError.self) { try await driver.spawn(request) }
        #expect(
            !error.tenantMessage.contains("/tmp") && !error.tenantMessage.contains(fixture.scratch.path),
            "\(error.tenantMessage)")
        fixture.expectNothingLeft()
        return error
    }

    @Test func disksAreWhatTheFlavorPromises() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        var request = fixture.request(rootGiB: 1)
        request.instance.set("ephemeral_gb", to: 2)
        try await driver.spawn(request)
        func size(_ name: String) throws -> Int {
            try #require(try FileManager.default.attributesOfItem(atPath: fixture.directory.file(name))[.size] as? Int)
        }
        #expect(try size("disk") == 1 << 30 && size("disk.eph0") == 2 << 30)
        let content = try #require(FileHandle(forReadingAtPath: fixture.directory.file("disk"))).readData(
            ofLength: 4097)
        #expect(content == Data(repeating: 0x5A, count: 4096) + [0])
        #expect(try Data(contentsOf: URL(fileURLWithPath: fixture.directory.ramdisk())) == Data("the RAM disk".utf8))
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
    }

    @Test func imageLargerThanTheFlavorIsRefused() throws {
        let error = try #require(throws: DriverError.self) {
            try MachinePlan.rootByteCount(image: (1 << 30) + 1, flavor: 1 << 30)
        }
        #expect(error.novaClass == "FlavorDiskTooSmall" && error.tenantMessage.contains("too small"))
        #expect(try MachinePlan.rootByteCount(image: 513, flavor: 0) == 1024)
    }

    @Test func contentThatIsNotRawIsRefused() async throws {
        let fixture = try DriverFixture()
        let error = try await failure(
            fixture, fixture.request(image: [0x51, 0x46, 0x49, 0xFB] + [UInt8](repeating: 0, count: 600)))
        #expect(error.novaClass == "ImageUnacceptable" && error.tenantMessage.contains("qcow2"))
        #expect(fixture.scratch.names("/instances/_base") == [])
    }

    @Test func formatsThatAreNoDisksAreRefused() async throws {
        let fixture = try DriverFixture()
        let error = try await failure(fixture, fixture.request { $0["disk_format"] = "iso" })
        #expect(error.novaClass == "InvalidDiskFormat" && error.tenantMessage.contains("iso"))
    }

    @Test func imagesThatAreNotWhatTheirRecordSaysAreRefused() async throws {
        let fixture = try DriverFixture()
        let error = try await failure(fixture, fixture.request { $0["disk_format"] = "qcow2" })
        #expect(error.novaClass == "ImageUnacceptable" && error.tenantMessage.contains("qcow2"), "\(error.tenantMessage)")
    }

    @Test(arguments: [
        (["hw_disk_bus": "floppy"], "floppy"), (["hw_machine_type": "virt"], "virt"), (["hw_firmware_type": "coreboot"], "coreboot"),
        (["hw_disk_bus": "ide"], "ide"), (["os_secure_boot": "required"], "Secure boot"),
    ] as [([String: String], String)])
    func hardwareThatThisHostHasNotIsRefusedInWords(properties: [String: String], word: String) async throws {
        let fixture = try DriverFixture()
        let values = properties.mapValues { JSONValue.string($0) }
        let error = try await failure(fixture, fixture.request { $0["properties"] = .object(values) })
        #expect(error.novaClass == "UnsupportedHardware" && error.tenantMessage.contains(word))
    }

    @Test func missingKernelImageIsItsOwnersError() async throws {
        let fixture = try DriverFixture()
        let error = try await failure(fixture, fixture.request { $0["properties"] = ["kernel_id": "nowhere"] })
        #expect(error.novaClass == "ImageNotFound")
    }

    @Test func hostileConfigDrivePathIsRefused() async throws {
        let fixture = try DriverFixture()
        _ = try await failure(fixture, fixture.request(configDrive: ["../escape": []]))
    }

    @Test func unboundPortIsRefusedBeforeAnythingIsMade() async throws {
        let fixture = try DriverFixture()
        let port = InterfaceRequest(
            portID: "p", macAddress: "fa:16:3e:00:00:01", type: "binding_failed", bridge: nil, deviceName: "tapp",
            mtu: nil, details: [:])
        let error = try await failure(fixture, fixture.request(interfaces: [port]))
        #expect(error.novaClass == "VirtualInterfaceCreateException")
        #expect(fixture.scratch.names("/instances/_base") == [])
    }

    @Test func missingKVMIsToldToTheOperator() async throws {
        var fixture = try DriverFixture()
        fixture.options.kvmPath = fixture.scratch.path + "/kvm"
        let error = try await failure(fixture, fixture.request())
        #expect(error.operatorMessage.contains("kvm"))
    }

    @Test(.enabled(if: isRoot, "needs root to mount a small file system"))
    func fullDiskIsToldInWordsAndLeavesNothing() async throws {
        let fixture = try DriverFixture()
        let path = fixture.options.instancesPath
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        try #require(mount("small", path, "tmpfs", 0, "size=1m") == 0)
        defer { umount2(path, CInt(MNT_DETACH)) }
        let inDownload = try await failure(fixture, fixture.request(image: [UInt8](repeating: 1, count: 2 << 20)))
        #expect(inDownload.tenantMessage.contains("no space left"), "\(inDownload)")
        // It fits into the cache, but not a second time.
        let inCopy = try await failure(fixture, fixture.request(image: [UInt8](repeating: 1, count: 600 << 10)))
        #expect(
            inCopy.tenantMessage.contains("no space left") && inCopy.novaClass == "ComputeResourcesUnavailable",
            "\(inCopy)")
    }
}
