import GuestMemory
import Testing

@testable import VirtIO

/// A ring of 16 in 1 MiB of RAM.
private struct Bench {
    let memory: GuestMemory
    let driver: MockQueue
    var queue: SplitQueue
    var chain = DescriptorChain()

    init(features: VirtIOFeatures = [.version1, .ringIndirectDescriptors]) throws {
        memory = try GuestMemory(byteCount: 1 << 20)
        driver = MockQueue(memory, index: 0, base: 0x1000)
        queue = try SplitQueue(
            index: 0, memory: memory, size: 16,
            addresses: QueueAddresses(
                descriptorTable: GuestAddress(driver.table), availableRing: GuestAddress(driver.available),
                usedRing: GuestAddress(driver.used)), features: features)
    }

    mutating func fault() -> QueueFault.Reason? {
        do {
            _ = try queue.pop(into: &chain)
            return nil
        } catch {
            return error.reason
        }
    }
}

@Suite struct HostileQueueTests {
    @Test func availableIndexAheadOfTheRingIsAFault() throws {
        var bench = try Bench()
        try bench.memory.store(UInt16(17), at: GuestAddress(bench.driver.available + 2))
        let reason = bench.fault()
        #expect(reason == .indexJumped)
    }

    @Test func headOutsideTheTableIsAFault() throws {
        var bench = try Bench()
        try bench.driver.offer(16)
        let reason = bench.fault()
        #expect(reason == .headOutsideTable)
    }

    @Test func nextOutsideTheTableIsAFault() throws {
        var bench = try Bench()
        try bench.driver.setDescriptor(0, 0x2000, 8, flags: 1, next: 16)
        try bench.driver.offer(0)
        let reason = bench.fault()
        #expect(reason == .nextOutsideTable)
    }

    @Test func loopIsAFault() throws {
        var bench = try Bench()
        try bench.driver.setDescriptor(0, 0x2000, 8, flags: 1, next: 1)
        try bench.driver.setDescriptor(1, 0x2000, 8, flags: 1, next: 0)
        try bench.driver.offer(0)
        let reason = bench.fault()
        #expect(reason == .chainTooLong)
    }

    @Test func emptyBufferIsAFault() throws {
        var bench = try Bench()
        try bench.driver.add([.init(0x2000, 0, writable: true)])
        let reason = bench.fault()
        #expect(reason == .emptyBuffer)
    }

    @Test(arguments: [(0x10_0000, 1), (0xF_FFFF, 2), (0xFFFF_FFFF_FFFF_FFFF, 1), (0, 0xFFFF_FFFF)] as [(UInt64, UInt32)])
    func bufferOutsideMemoryIsAFault(buffer: (UInt64, UInt32)) throws {
        var bench = try Bench()
        try bench.driver.add([.init(buffer.0, buffer.1, writable: true)])
        let reason = bench.fault()
        #expect(reason == .bufferOutsideMemory)
    }

    @Test func readableAfterWritableIsAFault() throws {
        var bench = try Bench()
        try bench.driver.add([.init(0x2000, 8, writable: true), .init(0x3000, 8, writable: false)])
        let reason = bench.fault()
        #expect(reason == .readableAfterWritable)
    }

    @Test func indirectWithoutTheFeatureIsAFault() throws {
        var bench = try Bench(features: .version1)
        try bench.driver.setDescriptor(0, 0x2000, 16, flags: 4, next: 0)
        try bench.driver.offer(0)
        let reason = bench.fault()
        #expect(reason == .indirectNotNegotiated)
    }

    @Test(arguments: [0, 15, 24, 16 * 1025] as [UInt32])
    func indirectTableOfAnOddLengthIsAFault(length: UInt32) throws {
        var bench = try Bench()
        try bench.driver.setDescriptor(0, 0x2000, length, flags: 4, next: 0)
        try bench.driver.offer(0)
        let reason = bench.fault()
        #expect(reason == .indirectLengthInvalid)
    }

    @Test func indirectWithANextFieldIsAFault() throws {
        var bench = try Bench()
        try bench.driver.setDescriptor(0, 0x2000, 16, flags: 5, next: 1)
        try bench.driver.offer(0)
        let reason = bench.fault()
        #expect(reason == .indirectChained)
    }

    @Test func nestedIndirectIsAFault() throws {
        var bench = try Bench()
        try bench.driver.setDescriptor(0, 0x2000, 16, flags: 4, next: 0)
        try bench.driver.setDescriptor(0, 0x3000, 16, flags: 4, next: 0, in: 0x2000)
        try bench.driver.offer(0)
        let reason = bench.fault()
        #expect(reason == .indirectNested)
    }

    @Test func loopInAnIndirectTableIsAFault() throws {
        var bench = try Bench()
        try bench.driver.setDescriptor(0, 0x2000, 32, flags: 4, next: 0)
        try bench.driver.setDescriptor(0, 0x3000, 8, flags: 1, next: 1, in: 0x2000)
        try bench.driver.setDescriptor(1, 0x3000, 8, flags: 1, next: 0, in: 0x2000)
        try bench.driver.offer(0)
        let reason = bench.fault()
        #expect(reason == .chainTooLong)
    }

    @Test func indirectTableOutsideMemoryIsAFault() throws {
        var bench = try Bench()
        try bench.driver.setDescriptor(0, 0xFFFF_FFFF_FFFF_FFF0, 32, flags: 4, next: 0)
        try bench.driver.offer(0)
        let reason = bench.fault()
        #expect(reason == .bufferOutsideMemory)
    }

    @Test(arguments: [
        (UInt64(0x1008), UInt64(0x2000), UInt64(0x3000)), (0x1000, 0x2001, 0x3000), (0x1000, 0x2000, 0x3002),
    ])
    func misalignedRingIsRefused(rings: (UInt64, UInt64, UInt64)) throws {
        let memory = try GuestMemory(byteCount: 1 << 20)
        #expect(throws: QueueFault(queue: 0, reason: .ringMisaligned)) {
            try SplitQueue(
                index: 0, memory: memory, size: 16,
                addresses: QueueAddresses(
                    descriptorTable: GuestAddress(rings.0), availableRing: GuestAddress(rings.1),
                    usedRing: GuestAddress(rings.2)), features: .version1)
        }
    }

    @Test func ringOutsideMemoryIsRefused() throws {
        let memory = try GuestMemory(byteCount: 1 << 20)
        #expect(throws: QueueFault(queue: 0, reason: .ringOutsideMemory)) {
            try SplitQueue(
                index: 0, memory: memory, size: 16,
                addresses: QueueAddresses(
                    descriptorTable: GuestAddress(0x1000), availableRing: GuestAddress(0x2000),
                    usedRing: GuestAddress(0xFFFFC)), features: .version1)
        }
    }

    @Test func indirectChainAfterDirectBuffersIsOneRequest() throws {
        var bench = try Bench()
        try bench.memory.store(UInt32(0x1122_3344), at: GuestAddress(0x4000))
        try bench.driver.setDescriptor(0, 0x4000, 2, flags: 1, next: 1)
        try bench.driver.setDescriptor(1, 0x2000, 32, flags: 4, next: 0)
        try bench.driver.setDescriptor(0, 0x4002, 2, flags: 1, next: 1, in: 0x2000)
        try bench.driver.setDescriptor(1, 0x5000, 100, flags: 2, next: 0, in: 0x2000)
        try bench.driver.offer(0)
        let reason = bench.fault()
        #expect(reason == nil)
        #expect(bench.chain.readableByteCount == 4 && bench.chain.writableByteCount == 100)
        #expect(bench.chain.load(UInt32.self, at: 0, zero: 0) == 0x1122_3344)
        #expect(bench.chain.load(UInt32.self, at: 1, zero: 0) == nil)
        #expect(bench.chain.write([1, 2, 3], at: 98) == 2)
    }

    @Test func indicesWrapAfterSixtyFourThousandRequests() throws {
        var bench = try Bench()
        for _ in 0..<70_000 {
            try bench.driver.add([.init(0x4000, 4, writable: true)])
            let isThere = try bench.queue.pop(into: &bench.chain)
            #expect(isThere)
            try bench.queue.push(head: bench.chain.head, byteCount: 4)
            let isWanted = try bench.queue.publish()
            #expect(isWanted)
        }
        #expect(bench.driver.usedIndex == UInt16(truncatingIfNeeded: 70_000))
    }

    @Test func eventIndexAsksForOneInterruptOnly() throws {
        var bench = try Bench(features: [.version1, .ringEventIndex])
        // used_event = 2: interrupt when the third buffer is used.
        try bench.memory.store(UInt16(2), at: GuestAddress(bench.driver.available + 4 + 32))
        var interrupts: [Bool] = []
        for _ in 0..<5 {
            try bench.driver.add([.init(0x4000, 4, writable: true)])
            _ = try bench.queue.pop(into: &bench.chain)
            try bench.queue.push(head: bench.chain.head, byteCount: 0)
            interrupts.append(try bench.queue.publish())
        }
        #expect(interrupts == [false, false, true, false, false])
        let hasMore = try bench.queue.allowNotifications()
        #expect(!hasMore)
        let event = try bench.memory.load(UInt16.self, at: GuestAddress(bench.driver.used + 4 + 8 * 16))
        #expect(event == 5)
    }
}
