import Glibc
import GuestMemory
import HostSystem
import Testing

/// The one accessor of guest RAM, asked for what a hostile guest would ask.
struct GuestMemoryTests {
    /// 1 MiB below the hole and 3 MiB from 4 GiB up, so that both regions and the hole are within reach of a test.
    private static let low: UInt64 = 1 << 20, high: UInt64 = 3 << 20, fourGiB: UInt64 = 1 << 32
    private let memory: GuestMemory

    init() throws { memory = try GuestMemory(byteCount: Self.low + Self.high, lowMemoryEnd: Self.low) }

    /// First and last places where eight bytes are RAM.
    private static let inside: [UInt64] = [0, low - 8, fourGiB, fourGiB + high - 8]
    /// Eight bytes that are not all RAM of one region: across an end, in the hole, past everything, past the address space.
    private static let outside: [UInt64] = [
        low - 7, low - 1, low, low + 1, 2 << 20, fourGiB - 8, fourGiB - 1, fourGiB + high - 7, fourGiB + high, 1 << 52,
        .max - 8, .max - 7, .max,
    ]

    @Test func regionsSurroundTheHoleAndShareOneFile() throws {
        #expect(
            memory.regions == [
                GuestMemoryRegion(base: GuestAddress(0), byteCount: Self.low, fileOffset: 0),
                GuestMemoryRegion(base: GuestAddress(Self.fourGiB), byteCount: Self.high, fileOffset: Self.low),
            ])
        let descriptor = try #require(memory.descriptor)
        #expect(lseek(descriptor, 0, SEEK_END) == off_t(Self.low + Self.high))
    }

    @Test func memoryThatEndsBelowTheHoleHasOneRegion() throws {
        let small = try GuestMemory(byteCount: 1 << 20)
        #expect(small.regions.count == 1 && small.byteCount == 1 << 20)
        #expect(throws: GuestMemoryFault.self) { try small.load(UInt8.self, at: GuestAddress(1 << 20)) }
    }

    @Test(arguments: [0, 4096, (1 << 20) - 1, (1 << 20) + 1, UInt64.max, UInt64.max - 4095] as [UInt64])
    func sizeThatIsNoMemoryIsRefused(byteCount: UInt64) {
        #expect(throws: HostError.self) { _ = try GuestMemory(byteCount: byteCount) }
    }

    @Test(arguments: inside) func valueStoredIsLoadedAgainInWholeAndInParts(address: UInt64) throws {
        try memory.store(UInt64(0x0807_0605_0403_0201), at: GuestAddress(address))
        #expect(try memory.load(UInt64.self, at: GuestAddress(address)) == 0x0807_0605_0403_0201)
        #expect(try memory.bytes(at: GuestAddress(address), count: 8) == [1, 2, 3, 4, 5, 6, 7, 8])
        #expect(try memory.load(UInt32.self, at: GuestAddress(address + 1)) == 0x0504_0302)
    }

    @Test(arguments: outside) func accessThatIsNotAllRAMFaultsWithItsAddressAndChangesNothing(address: UInt64) throws {
        let place = GuestAddress(address)
        let fault = #expect(throws: GuestMemoryFault.self) { try memory.load(UInt64.self, at: place) }
        #expect(fault?.address == place && fault?.byteCount == 8)
        #expect(throws: GuestMemoryFault.self) { try memory.store(UInt64.max, at: place) }
        #expect(throws: GuestMemoryFault.self) { try memory.write([UInt8](repeating: 0xFF, count: 8), at: place) }
        #expect(throws: GuestMemoryFault.self) { try memory.fill(0xFF, at: place, count: 8) }
        #expect(throws: GuestMemoryFault.self) { try memory.bytes(at: place, count: 8) }
        #expect(throws: GuestMemoryFault.self) { _ = try memory.hostRange(at: place, byteCount: 8) }
        // The bytes before the hole and at the ends, which a partial write would have reached.
        for edge in [Self.low - 8, Self.fourGiB, Self.fourGiB + Self.high - 8] {
            #expect(try memory.load(UInt64.self, at: GuestAddress(edge)) == 0)
        }
    }

    @Test(arguments: [UInt64.max, UInt64.max - 1, 1 << 63, low + high, low + 1])
    func lengthThatOverflowsOrSpansTheHoleFaults(byteCount: UInt64) {
        for base in [UInt64(0), 1, Self.low - 1, Self.fourGiB, Self.fourGiB + Self.high - 1]
        where base < Self.fourGiB || byteCount > Self.high {
            #expect(throws: GuestMemoryFault.self) {
                _ = try memory.hostRange(at: GuestAddress(base), byteCount: byteCount)
            }
            #expect(throws: GuestMemoryFault.self) { try memory.fill(1, at: GuestAddress(base), count: byteCount) }
        }
    }

    @Test func wholeRegionsAreInReachAndNotAByteMore() throws {
        try memory.fill(0xA5, at: GuestAddress(0), count: Self.low)
        try memory.fill(0x5A, at: GuestAddress(Self.fourGiB), count: Self.high)
        #expect(try memory.load(UInt8.self, at: GuestAddress(Self.low - 1)) == 0xA5)
        #expect(try memory.load(UInt8.self, at: GuestAddress(Self.fourGiB)) == 0x5A)
        #expect(throws: GuestMemoryFault.self) { try memory.fill(0, at: GuestAddress(0), count: Self.low + 1) }
        #expect(throws: GuestMemoryFault.self) {
            try memory.fill(0, at: GuestAddress(Self.fourGiB), count: Self.high + 1)
        }
    }

    @Test func emptyRangeAtTheEndOfRAMIsNoRAM() throws {
        _ = try memory.hostRange(at: GuestAddress(Self.low - 1), byteCount: 0)
        #expect(throws: GuestMemoryFault.self) { _ = try memory.hostRange(at: GuestAddress(Self.low), byteCount: 0) }
        #expect(try memory.bytes(at: GuestAddress(0), count: 0) == [])
        try memory.write([], at: GuestAddress(0))
    }

    @Test func hostRangesOfBothRegionsLieBehindOneAnotherInTheMapping() throws {
        let first = try memory.hostRange(at: GuestAddress(Self.low - 16), byteCount: 16)
        let second = try memory.hostRange(at: GuestAddress(Self.fourGiB), byteCount: 16)
        // Neighbours in this process are no neighbours for the guest: a range across both must have been refused above.
        #expect(first.start + 16 == second.start)
        #expect(throws: GuestMemoryFault.self) {
            _ = try memory.hostRange(at: GuestAddress(Self.low - 16), byteCount: 17)
        }
    }

    @Test func whatTheKernelWritesThroughTheFileIsSeen() throws {
        let bytes: [UInt8] = [9, 8, 7, 6]
        let descriptor = try #require(memory.descriptor)
        #expect(pwrite(descriptor, bytes, 4, off_t(Self.low)) == 4)
        #expect(try memory.bytes(at: GuestAddress(Self.fourGiB), count: 4) == bytes)
    }

    // MARK: Ring indices

    @Test(arguments: [UInt64(0), low - 2, fourGiB, fourGiB + high - 2])
    func ringIndexIsPublishedAndRead(address: UInt64) throws {
        try memory.storeRelease(0xBEEF, at: GuestAddress(address))
        #expect(try memory.loadAcquire(at: GuestAddress(address)) == 0xBEEF)
        #expect(try memory.bytes(at: GuestAddress(address), count: 2) == [0xEF, 0xBE])
    }

    @Test(arguments: [1, low - 1, low, fourGiB + 1, fourGiB + high - 1, fourGiB + high, .max, .max - 1] as [UInt64])
    func ringIndexAtAnOddOrMissingPlaceFaults(address: UInt64) {
        #expect(throws: GuestMemoryFault.self) { try memory.loadAcquire(at: GuestAddress(address)) }
        #expect(throws: GuestMemoryFault.self) { try memory.storeRelease(1, at: GuestAddress(address)) }
    }

    @Test func indexStoredWithReleaseMakesWhatWasWrittenBeforeVisible() throws {
        let memory = memory, rounds = 2000
        let writer = try HostSystem.Thread(named: "writer") {
            for round in 1...rounds {
                // The reader takes a round before the next is written.
                while (try? memory.loadAcquire(at: GuestAddress(0x2000))) != UInt16(truncatingIfNeeded: round - 1) {
                    sched_yield()
                }
                try? memory.store(UInt64(round), at: GuestAddress(0x1000))
                try? memory.storeRelease(UInt16(truncatingIfNeeded: round), at: GuestAddress(0x3000))
            }
        }
        var stale = 0
        for round in 1...rounds {
            while try memory.loadAcquire(at: GuestAddress(0x3000)) != UInt16(truncatingIfNeeded: round) {
                sched_yield()
            }
            if try memory.load(UInt64.self, at: GuestAddress(0x1000)) != UInt64(round) { stale += 1 }
            try memory.storeRelease(UInt16(truncatingIfNeeded: round), at: GuestAddress(0x2000))
        }
        writer.join()
        #expect(stale == 0)
    }

    // MARK: Addresses

    @Test func addressNeverWraps() {
        #expect(GuestAddress(1).advanced(by: .max) == nil)
        #expect(GuestAddress(1).advanced(by: .max - 1) == GuestAddress(.max))
        #expect(GuestAddress(0).advanced(by: 0) == GuestAddress(0))
        #expect(GuestAddress(0x10) < GuestAddress(0x11) && GuestAddress(0xB000_0000).description == "0xb0000000")
    }

    @Test func twentyThousandRandomAccessesFaultOrStayInside() throws {
        var state: UInt64 = 0x9E37
        func random() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state >> 11
        }
        let bases: [UInt64] = [0, Self.low, Self.fourGiB, Self.fourGiB + Self.high, 1 << 63]
        var read = 0
        for _ in 0..<20_000 {
            let address = bases[Int(random() % 5)] &+ random() % 64 &- 32, count = Int(random() % 64)
            let isRAM =
                address < Self.low
                ? address + UInt64(count) <= Self.low
                : address >= Self.fourGiB && address < Self.fourGiB + Self.high
                    && address + UInt64(count) <= Self.fourGiB + Self.high
            if isRAM {
                #expect(try memory.bytes(at: GuestAddress(address), count: count).count == count)
                read += 1
            } else {
                #expect(throws: GuestMemoryFault.self) { try memory.bytes(at: GuestAddress(address), count: count) }
            }
        }
        #expect(read > 1000)
    }
}
