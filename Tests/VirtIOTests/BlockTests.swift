import DiskImage
import Foundation
import GuestMemory
import HostSystem
import MachineCore
import MachineTesting
import Testing

@testable import VirtIO

private let version1: UInt64 = 1 << 32
private let flushFeature: UInt64 = 1 << 9

/// A block device on a temporary file, negotiated and running.
private final class BlockBench {
    let memory: GuestMemory
    let interrupts = RecordedInterrupts()
    let thread: LoopThread
    let block: VirtIOBlock
    let function: VirtIOPCIFunction
    let driver: MockDriver
    let queue: MockQueue
    let descriptor: CInt

    init(
        engine: RawImage.Engine = .automatic, sectors: Int = 2048, readOnly: Bool = false, starts: Bool = true,
        features: UInt64 = version1 | flushFeature | 1 << 13 | 1 << 14
    ) throws {
        memory = try GuestMemory(byteCount: 4 << 20)
        var path = Array("/tmp/apus-block-test-XXXXXX".utf8CString)
        descriptor = mkstemp(&path)
        unlink(path)
        ftruncate(descriptor, off_t(sectors * 512))
        thread = try LoopThread()
        let image = try RawImage(
            owning: OwnedDescriptor(owning: dup(descriptor)), named: "test", isReadOnly: readOnly, engine: engine)
        block = try VirtIOBlock(backend: image, serial: "serial-of-the-volume-1234", queueCount: 2, loops: [thread.loop])
        function = try VirtIOPCIFunction(block, name: "block", memory: memory, interrupts: interrupts, doorbells: nil)
        driver = MockDriver(function: function)
        queue = MockQueue(memory, index: 0, base: 0x1_0000)
        if starts {
            driver.enableMSIX(vectors: 3)
            _ = driver.negotiate(features & driver.offered)
            driver.enable(queue, vector: 1)
            driver.status = 15
        }
    }
    deinit {
        function.reset()
        close(descriptor)
    }

    /// Sends one request and returns its status byte and used length.
    func request(type: UInt32, sector: UInt64, out: [UInt8] = [], inLength: UInt32 = 0) throws -> (UInt8, UInt32)? {
        try memory.store(type, at: GuestAddress(0x2_0000))
        try memory.store(UInt32(0), at: GuestAddress(0x2_0004))
        try memory.store(sector, at: GuestAddress(0x2_0008))
        try memory.store(UInt8(0xEE), at: GuestAddress(0x2_0100))
        var buffers = [MockQueue.Buffer(0x2_0000, 16, writable: false)]
        if !out.isEmpty {
            try memory.write(out, at: GuestAddress(0x3_0000))
            buffers.append(.init(0x3_0000, UInt32(out.count), writable: false))
        }
        if inLength > 0 { buffers.append(.init(0x8_0000, inLength, writable: true)) }
        buffers.append(.init(0x2_0100, 1, writable: true))
        try queue.add(buffers)
        driver.notify(0)
        guard let used = try queue.waitForUsed() else { return nil }
        return (try memory.load(UInt8.self, at: GuestAddress(0x2_0100)), used.length)
    }
}

@Suite struct BlockTests {
    @Test(arguments: [RawImage.Engine.automatic, .thread])
    func writtenSectorsReadBackAndReachTheFile(engine: RawImage.Engine) throws {
        let bench = try BlockBench(engine: engine)
        let data = (0..<4096).map { UInt8(truncatingIfNeeded: $0 / 7) }
        #expect(try #require(try bench.request(type: 1, sector: 8, out: data)) == (0, 1))
        #expect(try #require(try bench.request(type: 0, sector: 8, inLength: 4096)) == (0, 4097))
        #expect(try bench.memory.bytes(at: GuestAddress(0x8_0000), count: 4096) == data)
        var onDisk = [UInt8](repeating: 0, count: 4096)
        #expect(pread(bench.descriptor, &onDisk, 4096, 4096) == 4096)
        #expect(onDisk == data)
        let values = bench.block.counters.values
        #expect(values.readBytes == 4096 && values.writeBytes == 4096 && values.errors == 0)
        #expect(eventually { bench.interrupts.count(1) >= 2 })
    }

    @Test(arguments: [RawImage.Engine.automatic, .thread])
    func flushDiscardAndWriteZeroesSucceed(engine: RawImage.Engine) throws {
        let bench = try BlockBench(engine: engine)
        let ones = [UInt8](repeating: 0xFF, count: 8192)
        _ = try bench.request(type: 1, sector: 0, out: ones)
        #expect(try #require(try bench.request(type: 4, sector: 0)).0 == 0)
        func range(_ sector: UInt64, _ count: UInt32, _ flags: UInt32) -> [UInt8] {
            var writer = StateWriter()
            writer.write(sector)
            writer.write(count)
            writer.write(flags)
            return writer.bytes
        }
        #expect(try #require(try bench.request(type: 13, sector: 0, out: range(0, 8, 0) + range(8, 4, 1))).0 == 0)
        #expect(try #require(try bench.request(type: 0, sector: 0, inLength: 8192)).0 == 0)
        let read = try bench.memory.bytes(at: GuestAddress(0x8_0000), count: 8192)
        #expect(read == [UInt8](repeating: 0, count: 6144) + [UInt8](repeating: 0xFF, count: 2048))
        #expect(try #require(try bench.request(type: 11, sector: 0, out: range(8, 8, 0))).0 == 0)
        #expect(try #require(try bench.request(type: 11, sector: 0, out: range(0, 8, 2))).0 == 2)
        #expect(try #require(try bench.request(type: 11, sector: 0, out: range(2047, 8, 0))).0 == 1)
    }

    @Test func serialNumberIsTheFirstTwentyBytes() throws {
        let bench = try BlockBench()
        #expect(try #require(try bench.request(type: 8, sector: 0, inLength: 20)) == (0, 21))
        let bytes = try bench.memory.bytes(at: GuestAddress(0x8_0000), count: 20)
        #expect(String(decoding: bytes, as: UTF8.self) == "serial-of-the-volume")
    }

    @Test func requestsOutsideTheDiskOrUnknownAreRefused() throws {
        let bench = try BlockBench()
        #expect(try #require(try bench.request(type: 0, sector: 2048, inLength: 512)).0 == 1)
        #expect(try #require(try bench.request(type: 0, sector: .max, inLength: 512)).0 == 1)
        #expect(try #require(try bench.request(type: 0, sector: 0, inLength: 100)).0 == 1)
        #expect(try #require(try bench.request(type: 99, sector: 0, inLength: 512)).0 == 2)
        #expect(bench.driver.status & 64 == 0)
        #expect(bench.block.counters.values.errors == 4)
    }

    @Test func writeToAReadOnlyDiskIsAnError() throws {
        let bench = try BlockBench(readOnly: true)
        #expect(bench.driver.offered & 1 << 5 != 0)
        #expect(try #require(try bench.request(type: 1, sector: 0, out: [UInt8](repeating: 1, count: 512))).0 == 1)
    }

    @Test(arguments: [RawImage.Engine.automatic, .thread])
    func imageThatLostItsTailGivesAnError(engine: RawImage.Engine) throws {
        let bench = try BlockBench(engine: engine)
        ftruncate(bench.descriptor, 512 * 4)
        #expect(try #require(try bench.request(type: 0, sector: 0, inLength: 4096)).0 == 1)
        #expect(try #require(try bench.request(type: 0, sector: 0, inLength: 2048)).0 == 0)
    }

    @Test func configurationShowsCapacityQueuesAndBlockSize() throws {
        let bench = try BlockBench()
        #expect(bench.driver.read(0x2000, .doubleWord) == 2048)
        #expect(bench.driver.read(0x2000 + 20, .doubleWord) == 512)
        #expect(bench.driver.read(0x2000 + 34, .word) == 2)
        #expect(bench.driver.read(0x2000 + 12, .doubleWord) == 126)
        #expect(bench.driver.read(0x2FFC, .doubleWord) == 0)
    }

    @Test func resetReadsZeroAndTheQueueStartsOver() throws {
        let bench = try BlockBench()
        _ = try bench.request(type: 0, sector: 0, inLength: 512)
        bench.driver.status = 0
        #expect(eventually { bench.driver.status == 0 })
        bench.driver.write(0x16, .word, 0)
        #expect(bench.driver.read(0x1C, .word) == 0)
        let again = MockQueue(bench.memory, index: 0, base: 0x10_0000)
        _ = bench.driver.negotiate(version1)
        bench.driver.enable(again, vector: 1)
        bench.driver.status = 15
        try again.add([.init(0x2_0000, 16, writable: false), .init(0x8_0000, 513, writable: true)])
        bench.driver.notify(0)
        #expect(try again.waitForUsed()?.length == 513)
    }

    @Test func savedStateContinuesInAFreshMachine() throws {
        let first = try BlockBench()
        for _ in 0..<3 { _ = try first.request(type: 0, sector: 0, inLength: 512) }
        #expect(first.function.pause())
        var writer = StateWriter()
        first.function.saveState(into: &writer)

        let second = try BlockBench(starts: false)
        #expect(second.function.pause())
        let whole = try first.memory.bytes(at: GuestAddress(0), count: 4 << 20)
        try second.memory.write(whole, at: GuestAddress(0))
        var reader = StateReader(section: "block", bytes: writer.bytes)
        try second.function.restoreState(from: &reader, version: 1)
        #expect(reader.remaining == 0)
        second.function.resume()
        second.queue.availableIndex = first.queue.availableIndex
        second.queue.nextDescriptor = first.queue.nextDescriptor
        second.queue.seenUsed = first.queue.seenUsed
        #expect(try #require(try second.request(type: 0, sector: 0, inLength: 512)) == (0, 513))
        #expect(second.interrupts.count(1) > 0)
        var again = StateWriter()
        #expect(first.function.stateName == second.function.stateName)
        first.function.saveState(into: &again)
        #expect(again.bytes == writer.bytes)
    }

    @Test func cutSavedStateIsRefusedAtEveryLength() throws {
        let first = try BlockBench()
        _ = first.function.pause()
        var writer = StateWriter()
        first.function.saveState(into: &writer)
        let second = try BlockBench(starts: false)
        _ = second.function.pause()
        for length in stride(from: 0, to: writer.bytes.count, by: 7) {
            var reader = StateReader(section: "block", bytes: Array(writer.bytes[..<length]))
            #expect(throws: DeviceStateError.self) {
                try second.function.restoreState(from: &reader, version: 1)
            }
        }
    }

    @Test func deviceNeedsResetAfterABrokenRingAndRecovers() throws {
        let bench = try BlockBench()
        try bench.queue.offer(999)
        bench.driver.notify(0)
        #expect(eventually { bench.driver.status & 64 != 0 })
        #expect(bench.function.events.faults.count == 1)
        bench.driver.status = 0
        #expect(eventually { bench.driver.status == 0 })
    }
}

@Suite struct FullDiskTests {
    /// /dev/full refuses every write with ENOSPC: the host's full disk, as the guest must see it.
    @Test(arguments: [RawImage.Engine.automatic, .thread])
    func writeToAFullDiskIsAnIOError(engine: RawImage.Engine) throws {
        let descriptor = open("/dev/full", O_RDWR | O_CLOEXEC)
        let image = try RawImage(
            owning: OwnedDescriptor(owning: descriptor), named: "full", isReadOnly: false, engine: engine)
        let queue = try image.makeQueue(depth: 4, vectorLimit: 2)
        let bytes = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 512)
        defer { bytes.deallocate() }
        queue.vectors(for: 0)[0] = iovec(iov_base: bytes, iov_len: 512)
        queue.submit(BlockRequest(.write(isDurable: false), offset: 0, byteCount: 512, tag: 0), vectorCount: 1)
        queue.commit()
        var errors: [CInt] = []
        #expect(eventually {
            queue.reap { errors.append($0.errno) }
            return !errors.isEmpty
        })
        #expect(errors == [ENOSPC])
    }
}
