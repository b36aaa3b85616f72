import Foundation
import GuestMemory
import HostSystem
import MachineCore
import MachineTesting
import Testing

@testable import VirtIO

private let version1: UInt64 = 1 << 32

@Suite struct EntropyTests {
    @Test func bufferIsFilledUpToTheLimit() throws {
        let memory = try GuestMemory(byteCount: 1 << 20)
        let thread = try LoopThread()
        let entropy = VirtIOEntropy(loop: thread.loop)
        let function = try VirtIOPCIFunction(
            entropy, name: "rng", memory: memory, interrupts: RecordedInterrupts(), doorbells: nil)
        let driver = MockDriver(function: function)
        let queue = MockQueue(memory, index: 0, base: 0x1000)
        #expect(driver.negotiate(version1))
        driver.enable(queue, vector: 1)
        driver.status = 15
        try queue.add([.init(0x8000, 300, writable: true)])
        driver.notify(0)
        #expect(try queue.waitForUsed()?.length == 300)
        // 300 random bytes that are all zero are no accident.
        #expect(try memory.bytes(at: GuestAddress(0x8000), count: 300).contains { $0 != 0 })
        #expect(try memory.bytes(at: GuestAddress(0x8000 + 300), count: 64).allSatisfy { $0 == 0 })
        try queue.add([.init(0x1_0000, 5000, writable: true)])
        driver.notify(0)
        #expect(try queue.waitForUsed()?.length == 1024)
        #expect(entropy.counters.values.readBytes == 1324)
        function.reset()
    }
}

@Suite struct NegotiationTests {
    private func bench() throws -> (VirtIOPCIFunction, LoopThread) {
        let thread = try LoopThread()
        let function = try VirtIOPCIFunction(
            VirtIOEntropy(loop: thread.loop), name: "rng", memory: try GuestMemory(byteCount: 1 << 20),
            interrupts: RecordedInterrupts(), doorbells: nil)
        return (function, thread)
    }

    @Test func featuresNotOfferedOrWithoutVersionOneAreRefused() throws {
        let (function, _) = try bench()
        let driver = MockDriver(function: function)
        #expect(!driver.negotiate(version1 | 1 << 5))
        #expect(!driver.negotiate(1 << 29))
        #expect(driver.negotiate(version1 | 1 << 28 | 1 << 29))
    }

    @Test func statusBitsComeInOrderAndStay() throws {
        let (function, _) = try bench()
        let driver = MockDriver(function: function)
        driver.status = 4
        #expect(driver.status == 0)
        driver.status = 1
        driver.status = 2
        #expect(driver.status == 1)
        driver.status = 15
        #expect(driver.status == 1)
        driver.status = 129
        #expect(driver.status == 129)
    }

    @Test func queueRegistersAreFrozenWhileTheDeviceRuns() throws {
        let (function, _) = try bench()
        let driver = MockDriver(function: function)
        let queue = MockQueue(function.memory, index: 0, base: 0x1000)
        _ = driver.negotiate(version1)
        driver.enable(queue, vector: 1)
        driver.status = 15
        driver.write(0x20, .doubleWord, 0xDEAD_0000)
        driver.write(0x18, .word, 64)
        #expect(driver.read(0x20, .quadWord) == 0x1000)
        #expect(driver.read(0x18, .word) == 16)
        function.reset()
    }

    @Test func ringOutsideMemoryNeedsAReset() throws {
        let (function, _) = try bench()
        let driver = MockDriver(function: function)
        let queue = MockQueue(function.memory, index: 0, base: 0x100_0000)
        _ = driver.negotiate(version1)
        driver.enable(queue, vector: 1)
        driver.status = 15
        #expect(driver.status == 15 | 64)
    }

    @Test func everyRegisterAccessIsSurvived() throws {
        let (function, _) = try bench()
        for offset in stride(from: UInt64(0), to: 0x8008, by: 1) {
            for width in [AccessWidth.byte, .word, .doubleWord, .quadWord] {
                function.write(offset: offset, width: width, value: .max)
                _ = function.read(offset: offset, width: width)
            }
        }
        for offset in 0..<260 {
            function.writeConfiguration(offset: offset, width: .doubleWord, value: .max)
            function.writeConfiguration(offset: offset, width: .byte, value: 0)
            _ = function.readConfiguration(offset: offset, width: .word)
        }
        function.reset()
    }

    @Test func configurationWindowReachesTheBAR() throws {
        let (function, _) = try bench()
        let driver = MockDriver(function: function)
        var window = driver.capability(0x09)
        while function.readConfiguration(offset: window + 3, width: .byte) != 5 {
            window = Int(function.readConfiguration(offset: window + 1, width: .byte))
        }
        function.writeConfiguration(offset: window + 8, width: .doubleWord, value: 0x14)
        function.writeConfiguration(offset: window + 12, width: .doubleWord, value: 1)
        function.writeConfiguration(offset: window + 16, width: .byte, value: 1)
        #expect(driver.status == 1)
        #expect(function.readConfiguration(offset: window + 16, width: .byte) == 1)
    }
}

@Suite struct BalloonTests {
    private let memory: GuestMemory
    private let thread: LoopThread
    private let balloon: VirtIOBalloon
    private let function: VirtIOPCIFunction
    private let driver: MockDriver
    private let queues: [MockQueue]

    init() throws {
        memory = try GuestMemory(byteCount: 1 << 20)
        thread = try LoopThread()
        balloon = VirtIOBalloon(loop: thread.loop)
        function = try VirtIOPCIFunction(
            balloon, name: "balloon", memory: memory, interrupts: RecordedInterrupts(), doorbells: nil)
        driver = MockDriver(function: function)
        queues = [0, 1, 2].map { [memory] in MockQueue(memory, index: $0, base: 0x1000 + UInt64($0) * 0x1000) }
        _ = driver.negotiate(version1 | 2 | 4)
        for queue in queues { driver.enable(queue, vector: 1) }
        driver.status = 15
    }

    @Test func inflatedPagesAreFreedAndOthersKept() throws {
        try memory.fill(0xAA, at: GuestAddress(0x8_0000), count: 0x4000)
        try memory.store(UInt32(0x80), at: GuestAddress(0x8000))
        try memory.store(UInt32(0x81), at: GuestAddress(0x8004))
        // Not RAM, then a page whose address needs all 44 bits.
        try memory.store(UInt32(0x100), at: GuestAddress(0x8008))
        try memory.store(UInt32.max, at: GuestAddress(0x800C))
        try queues[0].add([.init(0x8000, 16, writable: false)])
        driver.notify(0)
        #expect(try queues[0].waitForUsed() != nil)
        #expect(try memory.bytes(at: GuestAddress(0x8_0000), count: 0x2000).allSatisfy { $0 == 0 })
        #expect(try memory.bytes(at: GuestAddress(0x8_2000), count: 0x2000).allSatisfy { $0 == 0xAA })
        #expect(balloon.counters.values.writeBytes == 0x2000)
        #expect(balloon.counters.values.errors == 2)
        function.reset()
    }

    @Test func targetAndActualAreSeenFromBothSides() {
        balloon.setTarget(pages: 77)
        #expect(driver.read(0x2000, .doubleWord) == 77)
        #expect(driver.read(0x15, .byte) == 1)
        driver.write(0x2004, .doubleWord, 33)
        #expect(balloon.actualPages == 33)
        function.reset()
    }

    @Test func statisticsArriveAndTheBufferComesBackWhenAsked() throws {
        var writer = StateWriter()
        for (tag, value) in [(4, 1000), (5, 2000), (99, 1)] as [(UInt16, UInt64)] {
            writer.write(tag)
            writer.write(value)
        }
        try memory.write(writer.bytes, at: GuestAddress(0x8000))
        try queues[2].add([.init(0x8000, UInt32(writer.bytes.count), writable: false)])
        driver.notify(2)
        #expect(eventually { balloon.statistics?.freeBytes == 1000 })
        #expect(balloon.statistics?.totalBytes == 2000 && balloon.statistics?.values.count == 2)
        #expect(queues[2].usedIndex == 0)
        balloon.requestStatistics()
        #expect(try queues[2].waitForUsed()?.head == 0)
        function.reset()
    }

    @Test func savedBalloonReadsBackWithItsStatisticsBufferOffered() throws {
        try queues[2].add([.init(0x8000, 10, writable: false)])
        driver.notify(2)
        #expect(eventually { balloon.statistics != nil })
        balloon.setTarget(pages: 5)
        #expect(function.pause())
        #expect(balloon.positions[2] == RingPosition(nextAvailable: 0, nextUsed: 0))
        var writer = StateWriter()
        function.saveState(into: &writer)
        let other = VirtIOBalloon(loop: thread.loop)
        let fresh = try VirtIOPCIFunction(
            other, name: "balloon", memory: memory, interrupts: RecordedInterrupts(), doorbells: nil)
        _ = fresh.pause()
        var reader = StateReader(section: "balloon", bytes: writer.bytes)
        try fresh.restoreState(from: &reader, version: 1)
        fresh.resume()
        #expect(other.targetPages == 5)
        #expect(eventually { other.statistics != nil })
        fresh.reset()
    }
}
