import Chipset
import MachineCore
import Synchronization
import Testing

/// 16 MiB that exist up to `limit`.
final class FlatMemory: DMAMemory {
    private let bytes: Mutex<[UInt8]>
    init(byteCount: Int = 1 << 20) { bytes = Mutex([UInt8](repeating: 0, count: byteCount)) }
    func read(_ address: UInt64, byteCount: Int) -> [UInt8]? {
        bytes.withLock {
            address + UInt64(byteCount) <= UInt64($0.count) ? Array($0[Int(address)..<(Int(address) + byteCount)]) : nil
        }
    }
    func write(_ address: UInt64, _ new: ArraySlice<UInt8>) -> Bool {
        bytes.withLock {
            guard address + UInt64(new.count) <= UInt64($0.count) else { return false }
            $0.replaceSubrange(Int(address)..<(Int(address) + new.count), with: new)
            return true
        }
    }
}

private final class Bench {
    let memory = FlatMemory(), device: DMAController
    private var bus = PortBus()
    init() {
        device = DMAController(memory: memory)
        for window in device.ports { bus.attach(window.device, at: window.first, count: window.count) }
    }
    func out(_ port: UInt16, _ values: UInt64...) {
        for value in values { bus.write(port, width: .byte, value: value) }
    }
    func read(_ port: UInt16) -> UInt64 { bus.read(port, width: .byte) }

    /// SeaBIOS, src/hw/dma.c: dma_setup and dma_floppy.
    func setUp(address: UInt64, byteCount: UInt64, mode: UInt64 = 0x46) {
        out(0x0D, 0)
        out(0xDA, 0)
        out(0xD6, 0xC0)
        out(0xD4, 0x00)
        out(0x0A, 0x06)
        out(0x0C, 0x00)
        out(0x04, address & 0xFF, address >> 8 & 0xFF)
        out(0x0C, 0x00)
        out(0x05, (byteCount - 1) & 0xFF, (byteCount - 1) >> 8)
        out(0x0B, mode)
        out(0x81, address >> 16)
        out(0x0A, 0x02)
    }
}

struct I8237Tests {
    @Test func firmwaresFloppyTransferFillsItsBuffer() {
        let bench = Bench()
        bench.setUp(address: 0x2_3400, byteCount: 1024)
        let sector = (0..<512).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        #expect(bench.device.write(channel: 2, sector) == (512, false))
        #expect(bench.device.write(channel: 2, sector + [1, 2]) == (512, true))
        #expect(bench.memory.read(0x2_3400, byteCount: 1024) == sector + sector)
        #expect(bench.read(0x08) == 0x04 && bench.read(0x08) == 0x00, "terminal count is told once")
        #expect(bench.device.write(channel: 2, sector) == (0, false), "and masks the channel")
        bench.setUp(address: 0x2_3400, byteCount: 1024, mode: 0x4A)
        #expect(bench.device.write(channel: 2, sector) == (0, false), "the other direction")
        let (bytes, isTerminal) = bench.device.read(channel: 2, byteCount: 600)
        #expect(bytes == Array((sector + sector)[..<600]) && !isTerminal)
        bench.out(0x0C, 0)
        #expect(
            bench.read(0x04) | bench.read(0x04) << 8 == 0x3400 + 600
                && bench.read(0x05) | bench.read(0x05) << 8 == 1023 - 600)
    }

    @Test func maskedDisabledAndCascadedChannelsMoveNothing() {
        let bench = Bench()
        #expect(bench.device.write(channel: 2, [1]) == (0, false))
        bench.setUp(address: 0, byteCount: 16)
        bench.out(0x08, 0x04)
        #expect(bench.device.write(channel: 2, [1]) == (0, false))
        bench.out(0x08, 0x00)
        bench.out(0xD4, 0x04)
        #expect(bench.device.write(channel: 2, [1]) == (0, false), "channel 4 is masked")
        bench.out(0xD4, 0x00)
        #expect(bench.device.write(channel: 2, [1]) == (1, false))
        for channel in [-1, 4, 8] { #expect(bench.device.write(channel: channel, [1]) == (0, false)) }
        bench.out(0x0F, 0x0F)
        #expect(bench.read(0x0F) == 0xFF && bench.device.write(channel: 2, [1]) == (0, false))
        bench.out(0x0E, 0)
        #expect(bench.device.write(channel: 2, [1]) == (1, false))
    }

    @Test func addressWrapsInItsPageAndMayCountDownOrStartAgain() {
        let bench = Bench()
        bench.setUp(address: 0x1_FFFE, byteCount: 4)
        #expect(bench.device.write(channel: 2, [1, 2, 3, 4]) == (4, true))
        #expect(
            bench.memory.read(0x1_FFFE, byteCount: 2) == [1, 2] && bench.memory.read(0x1_0000, byteCount: 2) == [3, 4])
        bench.setUp(address: 0x3_0001, byteCount: 3, mode: 0x66)
        #expect(bench.device.write(channel: 2, [1, 2, 3]) == (3, true))
        #expect(
            bench.memory.read(0x3_0000, byteCount: 2) == [2, 1] && bench.memory.read(0x3_FFFF, byteCount: 1) == [3])
        bench.setUp(address: 0x4_0000, byteCount: 2, mode: 0x56)
        #expect(
            bench.device.write(channel: 2, [1, 2, 3]) == (2, true) && bench.device.write(channel: 2, [9]) == (1, false))
        #expect(bench.memory.read(0x4_0000, byteCount: 2) == [9, 2])
        bench.setUp(address: 0x5_0000, byteCount: 2, mode: 0x42)
        #expect(
            bench.device.write(channel: 2, [7]) == (1, false) && bench.memory.read(0x5_0000, byteCount: 1) == [0],
            "verify")
        #expect(bench.device.read(channel: 2, byteCount: 5) == ([0], true))
    }

    @Test func wordChannelCountsWordsWithin128KiB() {
        let bench = Bench()
        bench.out(0xD8, 0)
        bench.out(0xC4, 0x00, 0x80)
        bench.out(0xC6, 1, 0)
        bench.out(0x8B, 0x03)
        bench.out(0xD6, 0x45)
        bench.out(0xD4, 0x01)
        #expect(bench.device.write(channel: 5, [1, 2, 3, 4, 5]) == (4, true))
        #expect(bench.memory.read(0x3_0000, byteCount: 4) == [1, 2, 3, 4])
    }

    @Test func memoryThatIsNotThereSwallowsAndReadsOnes() {
        let bench = Bench()
        bench.setUp(address: 0xFF_0000, byteCount: 16)
        #expect(bench.device.write(channel: 2, [1, 2]) == (2, false))
        bench.setUp(address: 0xFF_0000, byteCount: 16, mode: 0x4A)
        #expect(bench.device.read(channel: 2, byteCount: 2) == ([0xFF, 0xFF], false))
    }

    @Test func pagesKeepTheirBytesAndTheDiagnosticPortItsCode() {
        let bench = Bench(), post = DiagnosticPort()
        for port in UInt16(0x81)...0x8F { bench.out(port, UInt64(port) ^ 0x5A) }
        for port in UInt16(0x81)...0x8F { #expect(bench.read(port) == UInt64(port) ^ 0x5A) }
        post.write(offset: 0, width: .byte, value: 0x1A7)
        #expect(post.code == 0xA7 && post.read(offset: 0, width: .byte) == 0xA7)
    }

    @Test func stateSurvivesARoundTripAndATruncatedOneIsRefused() throws {
        let bench = Bench(), copy = Bench()
        bench.setUp(address: 0x2_0000, byteCount: 600)
        _ = bench.device.write(channel: 2, [UInt8](repeating: 5, count: 512))
        bench.out(0x04, 0)
        let saved = savedBytes(bench.device)
        #expect(try restore(saved, into: copy.device) == 0 && savedBytes(copy.device) == saved)
        #expect(copy.device.write(channel: 2, [UInt8](repeating: 6, count: 512)).isTerminal)
        for count in 0..<saved.count {
            #expect(throws: DeviceStateError.self) { try restore(Array(saved[..<count]), into: copy.device) }
        }
        copy.device.reset()
        #expect(copy.read(0x81) == 0)
    }

    @Test(arguments: UInt64(1)...6)
    func randomProgramsMoveNoMoreThanTheyWereAskedTo(seed: UInt64) {
        var random = Seeded(seed), pair = I8237Pair()
        for _ in 0..<4000 {
            switch random.next() % 3 {
            case 0: pair.write(UInt16(random.next() % 0xE0), UInt8(truncatingIfNeeded: random.next()))
            case 1: _ = pair.read(UInt16(random.next() % 0xE0))
            default:
                let limit = Int(random.next() % 300_000)
                let transfer = pair.request(
                    Int(random.next() % 9), writesMemory: random.next() % 2 == 0, byteCount: limit)
                let sum = transfer.segments.reduce(0) { $0 + $1.byteCount }
                #expect(transfer.byteCount <= limit && (sum == transfer.byteCount || sum == 0))
                #expect(transfer.segments.allSatisfy { $0.address + UInt64($0.byteCount) <= 1 << 24 })
            }
        }
    }
}
