import ComputeDriver
import JSON
import NovaObjects
import Testing

struct NullDriverTests {
    private let uuid = "0d3a8b6a-1111-4222-8333-444455556666"

    private func request(startsPaused: Bool) -> SpawnRequest {
        var instance = Instance(in: .zed)
        instance.set("uuid", to: uuid)
        instance.set("memory_mb", to: 64)
        instance.set("vcpus", to: 2)
        return SpawnRequest(
            instance: instance, image: ["id": "image"], interfaces: [], configDrive: nil, fetchImage: { _, _ in 0 },
            startsPaused: startsPaused)
    }

    @Test func machinesObeyTheContractOfStates() async throws {
        let driver = NullDriver()
        let request = request(startsPaused: true)
        try await driver.spawn(request)
        #expect(try await driver.powerState(of: uuid) == .paused)
        try await driver.unpause(instanceUUID: uuid)
        #expect(try await driver.powerState(of: uuid) == .running)
        #expect(try await driver.statistics(of: uuid).vcpuTimes.count == 2)
        try await driver.powerOff(instance: request.instance, timeout: .zero, retryInterval: .zero)
        await #expect(throws: DriverError.self) { try await driver.pause(instanceUUID: uuid) }
        try await driver.powerOn(instance: request.instance, interfaces: [])
        try await driver.destroy(instance: request.instance, interfaces: [], destroysDisks: true)
        try await driver.destroy(instance: request.instance, interfaces: [], destroysDisks: true)
        await #expect(throws: DriverError.self) { try await driver.powerState(of: uuid) }
    }

    @Test func sizeChangesWhileOffAndComesBack() async throws {
        let driver = NullDriver()
        let spawn = request(startsPaused: false)
        try await driver.spawn(spawn)
        var flavor = Flavor(in: .zed)
        for (field, value) in [("memory_mb", 128), ("vcpus", 4), ("root_gb", 1)] { flavor.set(field, to: value) }
        let request = ResizeRequest(instance: spawn.instance, flavor: flavor, image: [:])
        try await driver.checkResize(request)
        await #expect(throws: DriverError.self) { try await driver.beginResize(request) }
        try await driver.powerOff(instance: spawn.instance, timeout: .zero, retryInterval: .zero)
        try await driver.beginResize(request)
        try await driver.finishResize(request)
        #expect(driver.sizes(of: uuid)?.now == .init(memoryMiB: 128, vcpus: 4))
        try await driver.powerOn(instance: spawn.instance, interfaces: [])
        try await driver.revertResize(instanceUUID: uuid)
        #expect(driver.sizes(of: uuid)?.now == .init(memoryMiB: 64, vcpus: 2) && driver.sizes(of: uuid)?.kept == nil)
        #expect(try await driver.powerState(of: uuid) == .shutdown)
        try await driver.confirmResize(instanceUUID: uuid)
    }

    @Test func failuresComeInTheirOrderAndEventsChangeTheState() async throws {
        let driver = NullDriver()
        driver.fail(.spawn, with: DriverError(novaClass: "ImageUnacceptable", tenantMessage: "no", fault: .caller))
        let error = try await #require(throws: DriverError.self) {
            try await driver.spawn(request(startsPaused: false))
        }
        #expect(error.novaClass == "ImageUnacceptable")
        try await driver.spawn(request(startsPaused: false))
        driver.happen(.crashed(uuid))
        var events = driver.events.makeAsyncIterator()
        #expect(await events.next() == .crashed(uuid))
        #expect(try await driver.powerState(of: uuid) == .crashed)
        #expect(driver.calls.map(\.operation) == [.spawn, .spawn])
    }
}
