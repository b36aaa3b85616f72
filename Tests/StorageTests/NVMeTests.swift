import DiskImage
import Foundation
import GuestMemory
import HostSystem
import MachineCore
import MachineTesting
import PCI
import Synchronization
import Testing

@testable import Storage

/// A controller driven as OVMF's and Linux's drivers do, with one admin and up to four I/O queues.
private final class NVMeBench {
    let memory: GuestMemory
    let disk: TestDisk
    let thread: LoopThread
    let line = RecordedLine()
    let messages = RecordedInterrupts()
    let endpoint: PCIEndpoint
    let nvme: NVMeController

    struct Queue {
        var submission: UInt64
        var completion: UInt64
        var size: UInt32
        var tail: UInt32 = 0
        var head: UInt32 = 0
        var phase: UInt32 = 1
    }
    struct Completion: Equatable {
        var result: UInt32
        var identifier: UInt16
        var status: UInt16
    }
    var queues: [Queue]
    var nextIdentifier: UInt16 = 0x100
    static let data: UInt64 = 0x20_0000

    init(sectors: Int = 65536, isReadOnly: Bool = false, starts: Bool = true, queueSize: UInt32 = 64) throws {
        thread = try LoopThread()
        memory = try GuestMemory(byteCount: 16 << 20)
        disk = try TestDisk(byteCount: sectors * 512, isReadOnly: isReadOnly)
        endpoint = try NVMeController.makeEndpoint(name: "nvme", queueCount: 4, line: line, message: messages)
        nvme = try NVMeController(
            endpoint, memory: memory, image: disk.image,
            identity: DriveIdentity(
                model: "APUS NVME", serial: "9f0c1e6a-0000-4000-8000-0123456789ab", worldWideName: 0x5000_1111_2222_3333
            ),
            queueCount: 4, loop: thread.loop)
        queues = (0..<5).map {
            Queue(
                submission: 0x10_0000 + UInt64($0) * 0x1_0000, completion: 0x10_8000 + UInt64($0) * 0x1_0000,
                size: queueSize)
        }
        if starts { try start() }
    }

    func read(_ offset: UInt64) -> UInt32 { UInt32(nvme.read(offset: offset, width: .doubleWord)) }
    func write(_ offset: UInt64, _ value: UInt32) {
        nvme.write(offset: offset, width: .doubleWord, value: UInt64(value))
    }

    /// OVMF's NvmeControllerInit: disable, wait, queues, enable, wait.
    func start() throws {
        endpoint.writeConfiguration(offset: 4, width: .word, value: 6)
        write(0x14, 0)
        #expect(eventually { read(0x1C) & 1 == 0 })
        write(0x24, (queues[0].size - 1) | (queues[0].size - 1) << 16)
        write(0x28, UInt32(queues[0].submission))
        write(0x2C, 0)
        write(0x30, UInt32(queues[0].completion))
        write(0x34, 0)
        write(0x14, 0x0046_0001)
        #expect(eventually { read(0x1C) & 1 == 1 })
    }

    @discardableResult
    func submit(
        _ queue: Int, _ operation: UInt8, namespace: UInt32 = 0, region1: UInt64 = 0, region2: UInt64 = 0,
        words: [UInt32] = [], rings: Bool = true
    ) -> UInt16 {
        nextIdentifier &+= 1
        let entry = queues[queue].submission + UInt64(queues[queue].tail) * 64
        memory.set([UInt8](repeating: 0, count: 64), entry)
        memory.put(UInt32(operation) | UInt32(nextIdentifier) << 16, entry)
        memory.put(namespace, entry + 4)
        memory.put(region1, entry + 24)
        memory.put(region2, entry + 32)
        for (index, word) in words.enumerated() { memory.put(word, entry + 40 + UInt64(index) * 4) }
        queues[queue].tail = (queues[queue].tail + 1) % queues[queue].size
        if rings { ring(queue) }
        return nextIdentifier
    }
    func ring(_ queue: Int) { write(0x1000 + UInt64(queue) * 8, queues[queue].tail) }

    func next(_ queue: Int, acknowledges: Bool = true) -> Completion? {
        let entry = queues[queue].completion + UInt64(queues[queue].head) * 16
        guard eventually({ memory.word(entry + 12) >> 16 & 1 == queues[queue].phase }) else { return nil }
        let last = memory.word(entry + 12)
        queues[queue].head += 1
        if queues[queue].head == queues[queue].size {
            queues[queue].head = 0
            queues[queue].phase ^= 1
        }
        if acknowledges { write(0x1004 + UInt64(queue) * 8, queues[queue].head) }
        return Completion(result: memory.word(entry), identifier: UInt16(last & 0xFFFF), status: UInt16(last >> 17))
    }

    func run(
        _ queue: Int, _ operation: UInt8, namespace: UInt32 = 0, region1: UInt64 = 0, region2: UInt64 = 0,
        words: [UInt32] = []
    ) -> Completion? {
        let identifier = submit(
            queue, operation, namespace: namespace, region1: region1, region2: region2, words: words)
        guard let completion = next(queue), completion.identifier == identifier else { return nil }
        return completion
    }

    /// A pair of I/O queues with interrupts through `vector`.
    func makePair(_ index: Int, vector: UInt32 = 1) throws {
        let size = queues[index].size - 1
        #expect(
            try #require(
                run(0, 5, region1: queues[index].completion, words: [UInt32(index) | size << 16, 3 | vector << 16])
            ).status == 0)
        #expect(
            try #require(
                run(
                    0, 1, region1: queues[index].submission,
                    words: [UInt32(index) | size << 16, 1 | UInt32(index) << 16])
            ).status == 0)
    }
}

@Suite struct NVMeTests {
    @Test func registersAndHandshake() throws {
        let bench = try NVMeBench(starts: false)
        #expect(bench.endpoint.readConfiguration(offset: 0, width: .doubleWord) == 0x0010_1B36)
        #expect(bench.endpoint.readConfiguration(offset: 8, width: .doubleWord) >> 8 == 0x01_08_02)
        let capabilities = bench.nvme.read(offset: 0, width: .quadWord)
        #expect(capabilities & 0xFFFF == 1023 && capabilities >> 37 & 1 == 1 && capabilities >> 48 == 0)
        #expect(bench.read(8) == 0x0001_0400 && bench.read(0x1C) == 0)
        try bench.start()
        #expect(bench.nvme.read(offset: 0x28, width: .quadWord) == bench.queues[0].submission)
        bench.write(0x14, 0x0046_0000)
        #expect(bench.read(0x1C) & 1 == 0)
        bench.write(0x14, 0x0046_0081)  // pages of 8 KiB
        #expect(bench.read(0x1C) == 2)
    }

    @Test func identifyNamesControllerAndNamespace() throws {
        let bench = try NVMeBench()
        #expect(try #require(bench.run(0, 6, region1: NVMeBench.data, words: [1])).status == 0)
        let controller = bench.memory.get(NVMeBench.data, 4096)
        #expect(String(decoding: controller[4..<24], as: UTF8.self) == "9f0c1e6a-0000-4000-8")
        #expect(String(decoding: controller[24..<33], as: UTF8.self) == "APUS NVME")
        #expect(
            controller[77] == 7 && controller[512] == 0x66 && controller[513] == 0x44 && controller[516] == 1
                && controller[525] & 1 == 1)
        // Across a page boundary: PRP1 in the middle, PRP2 a page.
        #expect(
            try #require(bench.run(0, 6, namespace: 1, region1: NVMeBench.data + 0x800, region2: 0x30_0000, words: [0]))
                .status == 0)
        let space = bench.memory.get(NVMeBench.data + 0x800, 0x800) + bench.memory.get(0x30_0000, 0x800)
        #expect(Array(space[0..<8]) == [0, 0, 1, 0, 0, 0, 0, 0] && space[130] == 9)
        #expect(try #require(bench.run(0, 6, region1: NVMeBench.data, words: [2])).status == 0)
        #expect(bench.memory.word(NVMeBench.data) == 1 && bench.memory.word(NVMeBench.data + 4) == 0)
        #expect(try #require(bench.run(0, 6, namespace: 1, region1: NVMeBench.data, words: [3])).status == 0)
        let descriptors = bench.memory.get(NVMeBench.data, 40)
        #expect(
            descriptors[0] == 1 && descriptors[4] == 0x50 && descriptors[12] == 3 && descriptors[16] == 0x9F
                && descriptors[31] == 0xAB)
        #expect(try #require(bench.run(0, 6, namespace: 2, region1: NVMeBench.data, words: [0])).status == 0x0B)
        #expect(try #require(bench.run(0, 6, region1: NVMeBench.data, words: [0x77])).status == 0x02)
    }

    @Test func queuesAreCountedMadeAndDeletedInOrder() throws {
        let bench = try NVMeBench()
        #expect(try #require(bench.run(0, 9, words: [7, 0x001F_001F])).result == 0x0003_0003)
        #expect(try #require(bench.run(0, 1, region1: 0x11_0000, words: [1 | 63 << 16, 1 | 1 << 16])).status == 0x100)
        #expect(try #require(bench.run(0, 5, region1: 0x11_8000, words: [9 | 63 << 16, 1])).status == 0x101)
        #expect(try #require(bench.run(0, 5, region1: 0x11_8000, words: [1, 1])).status == 0x102)
        #expect(try #require(bench.run(0, 5, region1: 0x11_8010, words: [1 | 63 << 16, 1])).status == 0x013)
        #expect(try #require(bench.run(0, 5, region1: 0x11_8000, words: [1 | 63 << 16, 3 | 99 << 16])).status == 0x108)
        try bench.makePair(1)
        #expect(try #require(bench.run(0, 4, words: [1])).status == 0x10C)
        #expect(try #require(bench.run(0, 0, words: [1])).status == 0)
        #expect(try #require(bench.run(0, 0, words: [1])).status == 0x101)
        #expect(try #require(bench.run(0, 4, words: [1])).status == 0)
        bench.queues[1] = NVMeBench.Queue(
            submission: bench.queues[1].submission, completion: bench.queues[1].completion, size: 64)
        bench.memory.set([UInt8](repeating: 0, count: 1024), bench.queues[1].completion)
        try bench.makePair(1)
    }

    @Test func readsAndWritesThroughRegionLists() throws {
        let bench = try NVMeBench()
        try bench.makePair(1)
        let bytes = pattern(128 << 10)
        // 32 pages, scattered; the list begins at the last entry but one of its page, so that it goes on in another.
        let pages = (0..<33).map { NVMeBench.data + UInt64($0 * 0x3000) }
        let first = NVMeBench.data - 0x1000 + 0x200
        var places = [(first, 0xE00)]
        places += pages[0..<31].map { ($0, 4096) }
        places.append((pages[31], 0x200))
        bench.memory.put(pages[0], 0x1F_1FF0)
        bench.memory.put(UInt64(0x1F_4000), 0x1F_1FF8)
        for index in 1..<32 { bench.memory.put(pages[index], 0x1F_4000 + UInt64(index - 1) * 8) }
        var done = 0
        for (address, count) in places {
            bench.memory.set(Array(bytes[done..<(done + count)]), address)
            done += count
        }
        #expect(
            try #require(bench.run(1, 1, namespace: 1, region1: first, region2: 0x1F_1FF0, words: [1000, 0, 255]))
                .status == 0)
        #expect(bench.disk.bytes(at: 1000 * 512, count: bytes.count) == bytes)
        for (address, count) in places { bench.memory.set([UInt8](repeating: 0, count: count), address) }
        #expect(
            try #require(bench.run(1, 2, namespace: 1, region1: first, region2: 0x1F_1FF0, words: [1000, 0, 255]))
                .status == 0)
        #expect(places.flatMap { bench.memory.get($0.0, $0.1) } == bytes)
        #expect(try #require(bench.run(1, 0, namespace: .max)).status == 0)
        #expect(try #require(bench.run(1, 0, namespace: 1)).status == 0)
        let values = bench.nvme.counters.values
        #expect(values.readBytes == 128 << 10 && values.writeBytes == 128 << 10 && values.flushRequests == 2)
        #expect(
            try #require(bench.run(0, 2, namespace: .max, region1: NVMeBench.data, words: [2 | 127 << 16])).status == 0)
        #expect(bench.memory.get(NVMeBench.data + 32, 1) == [1])
    }

    @Test func badCommandsHaveTheirStatus() throws {
        let bench = try NVMeBench()
        try bench.makePair(1)
        let data = NVMeBench.data
        #expect(try #require(bench.run(1, 2, namespace: 1, region1: data, words: [65536, 0, 0])).status == 0x80)
        #expect(try #require(bench.run(1, 2, namespace: 1, region1: data, words: [.max, .max, 0])).status == 0x80)
        #expect(try #require(bench.run(1, 2, namespace: 2, region1: data, words: [0, 0, 0])).status == 0x0B)
        #expect(
            try #require(bench.run(1, 2, namespace: 1, region1: 0xFFFF_0000_0000, words: [0, 0, 0])).status == 0x04)
        #expect(
            try #require(bench.run(1, 2, namespace: 1, region1: data, region2: data + 8, words: [0, 0, 15])).status
                == 0x13)
        #expect(
            try #require(bench.run(1, 2, namespace: 1, region1: data, region2: data, words: [0, 0, 0xFFFF])).status
                == 0x02)  // more than MDTS
        #expect(try #require(bench.run(1, 0x7F, namespace: 1)).status == 0x01)
        #expect(try #require(bench.run(0, 0x7F)).status == 0x01)
        #expect(try #require(bench.run(0, 2, region1: data, words: [0x42])).status == 0x109)
        let readOnly = try NVMeBench(isReadOnly: true)
        try readOnly.makePair(1)
        #expect(try #require(readOnly.run(1, 1, namespace: 1, region1: data, words: [0, 0, 0])).status == 0x20)
    }

    @Test func growthIsTold() throws {
        let bench = try NVMeBench()
        bench.submit(0, 0x0C)
        bench.nvme.capacityChanged()  // not asked for yet
        #expect(try #require(bench.run(0, 9, words: [0xB, 0x100])).status == 0)
        let notice = try #require(bench.next(0))
        #expect(notice.result == 0x04_00_02 && notice.status == 0)
        ftruncate(bench.disk.descriptor, 131072 * 512)
        try bench.disk.image.refreshSize()
        bench.submit(0, 0x0C)
        #expect(try #require(bench.run(0, 2, region1: NVMeBench.data, words: [4 | 1023 << 16])).status == 0)
        #expect(bench.memory.word(NVMeBench.data) == 1)
        #expect(try #require(bench.run(0, 2, region1: NVMeBench.data, words: [4 | 1023 << 16])).status == 0)
        #expect(bench.memory.word(NVMeBench.data) == 0)
        #expect(try #require(bench.run(0, 6, namespace: 1, region1: NVMeBench.data, words: [0])).status == 0)
        #expect(bench.memory.word(NVMeBench.data) == 131072)
        bench.nvme.capacityChanged()
        #expect(try #require(bench.next(0)).result == 0x04_00_02)
    }

    @Test func hostFailuresAreMediaErrors() throws {
        let bench = try NVMeBench()
        try bench.makePair(1)
        ftruncate(bench.disk.descriptor, 4096)
        #expect(
            try #require(bench.run(1, 2, namespace: 1, region1: NVMeBench.data, words: [1000, 0, 7])).status == 0x281)
        #expect(try #require(bench.run(1, 0, namespace: 1)).status == 0)
        #expect(bench.nvme.counters.values.errors == 1)
    }

    @Test func deallocateAndWriteZeroes() throws {
        let bench = try NVMeBench()
        try bench.makePair(1)
        bench.disk.set(pattern(64 << 10), at: 0)
        for (index, range) in [(8, 8), (32, 16)].enumerated() {
            bench.memory.put(UInt32(0), NVMeBench.data + UInt64(index) * 16)
            bench.memory.put(UInt32(range.1), NVMeBench.data + UInt64(index) * 16 + 4)
            bench.memory.put(UInt64(range.0), NVMeBench.data + UInt64(index) * 16 + 8)
        }
        #expect(try #require(bench.run(1, 9, namespace: 1, region1: NVMeBench.data, words: [1, 4])).status == 0)
        #expect(bench.disk.bytes(at: 4096, count: 4096) == [UInt8](repeating: 0, count: 4096))
        #expect(bench.disk.bytes(at: 32 * 512, count: 8192) == [UInt8](repeating: 0, count: 8192))
        #expect(bench.disk.bytes(at: 0, count: 4096) == pattern(4096))
        #expect(try #require(bench.run(1, 8, namespace: 1, words: [0, 0, 7])).status == 0)
        #expect(bench.disk.bytes(at: 0, count: 4096) == [UInt8](repeating: 0, count: 4096))
    }

    @Test func aFullCompletionQueueHoldsCommandsBack() throws {
        let bench = try NVMeBench(queueSize: 8)
        try bench.makePair(1)
        // Seven commands fill the completion queue of eight; five more wait for room.
        for _ in 0..<7 { bench.submit(1, 0, namespace: 1, rings: false) }
        bench.ring(1)
        var seen = 0
        while seen < 7, bench.next(1, acknowledges: false) != nil { seen += 1 }
        for _ in 0..<5 { bench.submit(1, 0, namespace: 1, rings: false) }
        bench.ring(1)
        usleep(20_000)
        let entry = bench.queues[1].completion + UInt64(bench.queues[1].head) * 16
        #expect(bench.memory.word(entry + 12) >> 16 & 1 != bench.queues[1].phase)
        bench.write(0x100C, bench.queues[1].head)
        for _ in 0..<5 { #expect(try #require(bench.next(1)).status == 0) }
        #expect(seen == 7)
    }

    @Test func interruptsByPinMaskAndVector() throws {
        let bench = try NVMeBench()
        #expect(!bench.line.isHigh)
        bench.submit(0, 6, region1: NVMeBench.data, words: [1])
        #expect(bench.line.isHigh)
        bench.write(0x0C, 1)
        #expect(!bench.line.isHigh && bench.read(0x0C) == 1)
        bench.write(0x10, 1)
        #expect(bench.line.isHigh)
        #expect(bench.next(0) != nil)
        #expect(!bench.line.isHigh)
        let capability = Int(bench.endpoint.readConfiguration(offset: 0x34, width: .byte))
        #expect(bench.endpoint.readConfiguration(offset: capability, width: .byte) == 0x11)
        for vector in 0..<5 {
            bench.endpoint.msix?.writeTable(offset: 16 * vector, width: .quadWord, value: 0xFEE0_0000)
            bench.endpoint.msix?.writeTable(offset: 16 * vector + 8, width: .quadWord, value: UInt64(vector))
        }
        bench.endpoint.writeConfiguration(offset: capability + 2, width: .word, value: 0x8000)
        try bench.makePair(2, vector: 3)
        #expect(bench.messages.count(0) == 2)
        // Not taken before the message is there: a queue that its host has emptied is none to interrupt for.
        bench.submit(2, 0, namespace: 1)
        #expect(eventually { bench.messages.count(3) == 1 })
        #expect(try #require(bench.next(2)).status == 0)
        #expect(!bench.line.isHigh)
    }

    @Test func featuresEventsShutdownAndReset() throws {
        let bench = try NVMeBench()
        #expect(try #require(bench.run(0, 10, words: [6])).result == 1)
        #expect(try #require(bench.run(0, 9, words: [6, 0])).status == 0)
        #expect(try #require(bench.run(0, 10, words: [6])).result == 0)
        #expect(try #require(bench.run(0, 9, words: [0x8000_0006, 1])).status == 0x10D)
        #expect(try #require(bench.run(0, 9, words: [0xB, 0x1F])).status == 0)
        #expect(try #require(bench.run(0, 10, words: [0xB])).result == 0x1F)
        #expect(try #require(bench.run(0, 9, words: [0x7F])).status == 0x02)
        for _ in 0..<4 { bench.submit(0, 0x0C) }
        #expect(try #require(bench.run(0, 0x0C)).status == 0x105)
        #expect(try #require(bench.run(0, 8, words: [0])).result == 1)
        bench.write(0x14, 0x0046_4001)
        #expect(eventually { bench.read(0x1C) >> 2 & 3 == 2 })
        bench.write(0x14, 0)
        #expect(eventually { bench.read(0x1C) == 0 })
        bench.queues[0] = NVMeBench.Queue(
            submission: bench.queues[0].submission, completion: bench.queues[0].completion, size: 64)
        bench.memory.set([UInt8](repeating: 0, count: 1024), bench.queues[0].completion)
        try bench.start()
        #expect(try #require(bench.run(0, 10, words: [6])).result == 1)
    }

    @Test func savedStateGoesOnWhereTheQueuesStood() throws {
        let bench = try NVMeBench()
        try bench.makePair(1)
        #expect(try #require(bench.run(1, 0, namespace: 1)).status == 0)
        #expect(bench.nvme.pause())
        let identifier = bench.submit(1, 2, namespace: 1, region1: NVMeBench.data, words: [0, 0, 7])
        var endpointWriter = StateWriter(), writer = StateWriter()
        bench.endpoint.saveState(into: &endpointWriter)
        bench.nvme.saveState(into: &writer)
        let other = try NVMeBench(starts: false)
        other.disk.set(pattern(4096), at: 0)
        other.memory.set(bench.memory.get(0x10_0000, 0x5_0000), 0x10_0000)
        #expect(other.nvme.pause())
        var reader = StateReader(section: "nvme", bytes: endpointWriter.bytes)
        try other.endpoint.restoreState(from: &reader, version: 1)
        reader = StateReader(section: "nvme", bytes: writer.bytes)
        try other.nvme.restoreState(from: &reader, version: 1)
        #expect(reader.remaining == 0)
        other.queues = bench.queues
        other.nvme.resume()
        #expect(try #require(other.next(1)).identifier == identifier)
        #expect(other.memory.get(NVMeBench.data, 4096) == pattern(4096))
        for length in stride(from: 0, to: writer.bytes.count, by: 11) {
            var short = StateReader(section: "nvme", bytes: Array(writer.bytes.prefix(length)))
            #expect(throws: DeviceStateError.self) { try other.nvme.restoreState(from: &short, version: 1) }
        }
        bench.nvme.resume()
    }

    @Test func deletingABusyQueueEndsAfterItsCommands() throws {
        let bench = try NVMeBench()
        try bench.makePair(1)
        for index in 0..<40 {
            bench.submit(1, 1, namespace: 1, region1: NVMeBench.data, words: [UInt32(index) * 8, 0, 7], rings: false)
        }
        bench.ring(1)
        #expect(try #require(bench.run(0, 0, words: [1])).status == 0)
        for _ in 0..<40 { #expect(try #require(bench.next(1)).status == 0) }
    }

    /// OVMF's queues: two entries, so that one command at a time is under way.
    @Test func queuesOfTwoEntriesTurnRound() throws {
        let bench = try NVMeBench(queueSize: 2)
        try bench.makePair(1)
        for _ in 0..<9 { #expect(try #require(bench.run(1, 0, namespace: 1)).status == 0) }
    }

    /// Every vCPU has a pair of its own, while another identifies and the machine is paused now and then.
    @Test func severalProcessorsAtOnce() throws {
        let bench = try NVMeBench()
        for queue in 1...4 { try bench.makePair(queue) }
        let failures = Atomic<Int>(0), running = Atomic<Int>(4)
        let nvme = bench.nvme, memory = bench.memory
        for queue in 1...4 {
            let places = bench.queues[queue]
            Thread {
                var tail: UInt32 = 0, head: UInt32 = 0, phase: UInt32 = 1
                let data = 0x40_0000 + UInt64(queue) * 0x10_0000
                for round in 0..<400 {
                    let isWrite = round % 2 == 0, sector = UInt32(queue * 4096 + round / 2 * 8)
                    if isWrite {
                        memory.set(pattern(4096, seed: queue * 1000 + round), data)
                    } else {
                        memory.set([UInt8](repeating: 0, count: 4096), data)
                    }
                    let entry = places.submission + UInt64(tail) * 64
                    memory.put(UInt32(isWrite ? 1 : 2) | UInt32(round) << 16, entry)
                    memory.put(UInt32(1), entry + 4)
                    memory.put(data, entry + 24)
                    memory.put(sector, entry + 40)
                    memory.put(UInt32(0), entry + 44)
                    memory.put(UInt32(7), entry + 48)
                    tail = (tail + 1) % places.size
                    nvme.write(offset: 0x1000 + UInt64(queue) * 8, width: .doubleWord, value: UInt64(tail))
                    let answer = places.completion + UInt64(head) * 16
                    guard eventually({ memory.word(answer + 12) >> 16 & 1 == phase }) else {
                        failures.wrappingAdd(1, ordering: .relaxed)
                        break
                    }
                    let last = memory.word(answer + 12)
                    let isRight = last >> 17 == 0 && last & 0xFFFF == UInt32(round)
                    let hasData = isWrite || memory.get(data, 4096) == pattern(4096, seed: queue * 1000 + round - 1)
                    if !isRight || !hasData { failures.wrappingAdd(1, ordering: .relaxed) }
                    head += 1
                    if head == places.size {
                        head = 0
                        phase ^= 1
                    }
                    nvme.write(offset: 0x1004 + UInt64(queue) * 8, width: .doubleWord, value: UInt64(head))
                }
                running.wrappingSubtract(1, ordering: .releasing)
            }.start()
        }
        while running.load(ordering: .acquiring) > 0 {
            #expect(try #require(bench.run(0, 6, region1: NVMeBench.data, words: [1])).status == 0)
            #expect(nvme.pause())
            nvme.resume()
            usleep(500)
        }
        #expect(failures.load(ordering: .relaxed) == 0)
        #expect(nvme.counters.values.readRequests == 800 && nvme.counters.values.writeRequests == 800)
    }

    @Test(arguments: 0..<8)
    func randomRegistersAndCommandsDoNotTrap(seed: UInt64) throws {
        let bench = try NVMeBench()
        try bench.makePair(1)
        var random = SplitMix(seed)
        let widths: [AccessWidth] = [.byte, .word, .doubleWord, .quadWord]
        for round in 0..<4000 {
            switch random.next() % 10 {
            case 0:
                bench.nvme.write(
                    offset: random.next() % 0x1100, width: widths[Int(random.next() % 4)],
                    value: random.next() >> (random.next() % 64))
            case 1: _ = bench.nvme.read(offset: random.next() % 0x4000, width: widths[Int(random.next() % 4)])
            case 2:
                bench.nvme.write(offset: 0x1000 + random.next() % 0x60, width: .doubleWord, value: random.next() % 80)
            case 3: bench.write(0x14, 0x0046_0000 | UInt32(random.next() & 0xC001))
            case 4: bench.endpoint.writeConfiguration(offset: 4, width: .word, value: 6)
            case 5:
                bench.write(0x24, UInt32(random.next() & 0x003F_003F))
                bench.write(0x28, UInt32(random.next() & 0x1F_FFFF))
                bench.write(0x30, UInt32(random.next() & 0x1F_FFFF))
            default:
                let queue = Int(random.next() % 5)
                let operations: [UInt8] = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, UInt8(random.next() & 0xFF)]
                bench.submit(
                    queue, operations[Int(random.next() % UInt64(operations.count))],
                    namespace: random.next() % 8 == 0 ? UInt32(random.next() & 3) : 1,
                    region1: random.next() % 0x101_0000,
                    region2: random.next() % 0x101_0000 & ~(random.next() % 2 == 0 ? 0xFFF : 7),
                    words: [UInt32(random.next() % 70000), UInt32(random.next() % 8), UInt32(random.next() % 300), 0])
            }
            if round % 1000 == 0 {
                #expect(bench.nvme.pause())
                var writer = StateWriter()
                bench.nvme.saveState(into: &writer)
                var reader = StateReader(section: "nvme", bytes: writer.bytes)
                try bench.nvme.restoreState(from: &reader, version: 1)
                bench.nvme.resume()
            }
        }
        bench.endpoint.reset()
        bench.queues = (0..<5).map {
            NVMeBench.Queue(
                submission: 0x10_0000 + UInt64($0) * 0x1_0000, completion: 0x10_8000 + UInt64($0) * 0x1_0000, size: 64)
        }
        bench.memory.set([UInt8](repeating: 0, count: 0x5_0000), 0x10_0000)
        try bench.start()
        try bench.makePair(1)
        #expect(try #require(bench.run(1, 0, namespace: 1)).status == 0)
    }
}
