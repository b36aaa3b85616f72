import DiskImage
import Foundation
import GuestMemory
import HostSystem
import MachineTesting
import Testing

@testable import VirtIO

/// SplitMix64: a generator whose numbers are the same in every run.
private struct Numbers: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }
}

/// Drivers that lay out anything at all: a device serves it, refuses it or asks for a reset, and works again after one.
@Suite struct RandomChainTests {
    enum Kind: String, CaseIterable { case block, entropy, balloon }
    private static let chains = 20_000, burst = 50

    private func device(_ kind: Kind, _ loop: EventLoop) throws -> any VirtIODevice {
        switch kind {
        case .entropy: return VirtIOEntropy(loop: loop)
        case .balloon: return VirtIOBalloon(loop: loop)
        case .block:
            let file = try makeMemoryFile(named: "disk", byteCount: 1 << 20)
            return try VirtIOBlock(
                backend: try RawImage(owning: file, named: "disk", isReadOnly: false), serial: "s", queueCount: 1,
                loops: [loop])
        }
    }

    /// Descriptors of every kind of wrongness, the right kind often enough to get further.
    private func layOut(_ queue: MockQueue, _ random: inout Numbers) throws {
        func address(_ random: inout Numbers) -> UInt64 {
            switch Int.random(in: 0..<12, using: &random) {
            case 0: UInt64.random(in: 0 ... .max, using: &random)
            case 1: (1 << 20) &+ UInt64.random(in: 0..<64, using: &random) &- 32
            case 2: queue.table &+ UInt64.random(in: 0..<512, using: &random)
            default: 0x4_0000 &+ 0x1000 &* UInt64.random(in: 0..<16, using: &random)
            }
        }
        for number in 0..<queue.size {
            let length: UInt32 =
                switch Int.random(in: 0..<8, using: &random) {
                case 0: UInt32.random(in: 0 ... .max, using: &random)
                case 1: 0
                case 2: 16
                default: UInt32.random(in: 1...4096, using: &random)
                }
            // NEXT, WRITE, INDIRECT; rarely bits that nobody knows.
            let flags = UInt16.random(
                in: 0..<(Int.random(in: 0..<16, using: &random) == 0 ? 0xFFFF : 8), using: &random)
            try queue.setDescriptor(
                number, address(&random), length, flags: flags,
                next: UInt16.random(in: 0...(queue.size &+ 1), using: &random))
        }
        // What the block device reads as requests, and the balloon as page numbers.
        for page in 0..<16 {
            let base = 0x4_0000 + 0x1000 * UInt64(page)
            try queue.memory.store(UInt32.random(in: 0...16, using: &random), at: GuestAddress(base))
            try queue.memory.store(UInt64.random(in: 0...4096, using: &random), at: GuestAddress(base + 8))
        }
    }

    @Test(arguments: Kind.allCases) func twentyThousandRandomChainsLeaveTheDeviceUsable(kind: Kind) throws {
        var random = Numbers(state: 0xA905)
        let memory = try GuestMemory(byteCount: 1 << 20), thread = try LoopThread()
        let device = try device(kind, thread.loop)
        let function = try VirtIOPCIFunction(
            device, name: kind.rawValue, memory: memory, interrupts: RecordedInterrupts(), doorbells: nil)
        let driver = MockDriver(function: function)
        var broken = 0
        for _ in 0..<(Self.chains / Self.burst) {
            #expect(driver.negotiate(driver.offered))
            var queues: [MockQueue] = []
            for index in device.queueSizes.indices {
                let queue = MockQueue(memory, index: index, base: 0x1_0000 + 0x4000 * UInt64(index))
                try memory.fill(0, at: GuestAddress(queue.table), count: 0x4000)
                driver.enable(queue, vector: UInt16(index))
                queues.append(queue)
            }
            driver.status = 15
            for queue in queues { try layOut(queue, &random) }
            for _ in 0..<Self.burst {
                let queue = queues[Int.random(in: 0..<queues.count, using: &random)]
                try queue.offer(UInt16.random(in: 0..<(queue.size &+ 2), using: &random))
                driver.notify(queue.index)
            }
            // Served as far as it can be, or for 20 ms: the first broken chain stops a device, and the balloon keeps a buffer.
            for _ in 0..<40 where driver.status & 0x40 == 0 && !queues.allSatisfy({ $0.usedIndex == $0.availableIndex })
            { usleep(500) }
            if driver.status & 0x40 != 0 { broken += 1 }
            driver.status = 0
            #expect(eventually { driver.status == 0 }, "a reset that does not end")
        }
        #expect(broken > 0)
        // And after all that it still does its work.
        #expect(driver.negotiate(driver.offered) && driver.status & 0x40 == 0)
        function.reset()
    }
}
