import Foundation
import GuestMemory
import HostSystem
import MachineCore
import MachineTesting
import PCI
import Testing

@testable import Storage

/// An adapter with a disk on port 0 and a CD on port 1, driven as drivers do: registers, command list, FISes.
private final class AHCIBench {
    let memory: GuestMemory
    let disk: TestDisk
    let disc: TestDisk
    let thread: LoopThread
    let line = RecordedLine()
    let messages = RecordedInterrupts()
    let endpoint: PCIEndpoint
    let ahci: AHCIController

    static let table: UInt64 = 0x2_0000  // of slot n: + 0x1000 n
    static let data: UInt64 = 0x10_0000

    init(sectors: Int = 4096, isReadOnly: Bool = false, starts: Bool = true) throws {
        thread = try LoopThread()
        memory = try GuestMemory(byteCount: 16 << 20)
        disk = try TestDisk(byteCount: sectors * 512, isReadOnly: isReadOnly)
        disc = try TestDisk(byteCount: 300 * 2048)
        endpoint = try AHCIController.makeEndpoint(name: "ahci", line: line, message: messages)
        ahci = try AHCIController(
            endpoint, memory: memory,
            drives: [0: .disk(disk.image, testIdentity), 1: .optical(disc.image, testIdentity)], loop: thread.loop)
        if starts {
            endpoint.writeConfiguration(offset: 4, width: .word, value: 6)
            for port in 0..<2 { start(port) }
            self[4] = 1 << 31 | 2
        }
    }

    subscript(offset: UInt64) -> UInt32 {
        get { UInt32(ahci.read(offset: offset, width: .doubleWord)) }
        set { ahci.write(offset: offset, width: .doubleWord, value: UInt64(newValue)) }
    }
    subscript(port: Int, register: AHCIPortRegister) -> UInt32 {
        get { self[0x100 + UInt64(port) * 0x80 + register.rawValue] }
        set { self[0x100 + UInt64(port) * 0x80 + register.rawValue] = newValue }
    }

    func list(_ port: Int) -> UInt64 { 0x1_0000 + UInt64(port) * 0x1000 }
    func fis(_ port: Int) -> UInt64 { 0x1_8000 + UInt64(port) * 0x1000 }

    /// SeaBIOS's ahci_port_setup.
    func start(_ port: Int) {
        self[port, .commandListBase] = UInt32(list(port))
        self[port, .fisBase] = UInt32(fis(port))
        self[port, .command] = self[port, .command] | 1 << 4
        self[port, .command] = self[port, .command] | 6 | 1 << 28
        self[port, .sataError] = self[port, .sataError]
        self[port, .command] = self[port, .command] | 1
        self[port, .interruptEnable] = 0x7DC0_00FF
    }

    /// Lays a command down in a slot.
    func lay(
        _ port: Int, slot: Int = 0, command: UInt8, features: UInt16 = 0, lba: UInt64 = 0, count: UInt16 = 0,
        device: UInt8 = 0x40,
        regions: [(UInt64, Int)] = [], isWrite: Bool = false, packet: [UInt8]? = nil, isCommand: Bool = true,
        control: UInt8 = 0, flags: UInt32 = 0
    ) {
        let table = Self.table + UInt64(port) * 0x4_0000 + UInt64(slot) * 0x1000
        let header = list(port) + UInt64(slot) * 32
        memory.put(
            5 | (packet != nil ? 1 << 5 : 0) | (isWrite ? 1 << 6 : 0) | UInt32(regions.count) << 16 | flags, header)
        memory.put(UInt32(0), header + 4)
        memory.put(UInt32(table), header + 8)
        memory.put(UInt32(0), header + 12)
        let low = { (word: UInt16) in UInt8(word & 0xFF) }
        let byte = { (index: UInt64) in UInt8(lba >> (8 * index) & 0xFF) }
        memory.set(
            [
                0x27, isCommand ? 0x80 : 0, command, low(features), byte(0), byte(1), byte(2), device, byte(3), byte(4),
                byte(5), UInt8(features >> 8),
                low(count), UInt8(count >> 8), 0, control, 0, 0, 0, 0,
            ], table)
        if let packet { memory.set(packet + [UInt8](repeating: 0, count: 16 - packet.count), table + 0x40) }
        for (index, region) in regions.enumerated() {
            memory.put(region.0, table + 0x80 + UInt64(index) * 16)
            memory.put(UInt32(0), table + 0x88 + UInt64(index) * 16)
            memory.put(UInt32(truncatingIfNeeded: region.1 - 1), table + 0x8C + UInt64(index) * 16)
        }
    }

    func byteCount(_ port: Int, slot: Int = 0) -> UInt32 { memory.word(list(port) + UInt64(slot) * 32 + 4) }

    /// Issues slot 0 and polls as SeaBIOS's ahci_command does; returns status and error.
    func run(_ port: Int) -> (status: UInt8, error: UInt8)? {
        self[port, .interruptStatus] = self[port, .interruptStatus]
        self[port, .commandIssue] = 1
        var result: (UInt8, UInt8)?
        _ = eventually {
            let bits = self[port, .interruptStatus]
            guard bits != 0 else { return false }
            self[port, .interruptStatus] = bits
            if bits & 0x4000_0000 != 0 {
                let file = self[port, .taskFileData]
                result = (UInt8(file & 0xFF), UInt8(file >> 8 & 0xFF))
            } else if bits & 0x02 != 0 {
                let bytes = memory.get(fis(port) + 0x20, 4)
                result = (bytes[2], bytes[3])
            } else if bits & 0x01 != 0 {
                let bytes = memory.get(fis(port) + 0x40, 4)
                result = (bytes[2], bytes[3])
            }
            return result != nil
        }
        return result
    }

    /// Non-queued error recovery (§6.2.2.1).
    func recover(_ port: Int) -> Bool {
        self[port, .command] &= ~1
        guard eventually({ self[port, .command] & 1 << 15 == 0 }) else { return false }
        self[port, .sataError] = self[port, .sataError]
        self[port, .interruptStatus] = self[port, .interruptStatus]
        self[port, .command] |= 1
        return true
    }
}

@Suite struct AHCITests {
    @Test func headerAndHostRegistersAreAnICH9s() throws {
        let bench = try AHCIBench(starts: false)
        #expect(bench.endpoint.readConfiguration(offset: 0, width: .doubleWord) == 0x2922_8086)
        #expect(bench.endpoint.readConfiguration(offset: 8, width: .doubleWord) >> 8 == 0x01_06_01)
        #expect(bench[0] & 0x1F == 5 && bench[0] >> 8 & 0x1F == 31 && bench[0] & 1 << 30 != 0)
        #expect(bench[0x0C] == 0x3F && bench[4] == 1 << 31)
        #expect(bench[0, .sataStatus] == 0x123 && bench[2, .sataStatus] == 0)
        #expect(bench[0, .signature] == 0xFFFF_FFFF && bench[0, .taskFileData] == 0x7F)
        var offset = Int(bench.endpoint.readConfiguration(offset: 0x34, width: .byte)), seen: [UInt64] = []
        while offset != 0, seen.count < 8 {
            seen.append(bench.endpoint.readConfiguration(offset: offset, width: .byte))
            offset = Int(bench.endpoint.readConfiguration(offset: offset + 1, width: .byte))
        }
        #expect(seen == [0x12, 0x05])
    }

    @Test func signaturesTellDiskAndDiscApart() throws {
        let bench = try AHCIBench()
        #expect(bench[0, .signature] == 0x0000_0101 && bench[1, .signature] == 0xEB14_0101)
        #expect(bench.memory.get(bench.fis(0) + 0x40, 1) == [0x34])
        #expect(bench[0, .taskFileData] & 0x88 == 0)
    }

    @Test func theBIOSFindsADiskByFailingToIdentifyAPacketDevice() throws {
        let bench = try AHCIBench()
        bench.lay(0, command: 0xA1, regions: [(AHCIBench.data, 512)])
        let refused = try #require(bench.run(0))
        #expect(refused.status & 0x41 == 0x41 && refused.error == 4)
        #expect(bench[0, .commandIssue] == 1)
        #expect(bench.recover(0))
        #expect(bench[0, .commandIssue] == 0)
        bench.lay(0, command: 0xEC, regions: [(AHCIBench.data, 512)])
        let status = try #require(bench.run(0)).status
        #expect(status & 0xE9 == 0x48)  // PIO Setup FIS: RDY and DRQ, neither BSY, DF nor ERR
        #expect(bench.memory.get(bench.fis(0) + 0x20 + 15, 1) == [0x50])
        #expect(bench[0, .taskFileData] & 0xFF == 0x50)
        #expect(bench.byteCount(0) == 512)
        let data = bench.memory.get(AHCIBench.data, 512)
        #expect(identifyText(data, word: 27, count: 20).hasPrefix("APUS TESTDISK "))
        #expect(identifyText(data, word: 10, count: 10).hasPrefix("serial-0001 "))
        #expect(
            word(data, 100) == 4096 && word(data, 60) == 4096 && word(data, 76) & 0x100 != 0 && word(data, 75) == 31)
        #expect(data.reduce(0, &+) == 0)
        // SET FEATURES with a region of no bytes: 4 MiB at address 0, which must not matter.
        bench.lay(0, command: 0xEF, features: 3, count: 0x45, regions: [(0, 0)])
        #expect(try #require(bench.run(0)).status == 0x50)
    }

    @Test func sectorsGoThroughSeveralRegions() throws {
        let bench = try AHCIBench()
        let bytes = pattern(8192)
        bench.memory.set(Array(bytes[..<1000]), 0x20_0002)
        bench.memory.set(Array(bytes[1000..<5000]), 0x21_0000)
        bench.memory.set(Array(bytes[5000...]), 0x22_0000)
        bench.lay(
            0, command: 0x35, lba: 100, count: 16, regions: [(0x20_0002, 1000), (0x21_0000, 4000), (0x22_0000, 4192)],
            isWrite: true)
        #expect(try #require(bench.run(0)).status == 0x50)
        #expect(bench.disk.bytes(at: 100 * 512, count: 8192) == bytes)
        #expect(bench.byteCount(0) == 8192)
        bench.lay(0, command: 0x25, lba: 100, count: 16, regions: [(0x30_0000, 3000), (0x31_0000, 5192)])
        #expect(try #require(bench.run(0)).status == 0x50)
        #expect(bench.memory.get(0x30_0000, 3000) + bench.memory.get(0x31_0000, 5192) == bytes)
        bench.lay(0, command: 0xEA)
        #expect(try #require(bench.run(0)).status == 0x50)
        let values = try #require(bench.ahci.counters(port: 0)).values
        #expect(values.readBytes == 8192 && values.writeBytes == 8192 && values.flushRequests == 1)
    }

    @Test func moreRegionsThanOneRequestTakesAreSplit() throws {
        let bench = try AHCIBench()
        bench.disk.set(pattern(64 << 10), at: 0)
        // 1024 pieces of 64 bytes with gaps between them.
        let regions = (0..<1024).map { (UInt64(0x40_0000 + $0 * 128), 64) }
        let table = AHCIBench.table + 0x10_0000
        bench.lay(0, command: 0x25, count: 128, regions: [])
        let header = bench.list(0)
        bench.memory.put(UInt32(5 | 1024 << 16), header)
        bench.memory.put(UInt32(table), header + 8)
        bench.memory.set(bench.memory.get(AHCIBench.table, 20), table)
        for (index, region) in regions.enumerated() {
            bench.memory.put(region.0, table + 0x80 + UInt64(index) * 16)
            bench.memory.put(UInt32(region.1 - 1), table + 0x8C + UInt64(index) * 16)
        }
        #expect(try #require(bench.run(0)).status == 0x50)
        let read = regions.flatMap { bench.memory.get($0.0, 64) }
        #expect(read == pattern(64 << 10))
    }

    @Test func queuedCommandsEndInSetDeviceBits() throws {
        let bench = try AHCIBench()
        for slot in 0..<32 {
            bench.memory.set(pattern(4096, seed: slot), AHCIBench.data + UInt64(slot) * 4096)
            bench.lay(
                0, slot: slot, command: 0x61, features: 8, lba: UInt64(slot) * 8, count: UInt16(slot) << 3,
                regions: [(AHCIBench.data + UInt64(slot) * 4096, 4096)], isWrite: true)
        }
        bench[0, .sataActive] = .max
        bench[0, .commandIssue] = .max
        #expect(eventually { bench[0, .sataActive] == 0 })
        #expect(bench[0, .commandIssue] == 0 && bench[0, .interruptStatus] & 8 != 0)
        #expect(bench.memory.get(bench.fis(0) + 0x58, 3) == [0xA1, 0x40, 0x50])
        for slot in 0..<32 { #expect(bench.disk.bytes(at: slot * 4096, count: 4096) == pattern(4096, seed: slot)) }
    }

    @Test func aFailedQueuedCommandIsInLog10() throws {
        let bench = try AHCIBench()
        bench.lay(
            0, slot: 5, command: 0x60, features: 8, lba: 1 << 40, count: 5 << 3, regions: [(AHCIBench.data, 4096)])
        bench[0, .sataActive] = 1 << 5
        bench[0, .commandIssue] = 1 << 5
        #expect(eventually { bench[0, .interruptStatus] & 0x4000_0000 != 0 })
        #expect(bench[0, .sataActive] == 1 << 5)
        #expect(bench.recover(0))
        #expect(bench[0, .sataActive] == 0)
        bench.lay(0, command: 0x2F, lba: 0x10, count: 1, regions: [(AHCIBench.data, 512)])
        #expect(bench.run(0) != nil)
        let log = bench.memory.get(AHCIBench.data, 512)
        #expect(log[0] == 5 && log[2] & 1 == 1 && log[3] == 0x10 && log.reduce(0, &+) == 0)
        #expect(log[9] == 0 && log[10] == 1)  // LBA 47:32, of 1 << 40
    }

    @Test func trimForgetsAndReadOnlyRefuses() throws {
        let bench = try AHCIBench()
        bench.disk.set(pattern(64 << 10), at: 0)
        bench.memory.set([UInt8](repeating: 0, count: 512), AHCIBench.data)
        bench.memory.put(UInt64(8) | 16 << 48, AHCIBench.data)
        bench.lay(0, command: 0x06, features: 1, count: 1, regions: [(AHCIBench.data, 512)], isWrite: true)
        #expect(try #require(bench.run(0)).status == 0x50)
        #expect(bench.disk.bytes(at: 4096, count: 8192) == [UInt8](repeating: 0, count: 8192))
        #expect(bench.disk.bytes(at: 0, count: 4096) == Array(pattern(4096)))
        bench.memory.put(UInt64(4095) | 2 << 48, AHCIBench.data)
        #expect(try #require(bench.run(0)).error == 4)
        let readOnly = try AHCIBench(isReadOnly: true)
        readOnly.lay(0, command: 0x35, count: 1, regions: [(AHCIBench.data, 512)], isWrite: true)
        #expect(try #require(readOnly.run(0)).error == 4)
    }

    @Test func badAddressesAreHostBusErrors() throws {
        let bench = try AHCIBench()
        bench.lay(0, command: 0x25, count: 1, regions: [(0xFFFF_FFFF_0000, 512)])
        bench[0, .commandIssue] = 1
        #expect(eventually { bench[0, .interruptStatus] & 1 << 29 != 0 })
        #expect(bench.recover(0))
        bench.memory.put(UInt32(0xFFFF_FF80), bench.list(0) + 8)
        bench[0, .commandIssue] = 1
        #expect(eventually { bench[0, .interruptStatus] & 1 << 29 != 0 })
        #expect(bench.recover(0))
        bench.lay(0, command: 0x25, count: 2, regions: [(AHCIBench.data, 512)])
        bench[0, .commandIssue] = 1
        #expect(eventually { bench[0, .interruptStatus] & 1 != 0 })
        #expect(bench[0, .interruptStatus] & 1 << 24 != 0 && bench.byteCount(0) == 512)
    }

    @Test func interruptsFollowPortHostAndMessage() throws {
        let bench = try AHCIBench()
        bench[4] = 1 << 31
        for port in 0..<6 { bench[port, .interruptStatus] = .max; bench[port, .sataError] = .max }
        bench[8] = .max
        bench[4] = 1 << 31 | 2
        #expect(!bench.line.isHigh)
        bench.lay(0, command: 0xE7)
        bench[0, .commandIssue] = 1
        #expect(eventually { bench.line.isHigh })
        #expect(bench[8] == 1)
        bench[8] = 1
        #expect(bench[8] == 1)  // the port still asks
        bench[0, .interruptStatus] = 1
        bench[8] = 1
        #expect(bench[8] == 0 && !bench.line.isHigh)
        // With MSI each event sends a message, also while another is not acknowledged.
        let capability = 0xB0
        #expect(bench.endpoint.readConfiguration(offset: capability, width: .byte) == 5)
        bench.endpoint.writeConfiguration(offset: capability + 2, width: .word, value: 1)
        let before = bench.messages.count(0)
        bench[0, .commandIssue] = 1
        #expect(eventually { bench.messages.count(0) == before + 1 })
        bench.lay(1, command: 0xEF, features: 3, count: 0x45)
        bench[1, .commandIssue] = 1
        #expect(eventually { bench.messages.count(0) == before + 2 })
        #expect(bench[8] == 3)
        bench[0, .interruptStatus] = .max
        bench[8] = 1
        #expect(bench.messages.count(0) == before + 3)  // port 1 is still pending
    }

    @Test func comresetAndSoftResetBringTheSignatureBack() throws {
        let bench = try AHCIBench()
        bench[0, .command] &= ~1
        bench[0, .sataControl] = 0x301
        #expect(bench[0, .taskFileData] & 0xFF == 0x7F && bench[0, .sataStatus] & 0xF == 1)
        bench[0, .sataControl] = 0x300
        #expect(bench[0, .sataStatus] == 0x123 && bench[0, .signature] == 0x101)
        #expect(bench[0, .sataError] & 1 << 26 != 0 && bench[0, .interruptStatus] & 1 << 6 != 0)
        bench[0, .sataError] = .max
        #expect(bench[0, .interruptStatus] & 1 << 6 == 0)
        bench[0, .command] |= 1
        // ahci_softreset: SRST with C and R, then without.
        bench.lay(0, command: 0, isCommand: false, control: 4, flags: 1 << 10 | 1 << 8)
        bench[0, .commandIssue] = 1
        #expect(bench[0, .commandIssue] == 0)
        bench.lay(0, command: 0, isCommand: false, control: 0)
        bench.memory.set([0], bench.fis(0) + 0x40)
        bench[0, .commandIssue] = 1
        #expect(bench.memory.get(bench.fis(0) + 0x40, 1) == [0x34] && bench[0, .taskFileData] == 0x0150)
        bench[4] = 1
        #expect(bench[4] == 1 << 31 && bench[0, .commandListBase] == 0)
    }

    @Test func aDiscIsReadByPackets() throws {
        let bench = try AHCIBench()
        bench.disc.set(pattern(300 * 2048), at: 0)
        bench.lay(1, command: 0xA1, regions: [(AHCIBench.data, 512)])
        #expect(try #require(bench.run(1)).status & 0x41 == 0x40)
        #expect(word(bench.memory.get(AHCIBench.data, 512), 0) == 0x85C0)
        bench.lay(1, command: 0xA0, features: 1, regions: [(AHCIBench.data, 8)], packet: [0x25])
        #expect(try #require(bench.run(1)).status == 0x50)
        #expect(bench.memory.get(AHCIBench.data, 8) == [0, 0, 1, 0x2B, 0, 0, 8, 0])
        bench.lay(
            1, command: 0xA0, features: 1, regions: [(AHCIBench.data, 6144), (0x20_0000, 2048)],
            packet: [0x28, 0, 0, 0, 0, 16, 0, 0, 4])
        #expect(try #require(bench.run(1)).status == 0x50)
        #expect(
            bench.memory.get(AHCIBench.data, 6144) + bench.memory.get(0x20_0000, 2048)
                == Array(pattern(300 * 2048)[(16 * 2048)..<(20 * 2048)]))
        #expect(bench.byteCount(1) == 8192)
        bench.lay(
            1, command: 0xA0, features: 1, regions: [(AHCIBench.data, 2048)], packet: [0x28, 0, 0, 0, 1, 0x2C, 0, 0, 1])
        let failed = try #require(bench.run(1))
        #expect(failed.status & 1 == 1 && failed.error >> 4 == 5)
        #expect(bench.recover(1))
        bench.lay(1, command: 0xA0, regions: [(AHCIBench.data, 18)], packet: [0x03, 0, 0, 0, 18])
        #expect(try #require(bench.run(1)).status == 0x50)
        let sense = bench.memory.get(AHCIBench.data, 18)
        #expect(sense[2] == 5 && sense[12] == 0x21)
        #expect(bench.memory.get(bench.fis(1) + 0x20, 1) == [0x5F])
    }

    @Test func savedStateGoesOnWithWhatWasIssued() throws {
        let bench = try AHCIBench()
        #expect(bench.ahci.pause())
        bench.lay(0, command: 0xE7)
        bench[0, .commandIssue] = 1
        #expect(bench[0, .commandIssue] == 1)
        var endpointWriter = StateWriter(), writer = StateWriter()
        bench.endpoint.saveState(into: &endpointWriter)
        bench.ahci.saveState(into: &writer)
        let other = try AHCIBench(starts: false)
        other.lay(0, command: 0xE7)
        #expect(other.ahci.pause())
        var reader = StateReader(section: "ahci", bytes: endpointWriter.bytes)
        try other.endpoint.restoreState(from: &reader, version: 1)
        reader = StateReader(section: "ahci", bytes: writer.bytes)
        try other.ahci.restoreState(from: &reader, version: 1)
        #expect(reader.remaining == 0)
        other.ahci.resume()
        #expect(eventually { other[0, .commandIssue] == 0 })
        #expect(other[0, .taskFileData] == 0x50 && other.line.isHigh)
        bench.ahci.resume()
        for length in stride(from: 0, to: writer.bytes.count, by: 7) {
            var short = StateReader(section: "ahci", bytes: Array(writer.bytes.prefix(length)))
            #expect(throws: DeviceStateError.self) { try other.ahci.restoreState(from: &short, version: 1) }
        }
    }

    @Test func machineResetLeavesNothingInFlight() throws {
        let bench = try AHCIBench()
        for slot in 0..<32 {
            bench.lay(
                0, slot: slot, command: 0x60, features: 256, lba: UInt64(slot), count: UInt16(slot) << 3,
                regions: [(AHCIBench.data, 256 * 512)])
        }
        bench[0, .sataActive] = .max
        bench[0, .commandIssue] = .max
        bench.endpoint.reset()
        #expect(bench[0, .command] & 0xC011 == 0 && bench[0, .signature] == 0xFFFF_FFFF && !bench.line.isHigh)
    }

    /// The host's file ends before the disk does: reading beyond is a medium error, told as the standards tell it.
    @Test func hostFailuresAreMediumErrors() throws {
        let bench = try AHCIBench()
        ftruncate(bench.disk.descriptor, 512 * 512)
        bench.lay(0, command: 0x25, lba: 1000, count: 8, regions: [(AHCIBench.data, 4096)])
        let failed = try #require(bench.run(0))
        #expect(failed.status & 1 == 1 && failed.error == 0x40 && bench.byteCount(0) == 0)
        #expect(bench.recover(0))
        bench.lay(0, slot: 2, command: 0x60, features: 8, lba: 1000, count: 2 << 3, regions: [(AHCIBench.data, 4096)])
        bench[0, .sataActive] = 4
        bench[0, .commandIssue] = 4
        #expect(eventually { bench[0, .interruptStatus] & 1 << 30 != 0 })
        #expect(bench.recover(0))
        bench.lay(0, command: 0x2F, lba: 0x10, count: 1, regions: [(AHCIBench.data, 512)])
        #expect(bench.run(0) != nil)
        #expect(bench.memory.get(AHCIBench.data, 5) == [2, 0, 0x51, 0x40, 0xE8])
        #expect(try #require(bench.ahci.counters(port: 0)).values.errors == 2)
        ftruncate(bench.disc.descriptor, 2048)
        bench.lay(
            1, command: 0xA0, features: 1, regions: [(AHCIBench.data, 2048)], packet: [0x28, 0, 0, 0, 0, 16, 0, 0, 1])
        #expect(try #require(bench.run(1)).error >> 4 == 3)
    }

    /// libata's probe: global reset, ports made quiet, hardreset by SCTL, the class by PxSIG, then NCQ with interrupts.
    @Test func libataProbesAndQueues() throws {
        let bench = try AHCIBench(starts: false)
        bench.endpoint.writeConfiguration(offset: 4, width: .word, value: 6)
        bench[4] = bench[4] | 1
        #expect(eventually { bench[4] & 1 == 0 })
        for port in 0..<6 {
            #expect(bench[port, .command] & 0xC000 == 0)
            bench[port, .sataError] = bench[port, .sataError]
            bench[port, .interruptStatus] = bench[port, .interruptStatus]
            bench[8] = 1 << UInt32(port)
        }
        bench[4] = bench[4] | 2
        bench[0, .commandListBase] = UInt32(bench.list(0))
        bench[0, .fisBase] = UInt32(bench.fis(0))
        bench[0, .command] |= 1 << 4
        bench[0, .command] |= 1
        bench[0, .interruptEnable] = 0x7DC0_007F
        // ahci_hardreset: the engine stops, DET is 1 for a while, the link comes up, the engine starts.
        bench[0, .command] &= ~1
        #expect(bench[0, .command] & 1 << 15 == 0)
        bench[0, .sataControl] = 0x301
        bench[0, .sataControl] = 0x300
        #expect(bench[0, .sataStatus] & 0xF == 3)
        bench[0, .sataError] = bench[0, .sataError]
        #expect(bench[0, .taskFileData] & 0x80 == 0 && bench[0, .signature] == 0x101)
        bench[0, .command] |= 1
        bench[0, .interruptStatus] = .max
        bench[8] = .max
        bench.lay(0, slot: 3, command: 0x60, features: 8, lba: 0, count: 3 << 3, regions: [(AHCIBench.data, 4096)])
        bench[0, .sataActive] = 1 << 3
        bench[0, .commandIssue] = 1 << 3
        #expect(eventually { bench.line.isHigh })
        // ahci_single_level_irq_intr: IS, then the port's, then what SACT says has ended.
        #expect(bench[8] == 1)
        let bits = bench[0, .interruptStatus]
        bench[0, .interruptStatus] = bits
        #expect(bits == 8 && bench[0, .sataActive] == 0)
        bench[8] = 1
        #expect(!bench.line.isHigh)
    }

    /// EDK2's AhciPioTransfer and AhciDmaTransfer: FIS area cleared, FRE and ST on for one command, the FIS seen in memory.
    @Test func firmwareWaitsForFISesInMemory() throws {
        let bench = try AHCIBench(starts: false)
        bench.endpoint.writeConfiguration(offset: 4, width: .word, value: 6)
        for port in 0..<2 {
            bench[port, .fisBase] = UInt32(bench.fis(port))
            bench[port, .commandListBase] = UInt32(bench.list(port))
            bench[port, .sataControl] |= 0x300
            bench[port, .command] |= 1 << 4
            #expect(bench[port, .command] & 1 << 14 != 0)
            #expect(bench[port, .taskFileData] & 0x89 == 0)
            #expect(bench[port, .signature] & 0xFFFF == 0x101)
        }
        func run(_ port: Int, waitingFor type: UInt8, at offset: UInt64) {
            bench.memory.set([UInt8](repeating: 0, count: 256), bench.fis(port))
            bench[port, .command] |= 1 << 4
            bench[port, .command] |= 1
            bench[port, .commandIssue] = 1
            #expect(eventually { bench.memory.get(bench.fis(port) + offset, 1) == [type] })
        }
        func stop(_ port: Int) {
            bench[port, .command] &= ~1
            #expect(eventually { bench[port, .command] & 1 << 15 == 0 })
            bench[port, .command] &= ~(1 << 4)
            #expect(bench[port, .command] & 1 << 14 == 0)
        }
        bench.lay(0, command: 0xEC, device: 0xE0, regions: [(AHCIBench.data, 512)])
        run(0, waitingFor: 0x5F, at: 0x20)
        #expect(bench[0, .taskFileData] & 1 == 0 && bench.byteCount(0) == 512)
        stop(0)
        bench.lay(0, command: 0x25, lba: 1, count: 1, device: 0xE0, regions: [(AHCIBench.data, 512)])
        run(0, waitingFor: 0x34, at: 0x40)
        #expect(bench[0, .taskFileData] & 1 == 0)
        stop(0)
        bench.lay(1, command: 0xA1, device: 0xE0, regions: [(AHCIBench.data, 512)])
        run(1, waitingFor: 0x5F, at: 0x20)
        stop(1)
        bench.lay(1, command: 0xA0, regions: [(AHCIBench.data, 36)], packet: [0x12, 0, 0, 0, 36])
        run(1, waitingFor: 0x34, at: 0x40)
        #expect(bench.memory.get(AHCIBench.data, 2) == [5, 0x80])
        stop(1)
    }

    @Test(arguments: 0..<8)
    func randomRegistersAndListsDoNotTrap(seed: UInt64) throws {
        let bench = try AHCIBench()
        var random = SplitMix(seed)
        for round in 0..<3000 {
            let port = Int(random.next() % 2), slot = Int(random.next() % 32)
            switch random.next() % 8 {
            case 0:
                bench.ahci.write(
                    offset: random.next() % 0x1100,
                    width: [.byte, .word, .doubleWord, .quadWord][Int(random.next() % 4)], value: random.next())
            case 1:
                _ = bench.ahci.read(
                    offset: random.next() % 0x1100,
                    width: [.byte, .word, .doubleWord, .quadWord][Int(random.next() % 4)])
            case 2: bench.start(port)
            case 3: bench.memory.put(random.next(), bench.list(port) + random.next() % 1024)
            case 4:
                bench.memory.put(
                    random.next(),
                    AHCIBench.table + UInt64(port) * 0x4_0000 + UInt64(slot) * 0x1000 + random.next() % 256)
            default:
                let commands: [UInt8] = [
                    0x25, 0x35, 0x60, 0x61, 0xC8, 0xCA, 0xA0, 0xEC, 0x06, 0xEF, 0xB0, 0x2F, 0x24, 0x34, 0x29, 0xC6,
                    UInt8(random.next() & 0xFF),
                ]
                bench.lay(
                    port, slot: slot, command: commands[Int(random.next() % UInt64(commands.count))],
                    features: UInt16(random.next() & 0x1F),
                    lba: random.next() % 5000, count: UInt16(random.next() % 40), device: UInt8(random.next() & 0xFF),
                    regions: (0..<Int(random.next() % 6)).map { _ in
                        (random.next() % 0x120_0000, Int(random.next() % 70000))
                    },
                    packet: (0..<16).map { _ in UInt8(random.next() & 0xFF) })
                bench[port, .sataActive] = UInt32(1) << UInt32(slot)
                bench[port, .commandIssue] = UInt32(1) << UInt32(slot)
            }
            if round % 500 == 0 {
                #expect(bench.ahci.pause())
                bench.ahci.resume()
            }
        }
        #expect(bench.ahci.pause())
        bench.ahci.resume()
        bench.endpoint.reset()
        // And it works as if new.
        bench.endpoint.writeConfiguration(offset: 4, width: .word, value: 6)
        bench.start(0)
        bench.lay(0, command: 0xEC, regions: [(AHCIBench.data, 512)])
        #expect(try #require(bench.run(0)).status & 0x41 == 0x40)
    }
}

/// SplitMix64: the same sequence on every machine.
struct SplitMix: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 &+ 1 }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }
}
