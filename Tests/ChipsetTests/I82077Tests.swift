import Chipset
import MachineCore
import Synchronization
import Testing

/// An image in memory; with `isSlow` an operation ends when the test says so.
private final class MemoryImage: FloppyImage {
    let sectorCount: Int, isReadOnly: Bool, isSlow: Bool
    private let state: Mutex<(bytes: [UInt8], waiting: [@Sendable () -> Void], isBroken: Bool)>
    init(sectorCount: Int = 2880, isReadOnly: Bool = false, isSlow: Bool = false) {
        self.sectorCount = sectorCount
        self.isReadOnly = isReadOnly
        self.isSlow = isSlow
        // Each sector begins with its number.
        var bytes = [UInt8](repeating: 0, count: sectorCount * 512)
        for sector in 0..<sectorCount {
            bytes[sector * 512] = UInt8(truncatingIfNeeded: sector)
            bytes[sector * 512 + 1] = UInt8(truncatingIfNeeded: sector >> 8)
        }
        state = Mutex((bytes, [], false))
    }
    func sector(_ number: Int) -> [UInt8] { state.withLock { Array($0.bytes[(number * 512)..<(number * 512 + 512)]) } }
    func breakDown() { state.withLock { $0.isBroken = true } }
    func read(sector: Int, completion: @escaping @Sendable ([UInt8]?) -> Void) {
        let isBroken = state.withLock { $0.isBroken }
        end { [self] in completion(isBroken ? nil : self.sector(sector)) }
    }
    func write(sector: Int, _ bytes: [UInt8], completion: @escaping @Sendable (Bool) -> Void) {
        end { [self] in
            let isBroken = state.withLock { state in
                if !state.isBroken { state.bytes.replaceSubrange((sector * 512)..<(sector * 512 + 512), with: bytes) }
                return state.isBroken
            }
            completion(!isBroken)
        }
    }
    private func end(_ body: @escaping @Sendable () -> Void) {
        if isSlow { state.withLock { $0.waiting.append(body) } } else { body() }
    }
    func finishOne() -> Bool {
        guard let body = state.withLock({ $0.waiting.isEmpty ? nil : $0.waiting.removeFirst() }) else { return false }
        body()
        return true
    }
}

private final class Bench {
    let memory = FlatMemory(), wire = Wire(), dma: DMAController, device: FloppyController, image: MemoryImage?
    private var bus = PortBus()
    init(_ image: MemoryImage? = MemoryImage()) {
        self.image = image
        dma = DMAController(memory: memory)
        device = FloppyController(line: wire, dma: dma, images: [image])
        for window in dma.ports { bus.attach(window.device, at: window.first, count: window.count) }
        bus.attach(device, at: 0x3F0, count: 6)
        bus.attach(device.digitalInput, at: 0x3F7, count: 1)
    }
    func out(_ port: UInt16, _ values: UInt64...) {
        for value in values { bus.write(port, width: .byte, value: value) }
    }
    func read(_ port: UInt16) -> UInt64 { bus.read(port, width: .byte) }

    /// SeaBIOS, floppy_pio: each byte when the status asks for it, each answer while it offers one.
    func send(_ bytes: [UInt8]) {
        for byte in bytes {
            #expect(read(0x3F4) & 0xC0 == 0x80)
            out(0x3F5, UInt64(byte))
        }
    }
    func result() -> [UInt8] {
        var bytes: [UInt8] = []
        while read(0x3F4) & 0xC0 == 0xC0, bytes.count < 20 { bytes.append(UInt8(read(0x3F5))) }
        return bytes
    }
    func command(_ bytes: UInt8...) -> [UInt8] {
        send(bytes)
        return result()
    }
    /// SeaBIOS, floppy_enable_controller.
    func enable() {
        out(0x3F2, 0x08)
        out(0x3F2, 0x0C)
        #expect(wire.level)
        for drive in UInt8(0)..<4 { #expect(command(0x08) == [0xC0 | drive, 0]) }
        #expect(!wire.level)
        out(0x3F2, 0x1C)
        out(0x3F7, 0)
    }
    /// SeaBIOS, dma_floppy.
    func setUpDMA(_ address: UInt64, byteCount: UInt64, isWrite: Bool = false) {
        out(0xD6, 0xC0)
        out(0xD4, 0x00)
        out(0x0A, 0x06)
        out(0x0C, 0)
        out(0x04, address & 0xFF, address >> 8 & 0xFF)
        out(0x0C, 0)
        out(0x05, (byteCount - 1) & 0xFF, (byteCount - 1) >> 8)
        out(0x0B, isWrite ? 0x4A : 0x46)
        out(0x81, address >> 16)
        out(0x0A, 0x02)
    }
    func seek(_ cylinder: UInt8) {
        send([0x0F, 0x00, cylinder])
        #expect(wire.level && command(0x08) == [0x20, cylinder] && !wire.level)
    }
}

struct I82077Tests {
    /// SeaBIOS, src/hw/floppy.c: floppy_prep and floppy_read of three sectors of cylinder 5, head 1.
    @Test func firmwareReadsSectors() {
        let bench = Bench()
        bench.enable()
        bench.send([0x07, 0x00])
        #expect(bench.wire.level && bench.command(0x08) == [0x20, 0x00])
        bench.send([0x4A, 0x00])
        #expect(bench.wire.level && bench.result() == [0x00, 0, 0, 0, 0, 1, 2] && !bench.wire.level)
        #expect(bench.command(0x03, 0xAF, 0x02) == [])
        bench.seek(5)
        bench.setUpDMA(0x8000, byteCount: 3 * 512)
        bench.send([0xE6, 0x04, 5, 1, 7, 2, 9, 0x1B, 0xFF])
        #expect(bench.wire.level && bench.result() == [0x00, 0, 0, 6, 0, 1, 2] && !bench.wire.level)
        let first = (5 * 2 + 1) * 18 + 6
        for index in 0..<3 {
            #expect(
                bench.memory.read(0x8000 + UInt64(index) * 512, byteCount: 512) == bench.image?.sector(first + index))
        }
        #expect(bench.read(0x3F4) == 0x80)
    }

    /// Linux, drivers/block/floppy.c, get_fdc_version: a post-1991 82077.
    @Test func driverTellsTheControllersVersion() {
        let bench = Bench()
        bench.enable()
        #expect(bench.command(0x0E).count == 10)
        #expect(bench.command(0x13, 0x00, 0x1A, 0x00) == [])
        #expect(bench.command(0x12, 0x80) == [])
        #expect(bench.command(0x14) == [0x00] && bench.command(0x94) == [0x10])
        #expect(bench.command(0x18) == [0x80] && bench.command(0x10) == [0x90])
        #expect(bench.command(0x33) == [0x80] && bench.command(0x2E) == [0x80] && !bench.wire.level)
        bench.out(0x3F4, 0x80)
        #expect(
            bench.wire.level && bench.command(0x08) == [0xC0, 0] && bench.command(0x0E)[8] == 0x1A,
            "locked through a reset")
        #expect(bench.command(0x14) == [0x00])
        bench.out(0x3F4, 0x80)
        #expect(bench.command(0x08) == [0xC0, 0] && bench.command(0x0E)[8] == 0x20)
    }

    /// Linux: the disk change line is cleared by a seek with a disk in the drive.
    @Test func changedDiskIsSeenUntilTheHeadMoves() {
        let bench = Bench()
        bench.enable()
        #expect(bench.read(0x3F7) == 0x80)
        bench.seek(1)
        #expect(bench.read(0x3F7) == 0x00)
        #expect(bench.device.insert(nil, drive: 0))
        bench.seek(2)
        #expect(bench.read(0x3F7) == 0x80, "there is no disk")
        bench.setUpDMA(0x8000, byteCount: 512)
        #expect(bench.command(0x4A, 0x00)[..<2] == [0x40, 0x01])
        #expect(bench.command(0xE6, 0, 2, 0, 1, 2, 18, 0x1B, 0xFF)[..<2] == [0x40, 0x05])
        #expect(bench.device.insert(MemoryImage(isReadOnly: true), drive: 0) && !bench.device.insert(nil, drive: 1))
        #expect(!bench.device.insert(MemoryImage(sectorCount: 100), drive: 0), "no disk has 100 sectors")
        bench.seek(3)
        #expect(
            bench.read(0x3F7) == 0x00 && bench.command(0x04, 0x04) == [0x6C],
            "write-protected, ready, two sides, head 1")
        bench.setUpDMA(0x8000, byteCount: 512, isWrite: true)
        #expect(bench.command(0xC5, 0, 3, 0, 1, 2, 18, 0x1B, 0xFF)[..<2] == [0x40, 0x02])
        bench.out(0x3F2, 0x0C)
        #expect(bench.read(0x3F7) == 0x00, "the line is the selected drive's, with its motor on")
    }

    @Test func sectorsAreWrittenFormattedAndVerified() {
        let bench = Bench()
        bench.enable()
        let data = (0..<1024).map { UInt8(truncatingIfNeeded: $0 &* 3) }
        _ = bench.memory.write(0x9000, data[...])
        bench.setUpDMA(0x9000, byteCount: 1024, isWrite: true)
        #expect(
            bench.command(0x45, 0, 0, 0, 18, 2, 18, 0x1B, 0xFF)[..<3] == [0x40, 0x80, 0x00], "the track ended first")
        #expect(bench.image?.sector(17) == Array(data[..<512]) && bench.image?.sector(18)[0] == 18)
        bench.setUpDMA(0x9000, byteCount: 1024, isWrite: true)
        #expect(bench.command(0x45, 0, 0, 0, 18, 2, 18, 0x1B, 0xFF)[..<1] == [0x40])
        bench.setUpDMA(0x9000, byteCount: 1024, isWrite: true)
        #expect(
            bench.command(0xC5, 0, 0, 0, 18, 2, 18, 0x1B, 0xFF) == [0x04, 0, 0, 0, 1, 2, 2], "on to the other side")
        #expect(bench.image?.sector(18) == Array(data[512...]))
        #expect(bench.command(0x76, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF)[0] == 0x00)
        #expect(bench.command(0x76, 0, 0, 0, 1, 2, 19, 0x1B, 0xFF)[..<2] == [0x40, 0x04])
        bench.setUpDMA(0x9000, byteCount: 18 * 4, isWrite: true)
        #expect(bench.command(0x4D, 0x04, 2, 18, 0x6C, 0xF6)[0] == 0x04)
        #expect((18..<36).allSatisfy { bench.image?.sector($0) == [UInt8](repeating: 0xF6, count: 512) })
        #expect(bench.image?.sector(36)[0] == 36)
    }

    @Test func wrongPlacesAndMissingDMAAreErrors() {
        let bench = Bench()
        bench.enable()
        bench.seek(10)
        bench.setUpDMA(0x8000, byteCount: 512)
        #expect(bench.command(0xE6, 0, 9, 0, 1, 2, 18, 0x1B, 0xFF)[..<3] == [0x40, 0x04, 0x10], "wrong cylinder")
        #expect(bench.command(0xE6, 0, 10, 1, 1, 2, 18, 0x1B, 0xFF)[..<2] == [0x44, 0x04], "wrong head")
        #expect(bench.command(0xE6, 0, 10, 0, 19, 2, 19, 0x1B, 0xFF)[..<2] == [0x40, 0x04])
        #expect(bench.command(0xE6, 0, 10, 0, 0, 2, 18, 0x1B, 0xFF)[..<2] == [0x40, 0x04], "sectors count from 1")
        #expect(bench.command(0xE6, 0, 10, 0, 1, 3, 18, 0x1B, 0xFF)[..<2] == [0x40, 0x01], "sectors of 1024 bytes")
        #expect(bench.command(0xE6, 3, 10, 0, 1, 2, 18, 0x1B, 0xFF)[0] == 0x43, "no drive 3")
        bench.out(0x0A, 0x06)
        #expect(bench.command(0xE6, 0, 10, 0, 1, 2, 18, 0x1B, 0xFF)[..<2] == [0x40, 0x10], "the channel is masked")
        bench.seek(90)
        bench.setUpDMA(0x8000, byteCount: 512)
        #expect(bench.command(0xE6, 0, 90, 0, 1, 2, 18, 0x1B, 0xFF)[..<2] == [0x40, 0x01])
        bench.out(0x3F7, 2)
        bench.seek(0)
        #expect(bench.command(0x4A, 0)[..<2] == [0x40, 0x01], "the wrong data rate sees no mark")
        bench.out(0x3F7, 0)
        bench.image?.breakDown()
        bench.setUpDMA(0x8000, byteCount: 512)
        #expect(bench.command(0xE6, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF)[..<2] == [0x40, 0x20])
        #expect(bench.command(0x03, 0xAF, 0x03) == [])
        #expect(bench.command(0xE6, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF)[..<2] == [0x40, 0x10], "programmed transfers")
        #expect(
            bench.command(0x03, 0xAF, 0x02) == [] && bench.command(0x4D, 0, 2, 0, 0x6C, 0xF6)[..<2] == [0x40, 0x01])
        bench.send([0x07, 0x01])
        #expect(bench.command(0x08) == [0x71, 0], "drive B is not there")
        #expect(bench.command(0x08) == [0x80], "nothing more to sense")
    }

    @Test func relativeAndImpliedSeeksMoveTheHead() {
        let bench = Bench()
        bench.enable()
        bench.seek(10)
        bench.send([0xCF, 0, 5])
        #expect(bench.command(0x08) == [0x20, 15])
        bench.send([0x8F, 0, 200])
        #expect(bench.command(0x08) == [0x20, 0])
        _ = bench.command(0x13, 0, 0x60, 0)
        bench.setUpDMA(0x8000, byteCount: 512)
        #expect(bench.command(0xE6, 0, 33, 0, 1, 2, 18, 0x1B, 0xFF)[0] == 0x00 && bench.command(0x0E)[0] == 33)
    }

    @Test func resetEndsATransferWhoseSectorComesTooLate() {
        let image = MemoryImage(isSlow: true), bench = Bench(image)
        bench.enable()
        bench.setUpDMA(0x8000, byteCount: 512)
        bench.send([0xE6, 0, 0, 0, 2, 2, 18, 0x1B, 0xFF])
        #expect(bench.read(0x3F4) == 0x10 && !bench.wire.level)
        bench.out(0x3F2, 0x18)
        #expect(bench.read(0x3F4) == 0x00)
        bench.out(0x3F2, 0x1C)
        #expect(image.finishOne() && bench.memory.read(0x8000, byteCount: 2) == [0, 0])
        for drive in UInt8(0)..<4 { #expect(bench.command(0x08) == [0xC0 | drive, 0]) }
        bench.send([0xE6, 0, 0, 0, 2, 2, 18, 0x1B, 0xFF])
        #expect(
            image.finishOne() && bench.wire.level && bench.result()[0] == 0x00
                && bench.memory.read(0x8000, byteCount: 1) == [1])
    }

    @Test func interruptIsHeldBackByTheOutputRegister() {
        let bench = Bench()
        bench.out(0x3F2, 0x00)
        bench.out(0x3F2, 0x04)
        #expect(!bench.wire.level)
        bench.out(0x3F2, 0x0C)
        #expect(bench.wire.level && bench.read(0x3F0) == 0xFF && bench.read(0x3F2) == 0x0C)
    }

    @Test func stateSurvivesATransferEndsWithAnOverrunAndATruncatedOneIsRefused() throws {
        let bench = Bench(MemoryImage(isSlow: true)), copy = Bench()
        bench.enable()
        bench.seek(4)
        bench.setUpDMA(0x8000, byteCount: 512)
        bench.send([0xE6, 0, 4, 0, 2, 2, 18, 0x1B])
        let half = savedBytes(bench.device)
        #expect(try restore(half, into: copy.device) == 0 && savedBytes(copy.device) == half)
        copy.setUpDMA(0x8000, byteCount: 512)
        #expect(copy.command(0xFF)[0] == 0x00, "the command goes on with its last byte")
        bench.send([0xFF])
        let saved = savedBytes(bench.device)
        #expect(try restore(saved, into: copy.device) == 0)
        #expect(copy.wire.level && copy.result()[..<2] == [0x40, 0x10])
        for count in 0..<saved.count {
            #expect(throws: DeviceStateError.self) { try restore(Array(saved[..<count]), into: copy.device) }
        }
        copy.device.reset()
        #expect(!copy.wire.level && copy.read(0x3F4) == 0x80)
    }

    @Test(arguments: UInt64(1)...8)
    func randomAccessesLeaveAControllerThatReads(seed: UInt64) throws {
        var random = Seeded(seed)
        let image = MemoryImage(isReadOnly: seed % 2 == 0, isSlow: seed % 3 == 0), bench = Bench(image)
        let commands: [UInt64] = [
            0xE6, 0xC5, 0x4D, 0x4A, 0x07, 0x08, 0x0F, 0xCF, 0x03, 0x04, 0x0E, 0x13, 0x14, 0x94, 0xF6,
        ]
        for _ in 0..<4000 {
            switch random.next() % 8 {
            case 0: bench.out(0x3F5, random.next() & 0xFF)
            case 1: bench.out(0x3F5, commands.randomElement(using: &random)!)
            case 2: bench.out(0x3F5, random.next() % 3)
            case 3: _ = bench.read(0x3F5)
            case 4: if random.next() % 8 == 0 { bench.out(0x3F0 + UInt16(random.next() % 8), random.next() & 0xFF) }
            case 5:
                bench.setUpDMA(
                    random.next() & 0xFFFFFF, byteCount: random.next() % 2000 + 1, isWrite: random.next() % 2 == 0)
            case 6: _ = image.finishOne()
            default: _ = bench.read(0x3F0 + UInt16(random.next() % 8))
            }
            if random.next() % 200 == 0 { _ = try restore(savedBytes(bench.device), into: bench.device) }
        }
        var state = savedBytes(bench.device)
        for index in state.indices where random.next() % 8 == 0 {
            state[index] = UInt8(truncatingIfNeeded: random.next())
        }
        _ = try? restore(state, into: bench.device)
        for _ in 0..<100 { bench.out(0x3F5, random.next() & 0xFF) }
        bench.device.reset()
        while image.finishOne() {}
        bench.enable()
        bench.setUpDMA(0x8000, byteCount: 512)
        bench.send([0xE6, 0, 0, 0, 2, 2, 18, 0x1B, 0xFF])
        _ = image.finishOne()
        #expect(bench.result()[0] == 0x00)
    }
}
