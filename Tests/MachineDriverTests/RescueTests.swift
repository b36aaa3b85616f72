import ComputeDriver
import DiskImage
import Foundation
import Glibc
import HostSystem
import JSON
import NovaObjects
import Testing

@testable import MachineDriver

/// Rescue and snapshot: what is on the disk before, meanwhile and afterwards.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct RescueTests {
    private static let mebibyte = 1 << 20

    /// A request for another image than the server was made from.
    private func rescueRequest(_ fixture: DriverFixture, image: [UInt8]) -> SpawnRequest {
        fixture.request(words: "rescue", configDrive: ["openstack/latest/meta_data.json": Array("{}".utf8)], image: image) {
            $0["id"] = "rescue-image"
        }.with(image: "rescue-image", bytes: image)
    }

    @Test func aRescuedMachineBootsTheOtherImageAndHasItsOwnDisk() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        try await driver.spawn(fixture.request(configDrive: ["a": [1]]))
        let before = try #require(try fixture.directory.machine())
        try await driver.powerOff(instance: fixture.instance(), timeout: .zero, retryInterval: .zero)

        try await driver.rescue(rescueRequest(fixture, image: [UInt8](repeating: 0xA5, count: 8192)))
        #expect(try await driver.powerState(of: fixture.uuid) == .running)
        let rescued = try #require(try fixture.directory.machine())
        #expect(rescued.disks.map(\.file) == ["disk.rescue", "disk", "disk.config.rescue"])
        #expect(Set(rescued.disks.map(\.id)).count == 3, "each disk has an id of its own")
        #expect(rescued.commandLine == "rescue")
        let report = try await fixture.report(driver)
        #expect(report["unnamed"] == [] && report["missing"] == [], "\(report)")
        #expect(try Files.read(fixture.directory.file("disk.rescue"))?.prefix(4) == [0xA5, 0xA5, 0xA5, 0xA5])
        #expect(try Files.read(fixture.directory.file("disk"))?.prefix(4) == [0x5A, 0x5A, 0x5A, 0x5A])

        // A restart of the service in between changes nothing.
        driver.abandonSessions()
        let later = try await fixture.driver()
        #expect(try await later.powerState(of: fixture.uuid) == .running)
        try await later.unrescue(instance: fixture.instance(), interfaces: [])
        #expect(try await later.powerState(of: fixture.uuid) == .running)
        #expect(try fixture.directory.machine() == before)
        #expect(try Files.names(in: fixture.directory.path).allSatisfy { !$0.contains("rescue") })
        try await later.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        fixture.expectNothingLeft()
    }

    @Test func aStableDeviceComesBehindTheOtherDisksAndIsBootedFirst() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        func bootable(_ record: inout [String: JSONValue], _ properties: JSONValue) { record["properties"] = properties }
        try await driver.spawn(fixture.request(configDrive: ["a": [1]]) { bootable(&$0, ["hw_disk_bus": "sata"]) })
        let before = try #require(try fixture.directory.machine())
        var request = rescueRequest(fixture, image: [UInt8](repeating: 0xA5, count: 8192))
        request.image = ["id": "rescue-image", "disk_format": "raw", "properties": ["hw_rescue_device": "cdrom", "hw_firmware_type": "uefi"]]
        try await driver.rescue(request)
        let rescued = try #require(try fixture.directory.machine())
        #expect(Array(rescued.disks.dropLast()) == before.disks, "every disk stays what and where it is")
        let disk = try #require(rescued.disks.last)
        #expect(disk.file == "disk.rescue" && disk.bus == "sata" && disk.isOptical && disk.isReadOnly && disk.isBootedFirst)
        #expect(rescued.machineType == before.machineType && rescued.firmware == .bios)
        let report = try await fixture.report(driver)
        #expect(report["unnamed"] == [] && report["missing"] == [], "\(report)")
        try await driver.unrescue(instance: fixture.instance(), interfaces: [])
        #expect(try fixture.directory.machine() == before)
        #expect(try Files.names(in: fixture.directory.path).allSatisfy { !$0.contains("rescue") })

        for (device, bus, expected) in [("floppy", nil, "UnsupportedRescueDevice"), ("cdrom", "virtio", "UnsupportedRescueBus"), ("disk", "ide", "UnsupportedRescueBus")] as [(String, String?, String)] {
            request.image = ["id": "rescue-image", "disk_format": "raw", "properties": ["hw_rescue_device": .string(device), "hw_rescue_bus": bus.map { .string($0) } ?? .null]]
            let refused = request
            let error = await #expect(throws: DriverError.self) { try await driver.rescue(refused) }
            #expect(error?.novaClass == expected)
        }
        #expect(try fixture.directory.machine() == before)
        #expect(try await driver.powerState(of: fixture.uuid) == .running, "a refusal ends no guest")
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        fixture.expectNothingLeft()
    }

    @Test func aRescueThatFailsLeavesTheMachineAsItWas() async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        try await driver.spawn(fixture.request())
        let before = try #require(try fixture.directory.machine())
        try await driver.powerOff(instance: fixture.instance(), timeout: .zero, retryInterval: .zero)
        var request = rescueRequest(fixture, image: [1, 2, 3])
        request.fetchImage = { id, _ in throw DriverError(novaClass: "ImageNotFound", tenantMessage: "no \(id)", fault: .peer) }
        await #expect(throws: DriverError.self) { try await driver.rescue(request) }
        #expect(try fixture.directory.machine() == before)
        #expect(try Files.names(in: fixture.directory.path).allSatisfy { !$0.contains("rescue") })
        try await driver.powerOn(instance: fixture.instance(), interfaces: [])
        #expect(try await driver.powerState(of: fixture.uuid) == .running)
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
    }

    @Test(arguments: [DiskSnapshot.Format.qcow2, .raw])
    func aSnapshotIsTheDiskAndTheGuestGoesOn(format: DiskSnapshot.Format) async throws {
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        // Data in the first megabyte and in the fifth, a hole between, and a hole at the end.
        var image = [UInt8](repeating: 0, count: 6 * Self.mebibyte)
        for index in 0..<4096 { image[index] = UInt8(truncatingIfNeeded: index &* 7) }
        for index in 0..<4096 { image[5 * Self.mebibyte + index] = 0xEE }
        try await driver.spawn(fixture.request(image: image))
        var seen = false
        try await driver.withSnapshot(of: fixture.instance(), format: format) { snapshot in
            #expect(try await driver.powerState(of: fixture.uuid) == .running)
            #expect(snapshot.format == format)
            let kind: DiskImage.ImageFormat = format == .raw ? .raw : .qcow2
            let copy = try kind.open(
                owning: OwnedDescriptor(owning: dup(snapshot.descriptor)), named: "copy", isReadOnly: true)
            #expect(copy.byteCount == UInt64(image.count))
            let read = try copy.read(at: 0, count: image.count)
            #expect(unsafe read.bytes.elementsEqual(image))
            if format == .qcow2 { #expect(snapshot.byteCount < 4 << 20, "holes are left out") }
            seen = true
        }
        #expect(seen)
        #expect(try Files.names(in: fixture.directory.path).allSatisfy { !$0.contains("snapshot") })
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        fixture.expectNothingLeft()
    }

    @Test func aFailedUploadLeavesNothingAndAPausedGuestStaysPaused() async throws {
        struct Broken: Error {}
        let fixture = try DriverFixture()
        let driver = try await fixture.driver()
        try await driver.spawn(fixture.request(startsPaused: true))
        await #expect(throws: Broken.self) {
            try await driver.withSnapshot(of: fixture.instance(), format: .qcow2) { _ in throw Broken() }
        }
        #expect(try await driver.powerState(of: fixture.uuid) == .paused)
        #expect(try Files.names(in: fixture.directory.path).allSatisfy { !$0.contains("snapshot") })
        try await driver.destroy(instance: fixture.instance(), interfaces: [], destroysDisks: true)
        await #expect(throws: DriverError.self) {
            try await driver.withSnapshot(of: fixture.instance(), format: .raw) { _ in }
        }
    }
}

extension SpawnRequest {
    /// The same with one more image to fetch.
    fileprivate func with(image id: String, bytes: [UInt8]) -> SpawnRequest {
        var request = self
        let images = Images([id: bytes, "kernel": Array("the rescue kernel".utf8), "ramdisk": Array("another".utf8)])
        request.fetchImage = images.fetch
        return request
    }
}
