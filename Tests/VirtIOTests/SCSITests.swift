import DiskImage
import Foundation
import GuestMemory
import HostSystem
import MachineCore
import MachineTesting
import Storage
import Testing

@testable import VirtIO

/// A host with a disk as target 0 and a CD as target 3, driven as Linux's virtio_scsi and OVMF's VirtioScsi do.
private final class SCSIBench {
    let memory: GuestMemory
    let interrupts = RecordedInterrupts()
    let thread: LoopThread
    let scsi: VirtIOSCSI
    let function: VirtIOPCIFunction
    let driver: MockDriver
    let control: MockQueue
    let events: MockQueue
    let queue: MockQueue
    let descriptors: [CInt]
    let image: RawImage

    init(starts: Bool = true) throws {
        memory = try GuestMemory(byteCount: 4 << 20)
        thread = try LoopThread()
        var descriptors: [CInt] = [], images: [RawImage] = []
        for byteCount in [2048 * 512, 100 * 2048] {
            var path = Array("/tmp/apus-scsi-test-XXXXXX".utf8CString)
            let descriptor = mkstemp(&path)
            unlink(path)
            ftruncate(descriptor, off_t(byteCount))
            descriptors.append(descriptor)
            images.append(
                try RawImage(owning: OwnedDescriptor(owning: dup(descriptor)), named: "test", isReadOnly: false))
        }
        self.descriptors = descriptors
        image = images[0]
        scsi = try VirtIOSCSI(
            targets: [
                0: SCSITarget(disk: images[0], identity: DriveIdentity(serial: "disk-0")),
                3: SCSITarget(optical: images[1], identity: DriveIdentity(serial: "cd-3")),
            ], memory: memory, queueCount: 2, loops: [thread.loop])
        function = try VirtIOPCIFunction(scsi, name: "scsi", memory: memory, interrupts: interrupts, doorbells: nil)
        driver = MockDriver(function: function)
        control = MockQueue(memory, index: 0, base: 0x1_0000)
        events = MockQueue(memory, index: 1, base: 0x1_1000)
        queue = MockQueue(memory, index: 2, base: 0x1_2000)
        if starts {
            driver.enableMSIX(vectors: 5)
            #expect(driver.negotiate(1 << 32 | 1 << 2))
            for (queue, vector) in [(control, 1), (events, 2), (queue, 3)] {
                driver.enable(queue, vector: UInt16(vector))
            }
            driver.status = 15
        }
    }
    deinit {
        function.reset()
        for descriptor in descriptors { close(descriptor) }
    }

    struct Answer {
        var residual: UInt32
        var status: UInt8
        var response: UInt8
        var sense: [UInt8]
        var data: [UInt8]
        var used: UInt32
    }

    static let request: UInt64 = 0x2_0000
    static let response: UInt64 = 0x2_1000
    static let data: UInt64 = 0x10_0000

    func lay(_ block: [UInt8], target: UInt8 = 0, lun: UInt8 = 0, out: [UInt8] = [], room: Int = 0) throws {
        let header: [UInt8] = [1, target, 0x40, lun, 0, 0, 0, 0] + [UInt8](repeating: 7, count: 8) + [0, 0, 0]
        try memory.write(
            header + block + [UInt8](repeating: 0, count: 32 - block.count), at: GuestAddress(Self.request))
        try memory.write([UInt8](repeating: 0xEE, count: 108), at: GuestAddress(Self.response))
        var buffers = [MockQueue.Buffer(Self.request, 51, writable: false)]
        if !out.isEmpty {
            try memory.write(out, at: GuestAddress(Self.data))
            let half = UInt32(out.count / 2)
            buffers.append(.init(Self.data, half, writable: false))
            buffers.append(.init(Self.data + UInt64(half), UInt32(out.count) - half, writable: false))
        }
        // The response in two pieces, the data in two more that do not lie together.
        buffers.append(.init(Self.response, 100, writable: true))
        buffers.append(.init(Self.response + 100, 8, writable: true))
        if room > 0 {
            buffers.append(.init(Self.data, UInt32(room / 2), writable: true))
            buffers.append(.init(Self.data + 0x8_0000, UInt32(room - room / 2), writable: true))
        }
        try queue.add(buffers)
    }

    func run(_ block: [UInt8], target: UInt8 = 0, lun: UInt8 = 0, out: [UInt8] = [], room: Int = 0) throws -> Answer? {
        try lay(block, target: target, lun: lun, out: out, room: room)
        driver.notify(2)
        guard let used = try queue.waitForUsed() else { return nil }
        let bytes = try memory.bytes(at: GuestAddress(Self.response), count: 108)
        let number = { (offset: Int) in (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) }
        }
        let data =
            room > 0
            ? try memory.bytes(at: GuestAddress(Self.data), count: room / 2)
                + memory.bytes(at: GuestAddress(Self.data + 0x8_0000), count: room - room / 2) : []
        return Answer(
            residual: number(4), status: bytes[10], response: bytes[11],
            sense: Array(bytes[12..<(12 + Int(number(0)))]), data: data, used: used.length)
    }

    /// A task management function; its response.
    func manage(_ subtype: UInt8, target: UInt8 = 0) throws -> UInt8? {
        try memory.write(
            [0, 0, 0, 0, subtype, 0, 0, 0, 1, target, 0x40, 0, 0, 0, 0, 0] + [UInt8](repeating: 0, count: 8),
            at: GuestAddress(0x3_0000))
        try memory.store(UInt8(0xEE), at: GuestAddress(0x3_0100))
        try control.add([.init(0x3_0000, 24, writable: false), .init(0x3_0100, 1, writable: true)])
        driver.notify(0)
        guard try control.waitForUsed() != nil else { return nil }
        return try memory.load(UInt8.self, at: GuestAddress(0x3_0100))
    }
}

@Suite struct SCSITests {
    @Test func configurationAndScan() throws {
        let bench = try SCSIBench()
        #expect(bench.function.readConfiguration(offset: 0, width: .doubleWord) == 0x1048_1AF4)
        #expect(
            bench.driver.read(0x2000, .doubleWord) == 2 && bench.driver.read(0x2014, .doubleWord) == 96
                && bench.driver.read(0x2018, .doubleWord) == 32)
        #expect(bench.driver.read(0x201E, .word) == 3)
        #expect(try #require(try bench.run([0x12, 0, 0, 0, 36], target: 1, room: 36)).response == 3)
        let disk = try #require(try bench.run([0x12, 0, 0, 0, 36], room: 36))
        #expect(disk.response == 0 && disk.status == 0 && disk.data[0] == 0 && disk.used == 144 && disk.residual == 0)
        let cd = try #require(try bench.run([0x12, 0, 0, 0, 36], target: 3, room: 64))
        #expect(cd.data[0] == 5 && cd.residual == 28 && cd.used == 144)
        #expect(try #require(try bench.run([0x12, 0, 0, 0, 36], lun: 1, room: 36)).data[0] == 0x7F)
        let wrong = try #require(try bench.run([0x00], lun: 1))
        #expect(wrong.status == 2 && wrong.sense[12] == 0x25)
        let list = try #require(try bench.run([0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 64], room: 64))
        #expect(Array(list.data[..<16]) == [0, 0, 0, 8] + [UInt8](repeating: 0, count: 12))
    }

    @Test func blocksMoveBothWaysWithSenseInTheResponse() throws {
        let bench = try SCSIBench()
        let attention = try #require(try bench.run([0x00]))
        #expect(
            attention.status == 2 && attention.sense.count == 18 && attention.sense[2] == 6
                && attention.sense[12] == 0x29)
        #expect(try #require(try bench.run([0x00])).status == 0)
        let bytes = (0..<8192).map { UInt8(truncatingIfNeeded: $0 / 5) }
        let written = try #require(try bench.run([0x2A, 0, 0, 0, 0, 40, 0, 0, 16], out: bytes))
        #expect(written.status == 0 && written.response == 0 && written.residual == 0)
        var onDisk = [UInt8](repeating: 0, count: 8192)
        #expect(pread(bench.descriptors[0], &onDisk, 8192, 40 * 512) == 8192 && onDisk == bytes)
        let read = try #require(try bench.run([0x88, 0, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 16], room: 8192))
        #expect(read.status == 0 && read.data == bytes && read.used == 108 + 8192)
        #expect(try #require(try bench.run([0x35])).status == 0)
        #expect(try #require(try bench.run([0x28, 0, 0, 0, 0, 0, 0, 0, 16], room: 512)).response == 1)
        let far = try #require(try bench.run([0x28, 0, 0, 0, 8, 0, 0, 0, 1], room: 512))
        #expect(far.status == 2 && far.sense[12] == 0x21 && far.residual == 512)
        // The sense went along; the unit does not keep it.
        #expect(try #require(try bench.run([3, 0, 0, 0, 18], room: 18)).data[2] == 0)
        let unmap: [UInt8] = [0, 22, 0, 16, 0, 0, 0, 0] + [0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 8, 0, 0, 0, 0]
        #expect(try #require(try bench.run([0x42, 0, 0, 0, 0, 0, 0, 0, 24], out: unmap)).status == 0)
        #expect(pread(bench.descriptors[0], &onDisk, 4096, 40 * 512) == 4096 && onDisk[..<4096].allSatisfy { $0 == 0 })
        let values = try #require(bench.scsi.counters(target: 0)).values
        #expect(values.readBytes == 8192 && values.writeBytes == 8192 && values.flushRequests == 1)
    }

    @Test func hostFailuresAreSense() throws {
        let bench = try SCSIBench()
        _ = try bench.run([0x00])
        ftruncate(bench.descriptors[0], 4096)
        let failed = try #require(try bench.run([0x28, 0, 0, 0, 1, 0, 0, 0, 1], room: 512))
        #expect(failed.status == 2 && failed.sense[2] == 3 && failed.sense[12] == 0x11 && failed.residual == 512)
        #expect(bench.scsi.counters.values.errors == 2)
    }

    @Test func aDiscIsRead() throws {
        let bench = try SCSIBench()
        let bytes = (0..<4096).map { UInt8(truncatingIfNeeded: $0 / 3) }
        _ = pwrite(bench.descriptors[1], bytes, 4096, 16 * 2048)
        #expect(try #require(try bench.run([0x28, 0, 0, 0, 0, 16, 0, 0, 2], target: 3, room: 4096)).data == bytes)
        #expect(try #require(try bench.run([0x2A, 0, 0, 0, 0, 16, 0, 0, 1], target: 3, out: bytes)).sense[12] == 0x20)
    }

    @Test func tasksAreManagedAndGrowthIsTold() throws {
        let bench = try SCSIBench()
        #expect(try #require(try bench.run([0x00])).status == 2)
        #expect(try #require(try bench.run([0x00])).status == 0)
        #expect(try bench.manage(5) == 0)
        #expect(try #require(try bench.run([0x00])).sense[12] == 0x29)
        #expect(try bench.manage(0) == 0)
        #expect(try bench.manage(7) == 0)
        #expect(try bench.manage(2) == 11)
        #expect(try bench.manage(5, target: 9) == 3)
        try bench.events.add([.init(0x3_1000, 16, writable: true)])
        bench.driver.notify(1)
        ftruncate(bench.descriptors[0], 4096 * 512)
        try bench.image.refreshSize()
        bench.scsi.capacityChanged(target: 0)
        #expect(try #require(try bench.events.waitForUsed()).length == 16)
        #expect(
            try bench.memory.bytes(at: GuestAddress(0x3_1000), count: 16) == [
                3, 0, 0, 0, 1, 0, 0x40, 0, 0, 0, 0, 0, 0x2A, 9, 0, 0,
            ])
        #expect(try #require(try bench.run([0x00])).sense[12] == 0x2A)
        #expect(Array(try #require(try bench.run([0x25], room: 8)).data[..<4]) == [0, 0, 0x0F, 0xFF])
    }

    @Test func resetFunctionsWaitForWhatIsInFlight() throws {
        let bench = try SCSIBench()
        _ = try bench.run([0x00])
        for _ in 0..<50 {
            try bench.lay([0x28, 0, 0, 0, 0, 0, 0, 1, 0], room: 256 * 512)
            bench.driver.notify(2)
            #expect(try bench.manage(5) == 0)
            // Answered: nothing of the target is in flight.
            #expect(bench.queue.usedIndex != bench.queue.seenUsed)
            _ = try bench.queue.waitForUsed()
            _ = try bench.run([0x00])
        }
    }

    @Test func savedStateKeepsUnitsAndSizes() throws {
        let bench = try SCSIBench()
        _ = try bench.run([0x00])
        #expect(bench.function.pause())
        var writer = StateWriter()
        bench.function.saveState(into: &writer)
        let other = try SCSIBench(starts: false)
        #expect(other.function.pause())
        var reader = StateReader(section: "scsi", bytes: writer.bytes)
        try other.function.restoreState(from: &reader, version: 1)
        #expect(reader.remaining == 0)
        try other.memory.write(
            try bench.memory.bytes(at: GuestAddress(0x1_0000), count: 0x4000), at: GuestAddress(0x1_0000))
        other.queue.availableIndex = bench.queue.availableIndex
        other.queue.nextDescriptor = bench.queue.nextDescriptor
        other.queue.seenUsed = bench.queue.seenUsed
        other.function.resume()
        #expect(try #require(try other.run([0x00])).status == 0)
        bench.function.resume()
    }

    @Test(arguments: 0..<4)
    func randomRequestsDoNotTrap(seed: UInt64) throws {
        var state = seed &* 0x9E37_79B9_7F4A_7C15 &+ 1
        func random(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % limit
        }
        let bench = try SCSIBench()
        let operations: [UInt8] = [
            0x00, 0x03, 0x08, 0x0A, 0x12, 0x15, 0x1A, 0x28, 0x2A, 0x35, 0x41, 0x42, 0x88, 0x8A, 0x93, 0xA0,
        ]
        for _ in 0..<500 {
            var block = (0..<16).map { _ in random(3) == 0 ? UInt8(random(256)) : 0 }
            block[0] = operations[random(operations.count)]
            try bench.memory.write(
                [UInt8(random(8) == 0 ? random(256) : 1), UInt8(random(4)), 0x40, UInt8(random(2))]
                    + (0..<15).map { _ in UInt8(random(256)) } + block, at: GuestAddress(SCSIBench.request))
            var buffers: [MockQueue.Buffer] = []
            for _ in 0..<(1 + random(3)) {
                buffers.append(
                    .init(
                        SCSIBench.request + UInt64(random(3) == 0 ? random(0x1000) : 0), UInt32(1 + random(700)),
                        writable: false))
            }
            for _ in 0..<random(4) {
                buffers.append(
                    .init(SCSIBench.data + UInt64(random(0x1_0000)), UInt32(1 + random(5000)), writable: true))
            }
            let target = random(6) == 0 ? bench.control : bench.queue
            try target.add(buffers)
            bench.driver.notify(target.index)
            #expect(try target.waitForUsed() != nil)
        }
        #expect(try #require(try bench.run([0x12, 0, 0, 0, 36], room: 36)).response == 0)
    }
}
