import Foundation
import GuestMemory
import HostSystem
import MachineCore
import MachineTesting
import PCI
import Synchronization
import Testing

@testable import Storage

/// Takes the ports that BAR 4 is mapped at.
private final class PortSpace: PCIAddressSpace {
    let device = Mutex<(any BusDevice)?>(nil)
    func map(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) {}
    func unmap(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) {}
    func mapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16) { device.withLock { $0 = window } }
    func unmapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16) { device.withLock { $0 = nil } }
}

/// Two disks on channel 0, a CD as master of channel 1, driven as SeaBIOS's ata.c and libata do.
private final class IDEBench {
    let memory: GuestMemory
    let disks: [TestDisk]
    let disc: TestDisk
    let thread: LoopThread
    let lines = (RecordedLine(), RecordedLine())
    let endpoint: PCIEndpoint
    let ide: IDEController
    private let space = PortSpace()
    let master: any BusDevice
    var channel = 0

    static let regions: UInt64 = 0x1_0000
    static let data: UInt64 = 0x10_0000

    init(sectors: Int = 4096, discBlocks: Int = 300) throws {
        thread = try LoopThread()
        memory = try GuestMemory(byteCount: 4 << 20)
        disks = [try TestDisk(byteCount: sectors * 512), try TestDisk(byteCount: 1024 * 512)]
        disc = try TestDisk(byteCount: discBlocks * 2048)
        endpoint = try IDEController.makeEndpoint(name: "ide")
        ide = try IDEController(
            endpoint, memory: memory,
            drives: [
                [.disk(disks[0].image, testIdentity), .disk(disks[1].image, DriveIdentity(serial: "slave"))],
                [.optical(disc.image, testIdentity)],
            ],
            lines: lines, loop: thread.loop)
        endpoint.connect(to: space)
        endpoint.writeConfiguration(offset: 0x20, width: .doubleWord, value: 0xC000)
        endpoint.writeConfiguration(offset: 4, width: .word, value: 5)
        master = try #require(space.device.withLock { $0 })
    }

    var line: RecordedLine { channel == 0 ? lines.0 : lines.1 }
    func inb(_ register: UInt64) -> UInt8 {
        UInt8(ide.commandBlock(channel).read(offset: register, width: .byte) & 0xFF)
    }
    func outb(_ register: UInt64, _ value: UInt8) {
        ide.commandBlock(channel).write(offset: register, width: .byte, value: UInt64(value))
    }
    var alternate: UInt8 { UInt8(ide.controlBlock(channel).read(offset: 0, width: .byte)) }
    func control(_ value: UInt8) { ide.controlBlock(channel).write(offset: 0, width: .byte, value: UInt64(value)) }
    func masterRead(_ register: UInt64) -> UInt8 {
        UInt8(master.read(offset: UInt64(channel) * 8 + register, width: .byte))
    }
    func masterWrite(_ register: UInt64, _ value: UInt64, _ width: AccessWidth = .byte) {
        master.write(offset: UInt64(channel) * 8 + register, width: width, value: value)
    }

    func waitNotBusy() -> UInt8 {
        _ = eventually { alternate & 0x80 == 0 }
        return alternate
    }

    /// SeaBIOS's send_cmd.
    func send(
        _ command: UInt8, features: UInt8 = 0, count: UInt16 = 0, lba: UInt64 = 0, drive: UInt8 = 0,
        isExtended: Bool = false
    ) {
        outb(6, 0xE0 | drive << 4 | (isExtended ? 0 : UInt8(lba >> 24 & 0xF)))
        if isExtended {
            outb(1, 0)
            outb(2, UInt8(count >> 8))
            for index in 0..<3 { outb(3 + UInt64(index), UInt8(lba >> UInt64(24 + 8 * index) & 0xFF)) }
        }
        outb(1, features)
        outb(2, UInt8(count & 0xFF))
        for index in 0..<3 { outb(3 + UInt64(index), UInt8(lba >> UInt64(8 * index) & 0xFF)) }
        outb(7, command)
    }

    /// rep insw (or insd).
    func readPort(_ count: Int, width: AccessWidth = .word) -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count {
            let value = ide.commandBlock(channel).read(offset: 0, width: width)
            for index in 0..<width.byteCount { bytes.append(UInt8(value >> UInt64(8 * index) & 0xFF)) }
        }
        return bytes
    }
    func writePort(_ bytes: [UInt8]) {
        for index in stride(from: 0, to: bytes.count, by: 2) {
            ide.commandBlock(channel).write(
                offset: 0, width: .word, value: UInt64(bytes[index]) | UInt64(bytes[index + 1]) << 8)
        }
    }

    /// libata's bmdma_setup and bmdma_start, then the wait for the interrupt; the bus master's and the drive's status.
    func dma(toMemory: Bool, regions: [(UInt64, Int)], _ command: () -> Void) -> (master: UInt8, drive: UInt8) {
        for (index, region) in regions.enumerated() {
            memory.put(UInt32(region.0), Self.regions + UInt64(index) * 8)
            memory.put(
                UInt32(region.1 & 0xFFFF) | (index == regions.count - 1 ? 1 << 31 : 0),
                Self.regions + UInt64(index) * 8 + 4)
        }
        masterWrite(4, Self.regions, .doubleWord)
        masterWrite(0, toMemory ? 8 : 0)
        masterWrite(2, 6)
        command()
        masterWrite(0, toMemory ? 9 : 1)
        _ = eventually { line.isHigh }
        let status = masterRead(2)
        masterWrite(0, 0)
        return (status, inb(7))
    }

    /// An ATAPI command by programmed I/O, pieces of at most `limit`.
    func packet(_ bytes: [UInt8], limit: Int = 2048) -> (data: [UInt8], status: UInt8, error: UInt8) {
        outb(6, 0xA0)
        outb(1, 0)
        outb(4, UInt8(limit & 0xFF))
        outb(5, UInt8(limit >> 8))
        outb(7, 0xA0)
        #expect(waitNotBusy() & 0x08 != 0 && inb(2) & 3 == 1)
        writePort(bytes + [UInt8](repeating: 0, count: 12 - bytes.count))
        var data: [UInt8] = []
        while waitNotBusy() & 0x08 != 0, data.count < 1 << 20 {
            #expect(inb(2) & 3 == 2)
            let count = Int(inb(4)) | Int(inb(5)) << 8
            #expect(count > 0 && count <= limit)
            data += readPort(count).prefix(count)
        }
        #expect(inb(2) & 3 == 3)
        return (data, inb(7), inb(1))
    }
}

@Suite struct IDETests {
    @Test func registersEchoAndMissingDrivesDoNot() throws {
        let bench = try IDEBench()
        #expect(bench.endpoint.readConfiguration(offset: 0, width: .doubleWord) == 0x7010_8086)
        #expect(bench.endpoint.readConfiguration(offset: 8, width: .doubleWord) >> 8 == 0x01_01_80)
        #expect(bench.endpoint.readConfiguration(offset: 0x41, width: .byte) & 0x80 != 0)
        for drive: UInt8 in [0xA0, 0xB0] {
            bench.outb(6, drive)
            bench.outb(2, 0x55)
            bench.outb(3, 0xAA)
            #expect(bench.inb(2) == 0x55 && bench.inb(3) == 0xAA && bench.inb(6) == drive && bench.inb(7) == 0x50)
        }
        bench.channel = 1
        bench.outb(6, 0xB0)
        bench.outb(2, 0x55)
        #expect(bench.inb(2) == 0 && bench.inb(7) == 0 && bench.inb(6) == 0xB0)
    }

    @Test func softResetShowsSignatures() throws {
        let bench = try IDEBench()
        for channel in 0..<2 {
            bench.channel = channel
            bench.control(0x0E)
            #expect(bench.alternate & 0x80 != 0)
            bench.control(0x0A)
            _ = bench.waitNotBusy()
            #expect(bench.inb(2) == 1 && bench.inb(3) == 1 && bench.inb(1) == 1)
            #expect(bench.inb(4) == (channel == 0 ? 0 : 0x14) && bench.inb(5) == (channel == 0 ? 0 : 0xEB))
            bench.control(8)
        }
    }

    @Test func identifyByPortOfBothDrives() throws {
        let bench = try IDEBench()
        bench.send(0xEC)
        #expect(bench.waitNotBusy() & 0x08 != 0 && bench.line.isHigh)
        #expect(bench.inb(7) == 0x58 && !bench.line.isHigh)
        let data = bench.readPort(512)
        #expect(identifyText(data, word: 10, count: 10).hasPrefix("serial-0001 "))
        #expect(word(data, 93) == 0x6001 && word(data, 76) == 0 && word(data, 60) == 4096)
        #expect(bench.alternate == 0x50 && !bench.line.isHigh)
        bench.send(0xEC, drive: 1)
        #expect(bench.waitNotBusy() & 0x08 != 0)
        let second = bench.readPort(512, width: .doubleWord)
        #expect(identifyText(second, word: 10, count: 10).hasPrefix("slave ") && word(second, 60) == 1024)
        bench.channel = 1
        bench.send(0xEC)
        #expect(bench.waitNotBusy() & 1 == 1 && bench.inb(4) == 0x14 && bench.inb(5) == 0xEB)
        bench.send(0xA1)
        #expect(bench.waitNotBusy() & 0x08 != 0)
        #expect(word(bench.readPort(512), 0) == 0x85C0)
    }

    @Test func sectorsByPortOneAndManyAtATime() throws {
        let bench = try IDEBench()
        let bytes = pattern(4096)
        bench.send(0x30, count: 8, lba: 77)
        for sector in 0..<8 {
            #expect(bench.waitNotBusy() & 0x08 != 0)
            bench.writePort(Array(bytes[(sector * 512)..<(sector * 512 + 512)]))
        }
        #expect(bench.waitNotBusy() == 0x50)
        #expect(bench.disks[0].bytes(at: 77 * 512, count: 4096) == bytes)
        _ = bench.inb(7)
        bench.send(0x20, count: 8, lba: 77)
        var read: [UInt8] = []
        for sector in 0..<8 {
            #expect(eventually { bench.line.isHigh })
            #expect(bench.inb(7) & 0x89 == 0x08)
            read += bench.readPort(512)
            if sector == 7 { #expect(bench.alternate == 0x50) }
        }
        #expect(read == bytes)
        bench.send(0xC4, count: 8, lba: 77)
        #expect(bench.waitNotBusy() & 1 == 1 && bench.inb(1) == 4)  // no SET MULTIPLE yet
        bench.send(0xC6, count: 3)
        #expect(bench.waitNotBusy() & 1 == 1)
        bench.send(0xC6, count: 4)
        #expect(bench.waitNotBusy() == 0x50)
        bench.send(0x29, count: 6, lba: 77, isExtended: true)
        #expect(bench.waitNotBusy() & 0x08 != 0)
        var blocks = bench.readPort(2048)
        #expect(bench.waitNotBusy() & 0x08 != 0)
        blocks += bench.readPort(1024)
        #expect(bench.waitNotBusy() == 0x50 && blocks == Array(bytes[..<3072]))
        bench.send(0x20, count: 1, lba: 4096)
        #expect(bench.waitNotBusy() & 1 == 1 && bench.inb(1) == 0x10)
    }

    @Test func directMemoryAccessMovesScatteredRegions() throws {
        let bench = try IDEBench()
        let bytes = pattern(128 << 10)
        bench.memory.set(bytes, IDEBench.data)
        let out = bench.dma(
            toMemory: false,
            regions: [
                (IDEBench.data, 0x1_0000), (IDEBench.data + 0x1_0000, 0x8000), (IDEBench.data + 0x1_8000, 0x8000),
            ]
        ) {
            bench.send(0x35, count: 256, lba: 300, isExtended: true)
        }
        #expect(out.master & 7 == 4 && out.drive == 0x50)
        #expect(bench.disks[0].bytes(at: 300 * 512, count: bytes.count) == bytes)
        let back = bench.dma(toMemory: true, regions: [(0x20_0000, 0x8002), (0x22_0000, 0x7FFE), (0x24_0000, 0)]) {
            bench.send(0xC8, count: 0, lba: 300)
        }
        #expect(back.master & 7 == 4 && back.drive == 0x50)
        #expect(
            bench.memory.get(0x20_0000, 0x8002) + bench.memory.get(0x22_0000, 0x7FFE)
                + bench.memory.get(0x24_0000, 0x1_0000) == bytes)
        // Started before the command, as some drivers do.
        bench.masterWrite(2, 6)
        bench.masterWrite(0, 9)
        bench.send(0xC8, count: 0, lba: 300)
        #expect(eventually { bench.masterRead(2) & 4 != 0 })
        bench.masterWrite(0, 0)
        _ = bench.inb(7)
        let bad = bench.dma(toMemory: true, regions: [(0xF000_0000, 512)]) { bench.send(0xC8, count: 1) }
        #expect(bad.master & 6 == 6 && bad.drive & 1 == 1)
        bench.memory.set([UInt8](repeating: 0, count: 512), IDEBench.data)
        bench.memory.put(UInt64(300) | 8 << 48, IDEBench.data)
        let trim = bench.dma(toMemory: false, regions: [(IDEBench.data, 512)]) {
            bench.send(0x06, features: 1, count: 1, isExtended: true)
        }
        #expect(trim.drive == 0x50)
        #expect(bench.disks[0].bytes(at: 300 * 512, count: 4096) == [UInt8](repeating: 0, count: 4096))
    }

    @Test func highOrderBytesAndNativeSize() throws {
        let bench = try IDEBench()
        bench.outb(2, 0x12)
        bench.outb(2, 0x34)
        #expect(bench.inb(2) == 0x34)
        bench.control(0x80)
        #expect(bench.inb(2) == 0x12)
        bench.send(0xF8)
        #expect(bench.waitNotBusy() == 0x50)
        #expect(UInt16(bench.inb(3)) | UInt16(bench.inb(4)) << 8 == 4095)
        bench.send(0xE7)
        #expect(bench.waitNotBusy() == 0x50 && bench.line.isHigh)
        bench.control(2)
        #expect(!bench.line.isHigh)
        bench.control(0)
        #expect(bench.line.isHigh)
    }

    @Test func packetsByPortAndDMA() throws {
        let bench = try IDEBench()
        let bytes = pattern(300 * 2048)
        bench.disc.set(bytes, at: 0)
        bench.channel = 1
        #expect(bench.packet([0]).status & 1 == 0)
        #expect(bench.packet([0x25], limit: 8).data == [0, 0, 1, 0x2B, 0, 0, 8, 0])
        #expect(bench.packet([0x28, 0, 0, 0, 0, 16, 0, 0, 3]).data == Array(bytes[(16 * 2048)..<(19 * 2048)]))
        // More than the drive's buffer, in pieces that do not divide a block.
        #expect(bench.packet([0xA8, 0, 0, 0, 0, 0, 0, 0, 0, 40], limit: 3000).data == Array(bytes[..<(40 * 2048)]))
        let inquiry = bench.packet([0x12, 0, 0, 0, 36], limit: 0xFFFE)
        #expect(inquiry.data.count == 36 && inquiry.data[0] == 5 && inquiry.data[1] == 0x80)
        let failed = bench.packet([0x28, 0, 0, 0, 9, 0, 0, 0, 1])
        #expect(failed.status & 1 == 1 && failed.error >> 4 == 5)
        let sense = bench.packet([3, 0, 0, 0, 18])
        #expect(sense.data[2] == 5 && sense.data[12] == 0x21)
        let moved = bench.dma(toMemory: true, regions: [(IDEBench.data, 8192)]) {
            bench.send(0xA0, features: 1)
            bench.writePort([0x28, 0, 0, 0, 0, 20, 0, 0, 4, 0, 0, 0])
        }
        #expect(moved.master & 7 == 4 && moved.drive & 1 == 0)
        #expect(bench.memory.get(IDEBench.data, 8192) == Array(bytes[(20 * 2048)..<(24 * 2048)]))
        // MODE SELECT takes its parameters through the port.
        bench.send(0xA0, lba: 0x08_00_00)
        bench.writePort([0x55, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0])
        #expect(bench.waitNotBusy() & 0x08 != 0 && bench.inb(2) & 3 == 0)
        bench.writePort([UInt8](repeating: 0, count: 16))
        #expect(bench.waitNotBusy() & 0x89 == 0)
    }

    @Test func hostFailuresAreMediumErrors() throws {
        let bench = try IDEBench()
        ftruncate(bench.disks[0].descriptor, 4096)
        bench.send(0x20, count: 1, lba: 1000)
        #expect(bench.waitNotBusy() & 1 == 1 && bench.inb(1) == 0x40)
        let failed = bench.dma(toMemory: true, regions: [(IDEBench.data, 512)]) {
            bench.send(0xC8, count: 1, lba: 1000)
        }
        #expect(failed.master & 7 == 4 && failed.drive & 1 == 1)
    }

    @Test func savedInTheMiddleOfASector() throws {
        let bench = try IDEBench()
        bench.disks[0].set(pattern(1024), at: 0)
        bench.send(0x20, count: 2)
        #expect(bench.waitNotBusy() & 0x08 != 0)
        let first = bench.readPort(300)
        #expect(bench.ide.pause())
        var endpointWriter = StateWriter(), writer = StateWriter()
        bench.endpoint.saveState(into: &endpointWriter)
        bench.ide.saveState(into: &writer)
        let other = try IDEBench()
        other.disks[0].set(pattern(1024), at: 0)
        #expect(other.ide.pause())
        var reader = StateReader(section: "ide", bytes: writer.bytes)
        try other.ide.restoreState(from: &reader, version: 1)
        #expect(reader.remaining == 0 && other.line.isHigh)
        other.ide.resume()
        let second = other.readPort(212)
        #expect(other.waitNotBusy() & 0x08 != 0)
        #expect(first + second + other.readPort(512) == pattern(1024))
        for length in stride(from: 0, to: writer.bytes.count, by: 9) {
            var short = StateReader(section: "ide", bytes: Array(writer.bytes.prefix(length)))
            #expect(throws: DeviceStateError.self) { try other.ide.restoreState(from: &short, version: 1) }
        }
        // The same transfer of a disk that is shorter: at the job's place is none of its bytes.
        let short = try IDEBench(sectors: 1)
        #expect(short.ide.pause())
        var whole = StateReader(section: "ide", bytes: writer.bytes)
        #expect(throws: DeviceStateError.self) { try short.ide.restoreState(from: &whole, version: 1) }
        bench.ide.resume()
    }

    @Test(arguments: 0..<8)
    func randomPortsDoNotTrap(seed: UInt64) throws {
        let bench = try IDEBench()
        var random = SplitMix(seed)
        let widths: [AccessWidth] = [.byte, .word, .doubleWord, .quadWord]
        let commands: [UInt8] = [
            0x20, 0x30, 0x24, 0x34, 0x25, 0x35, 0xC8, 0xCA, 0xC4, 0xC5, 0xC6, 0xEC, 0xA0, 0xA1, 0x08, 0x90, 0x06, 0xE7,
            0xB0, 0xEF,
        ]
        for round in 0..<20_000 {
            bench.channel = Int(random.next() % 2)
            switch random.next() % 12 {
            case 0...2: bench.outb(random.next() % 7, UInt8(random.next() & 0xFF))
            case 3:
                bench.outb(
                    7,
                    random.next() % 4 == 0
                        ? UInt8(random.next() & 0xFF) : commands[Int(random.next() % UInt64(commands.count))])
            case 4: bench.control(UInt8(random.next() & 0xFF))
            case 5: bench.masterWrite(random.next() % 16, random.next() & 0xFFFF_FFFF, widths[Int(random.next() % 3)])
            case 6: bench.masterWrite(4, IDEBench.regions, .doubleWord)
            case 7: bench.memory.put(random.next() & 0x8000_FFFF_003F_FFFF, IDEBench.regions + random.next() % 8 * 8)
            case 8: bench.masterWrite(0, random.next() % 16)
            case 9:
                for _ in 0..<(random.next() % 600) {
                    _ = bench.ide.commandBlock(bench.channel).read(offset: 0, width: widths[Int(random.next() % 4)])
                }
            case 10:
                for _ in 0..<(random.next() % 600) {
                    bench.ide.commandBlock(bench.channel).write(
                        offset: 0, width: widths[Int(random.next() % 4)], value: random.next())
                }
            default:
                _ = bench.ide.commandBlock(bench.channel).read(
                    offset: random.next() % 9, width: widths[Int(random.next() % 4)])
            }
            if round % 2000 == 0 {
                #expect(bench.ide.pause())
                var writer = StateWriter()
                bench.ide.saveState(into: &writer)
                var reader = StateReader(section: "ide", bytes: writer.bytes)
                try bench.ide.restoreState(from: &reader, version: 1)
                bench.ide.resume()
            }
        }
        bench.endpoint.reset()
        bench.channel = 0
        bench.send(0xEC)
        #expect(bench.waitNotBusy() & 0x08 != 0)
        #expect(identifyText(bench.readPort(512), word: 10, count: 10).hasPrefix("serial-0001 "))
    }
}
