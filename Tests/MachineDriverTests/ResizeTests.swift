import ComputeDriver
import Foundation
import Glibc
import JSON
import NovaObjects
import Testing

@testable import MachineDriver

/// A machine's new size, and the way back to the old one byte for byte.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ResizeTests {
    private func flavor(
        memoryMiB: Int = 64, vcpus: Int = 2, rootGiB: Int = 0, ephemeralGiB: Int = 0, swapMiB: Int = 0, specs: [String: String] = [:]
    ) -> Flavor {
        var flavor = Flavor(in: .zed)
        for (field, value) in [
            ("id", 2), ("memory_mb", memoryMiB), ("vcpus", vcpus), ("root_gb", rootGiB), ("ephemeral_gb", ephemeralGiB),
            ("swap", swapMiB),
        ] { flavor.set(field, to: value) }
        flavor.set("extra_specs", to: specs)
        return flavor
    }

    private func resize(
        _ fixture: DriverFixture, to flavor: Flavor, from old: Flavor? = nil, image: JSONValue = ["id": "image", "properties": ["kernel_id": "kernel"]]
    ) -> ResizeRequest {
        var instance = fixture.instance(rootGiB: old?.rootGiB ?? 0)
        if let old { instance.take(old) }
        return ResizeRequest(instance: instance, flavor: flavor, image: image)
    }

    private func powerOff(_ fixture: DriverFixture, _ driver: MachineDriver) async throws {
        try await driver.powerOff(instance: fixture.instance(), timeout: .zero, retryInterval: .zero)
    }

    private func bytes(_ path: String, at offset: off_t = 0, _ count: Int) throws -> [UInt8] {
        let file = try Descriptor(opening: path, O_RDONLY)
        var buffer = [UInt8](repeating: 0, count: count)
        let got = pread(file.rawValue, &buffer, count, offset)
        return Array(buffer.prefix(max(0, got)))
    }

    private func write(_ text: String, to path: String, at offset: off_t) throws {
        let file = try Descriptor(opening: path, O_RDWR)
        #expect(pwrite(file.rawValue, text, text.utf8.count, offset) == text.utf8.count)
    }

    private func status(_ path: String) throws -> stat {
        var status = stat()
        guard stat(path, &status) == 0 else { throw POSIXError(.ENOENT) }
        return status
    }

    private func size(_ path: String) throws -> Int64 {
        try Files.byteCount(of: try Descriptor(opening: path, O_RDONLY), named: path)
    }

    @Test func machineGrowsAndItsUserStaysWithIt() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        try await driver.spawn(fixture.request(rootGiB: 1, configDrive: ["openstack/latest/meta_data.json": Array("{}".utf8)]))
        try await powerOff(fixture, driver)
        let request = resize(fixture, to: flavor(memoryMiB: 128, vcpus: 4, rootGiB: 2), from: flavor(rootGiB: 1))
        try await driver.checkResize(request)
        try await driver.beginResize(request)
        try await driver.finishResize(request)
        #expect(try size(fixture.directory.file("disk")) == 2 << 30)
        #expect(try bytes(fixture.directory.file("disk"), 4097) == [UInt8](repeating: 0x5A, count: 4096) + [0])
        try await driver.powerOn(instance: fixture.instance(), interfaces: [])
        let configuration = try #require(try await fixture.report(driver)["configuration"])
        #expect(configuration["memoryMiB"] == 128)
        #expect(configuration["cpu"] == ["count": 4, "sockets": 4, "cores": 1, "threads": 1])
        #expect(configuration["disks"]?.arrayValue?.map { $0["readOnly"] } == [false, true])
        // Not the flavor's affair.
        #expect(configuration["commandLine"] == "console=ttyS0")

        #expect(fixture.scratch.names("/instances") == [fixture.uuid, "\(fixture.uuid)_resize", "_base"].sorted())
        #expect(try await driver.machines().map(\.instanceUUID) == [fixture.uuid])
        try await driver.confirmResize(instanceUUID: fixture.uuid)
        try await driver.confirmResize(instanceUUID: fixture.uuid)
        #expect(fixture.scratch.names("/instances") == [fixture.uuid, "_base"].sorted())
        #expect(try await driver.powerState(of: fixture.uuid) == .running)
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        fixture.expectNothingLeft()
    }

    @Test func revertRestoresTheBytes() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        try await driver.spawn(fixture.request(rootGiB: 1))
        try write("before", to: fixture.directory.file("disk"), at: 512 << 20)
        try await powerOff(fixture, driver)
        let before = try #require(try fixture.directory.machine())
        let request = resize(fixture, to: flavor(memoryMiB: 128, vcpus: 4, rootGiB: 2, ephemeralGiB: 1), from: flavor(rootGiB: 1))
        try await driver.beginResize(request)
        try await driver.finishResize(request)
        try await driver.powerOn(instance: fixture.instance(), interfaces: [])
        // What the guest does with its new disks is not to be seen any more.
        try write("after!", to: fixture.directory.file("disk"), at: 512 << 20)
        try write("after!", to: fixture.directory.file("disk"), at: (2 << 30) - 6)
        // Whoever takes it back need not have ended the machine.
        let pid = try fixture.pid()
        try await driver.revertResize(instanceUUID: fixture.uuid)
        #expect(kill(pid, 0) != 0)
        #expect(try fixture.directory.machine() == before)
        #expect(try size(fixture.directory.file("disk")) == 1 << 30)
        #expect(try bytes(fixture.directory.file("disk"), at: 512 << 20, 6) == Array("before".utf8))
        #expect(!Files.exists(fixture.directory.file("disk.eph0")))
        #expect(fixture.scratch.names("/instances") == [fixture.uuid, "_base"].sorted())
        #expect(try await driver.powerState(of: fixture.uuid) == .shutdown)
        // Once more: nothing is kept, nothing changes.
        try await driver.revertResize(instanceUUID: fixture.uuid)
        try await driver.powerOn(instance: fixture.instance(), interfaces: [])
        #expect(try await fixture.report(driver)["configuration"]?["memoryMiB"] == 64)
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        fixture.expectNothingLeft()
    }

    @Test func keptDisksTakeNoMoreThanTheirData() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        try await driver.spawn(fixture.request(rootGiB: 1))
        try await powerOff(fixture, driver)
        try await driver.beginResize(resize(fixture, to: flavor(rootGiB: 1), from: flavor(rootGiB: 1)))
        let kept = InstanceDirectory(keptOf: fixture.uuid, instancesPath: fixture.options.instancesPath)
        let disk = try status(kept.file("disk"))
        #expect(disk.st_size == 1 << 30 && disk.st_blocks < 1024)
        // Nobody writes to a kernel: one file with two names.
        #expect(try status(kept.file("kernel")).st_nlink >= 2)
        #expect(Set(fixture.scratch.names("/instances/\(fixture.uuid)_resize")) == ["disk", "kernel", "machine.json", "ramdisk", "run.json"])
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        fixture.expectNothingLeft()
    }

    @Test(arguments: [
        // The flavor's disks, the machine's, a word of the refusal.
        (1, 1, 2, "root disk has 2 GiB, the flavor's 1 GiB"),
        (0, 1, 2, "root disk has 2 GiB, the flavor's none"),
        (2, 0, 2, "ephemeral disk has 1 GiB, the flavor's none"),
    ])
    func smallerDisksAreRefused(rootGiB: Int, ephemeralGiB: Int, oldRootGiB: Int, words: String) async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        let old = flavor(rootGiB: oldRootGiB, ephemeralGiB: 1)
        var spawn = fixture.request()
        spawn.instance.take(old)
        try await driver.spawn(spawn)
        let before = try fixture.directory.machine()
        let error = try await #require(throws: DriverError.self) {
            try await driver.checkResize(resize(fixture, to: flavor(rootGiB: rootGiB, ephemeralGiB: ephemeralGiB), from: old))
        }
        #expect(error.novaClass == "ResizeError" && error.fault == .caller)
        #expect(error.tenantMessage.contains(words) && !error.tenantMessage.contains("/"), "\(error.tenantMessage)")
        #expect(try fixture.directory.machine() == before)
        #expect(try await driver.powerState(of: fixture.uuid) == .running)
        #expect(fixture.scratch.names("/instances") == [fixture.uuid, "_base"].sorted())
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
    }

    @Test func sizesThatNoMachineHasAreRefused() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        try await driver.spawn(fixture.request())
        for flavor in [flavor(vcpus: 65), flavor(memoryMiB: 8)] {
            let error = try await #require(throws: DriverError.self) { try await driver.checkResize(resize(fixture, to: flavor)) }
            #expect(error.novaClass == "ComputeResourcesUnavailable")
        }
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
    }

    @Test func otherDisksComeGrowAndGo() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        let drive = ["openstack/latest/meta_data.json": Array("{}".utf8)]
        let (plain, more) = (flavor(rootGiB: 1), flavor(rootGiB: 1, ephemeralGiB: 1, swapMiB: 64))
        try await driver.spawn(fixture.request(rootGiB: 1, configDrive: drive))
        try await powerOff(fixture, driver)
        try await driver.finishResize(resize(fixture, to: more, from: plain))
        #expect(try fixture.directory.machine()?.disks.map(\.file) == ["disk", "disk.eph0", "disk.swap", "disk.config"])
        #expect(try fixture.directory.machine()?.disks.map(\.id) == (0..<4).map { "virtio-disk\($0)" })
        try write("kept", to: fixture.directory.file("disk.eph0"), at: 0)
        try write("gone", to: fixture.directory.file("disk.swap"), at: 0)
        // A second time, and on to a larger and a smaller one.
        try await driver.finishResize(resize(fixture, to: more, from: more))
        #expect(try bytes(fixture.directory.file("disk.swap"), 4) == Array("gone".utf8))
        try await driver.finishResize(resize(fixture, to: flavor(rootGiB: 1, ephemeralGiB: 2, swapMiB: 32), from: more))
        #expect(try size(fixture.directory.file("disk.eph0")) == 2 << 30 && size(fixture.directory.file("disk.swap")) == 32 << 20)
        #expect(try bytes(fixture.directory.file("disk.eph0"), 4) == Array("kept".utf8))
        #expect(try bytes(fixture.directory.file("disk.swap"), 4) == [0, 0, 0, 0], "made anew")
        let swapless = resize(fixture, to: flavor(rootGiB: 1, ephemeralGiB: 2), from: flavor(rootGiB: 1, ephemeralGiB: 2, swapMiB: 32))
        try await driver.finishResize(swapless)
        #expect(try fixture.directory.machine()?.disks.map(\.file) == ["disk", "disk.eph0", "disk.config"])
        #expect(!Files.exists(fixture.directory.file("disk.swap")))
        try await driver.powerOn(instance: fixture.instance(), interfaces: [])
        #expect(try await driver.powerState(of: fixture.uuid) == .running)
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        fixture.expectNothingLeft()
    }

    @Test func topologyAndQueuesFollowFlavorAndImage() throws {
        let fixture = try DriverFixture()
        let plan = try MachinePlan(fixture.request(), options: fixture.options)
        let wanted = flavor(vcpus: 8, specs: ["hw:cpu_threads": "2", "hw_rng:allowed": "False", "quota:disk_read_iops_sec": "100"])
        let image: JSONValue = ["id": "image", "properties": ["kernel_id": "kernel", "hw_cpu_cores": "4", "hw_vif_multiqueue_enabled": "true"]]
        let machine = try ResizePlan(
            plan.machine, resize(fixture, to: wanted, image: image), byteCounts: ["disk": 4096], options: fixture.options
        ).machine
        #expect(machine.vcpus == 8 && machine.sockets == 1 && machine.cores == 4 && machine.threads == 2)
        #expect(machine.queueCount == 8 && !machine.hasEntropy && machine.diskLimits == ["read_iops_sec": 100])
        #expect(machine.commandLine == plan.machine.commandLine && machine.hasRAMDisk == plan.machine.hasRAMDisk)
    }

    @Test func machineThatRunsIsNotChanged() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        try await driver.spawn(fixture.request())
        let request = resize(fixture, to: flavor(memoryMiB: 128))
        let before = try fixture.directory.machine()
        for change in [driver.beginResize, driver.finishResize] {
            let error = try await #require(throws: DriverError.self) { try await change(request) }
            #expect(error.novaClass == "InstanceInvalidState")
        }
        #expect(try fixture.directory.machine() == before)
        #expect(fixture.scratch.names("/instances") == [fixture.uuid, "_base"].sorted())
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        for change in [driver.checkResize, driver.beginResize, driver.finishResize] {
            let error = try await #require(throws: DriverError.self) { try await change(request) }
            #expect(error.novaClass == "InstanceNotFound")
        }
        fixture.expectNothingLeft()
    }

    @Test func cancelledKeepingLeavesNothing() throws {
        let scratch = try Scratch()
        let directory = InstanceDirectory(instancesPath: scratch.path, uuid: "u")
        try Files.makeDirectories(directory.path)
        for name in ["disk", "machine.json", "kernel", "console.log", "run.json", "monitor.pid"] {
            try Files.write(directory.file(name), Array(name.utf8))
        }
        let kept = InstanceDirectory(keptOf: "u", instancesPath: scratch.path)
        #expect(throws: CancellationError.self) { try directory.keep(in: kept, isCancelled: { true }) }
        #expect(scratch.names() == ["u"])
        // An older one, which a resize that failed has left, is replaced.
        try Files.makeDirectories(kept.path)
        try Files.write(kept.file("disk.eph0"), Array("old".utf8))
        try directory.keep(in: kept, isCancelled: { false })
        #expect(scratch.names("/u_resize") == ["disk", "kernel", "machine.json", "run.json"])
    }

    @Test func revertThatACrashCutIsFinishedByTheNextService() async throws {
        let fixture = try DriverFixture()
        let first = try await fixture.driver()
        try await first.spawn(fixture.request(rootGiB: 1))
        try await powerOff(fixture, first)
        let before = try fixture.directory.machine()
        let request = resize(fixture, to: flavor(memoryMiB: 128, rootGiB: 2), from: flavor(rootGiB: 1))
        try await first.beginResize(request)
        try await first.finishResize(request)
        // Between the two steps of putBack.
        try fixture.directory.remove()
        let second = try await fixture.driver()
        #expect(try await second.powerState(of: fixture.uuid) == .shutdown)
        #expect(try fixture.directory.machine() == before && size(fixture.directory.file("disk")) == 1 << 30)
        #expect(fixture.scratch.names("/instances") == [fixture.uuid, "_base"].sorted())
        // One that is complete is left alone by a start.
        try await second.beginResize(request)
        let third = try await fixture.driver()
        #expect(fixture.scratch.names("/instances") == [fixture.uuid, "\(fixture.uuid)_resize", "_base"].sorted())
        try await third.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        fixture.expectNothingLeft()
    }
}
