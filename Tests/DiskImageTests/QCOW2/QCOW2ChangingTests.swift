// Creating, growing, committing, checking and repairing, against the format's other implementation.
import DiskImage
import Foundation
import HostSystem
import Testing

@Suite struct QCOW2ChangingTests {
    private let directory: TemporaryDirectory
    init() throws { directory = try TemporaryDirectory() }

    private func expectClean(_ path: String) throws {
        #expect(try QCOW2Check(file: openFile(path)).check().isClean)
        guard Tools.arePresent else { return }
        let (status, output) = try Tools.check(path)
        #expect(status == 0, "\(output)")
    }

    @Test(arguments: [(9, 0), (9, 6), (12, 3), (16, 4), (21, 5)] as [(UInt32, UInt32)])
    func createdImageIsCleanAndReadsAsZeroes(clusterBits: UInt32, refcountOrder: UInt32) throws {
        var creation = QCOW2Creation(byteCount: 7 << 20 | 512)
        creation.clusterBits = clusterBits
        creation.refcountOrder = refcountOrder
        let path = directory["new.qcow2"]
        try creation.create(on: openFile(path))
        try expectClean(path)
        let image = try QCOW2Image(file: openFile(path), isReadOnly: false, backing: nil)
        #expect(image.byteCount == 7 << 20 | 512)
        #expect(try image.contents().allSatisfy { $0 == 0 })
    }

    @Test func creationIsRefusedOnAFileThatHoldsSomething() throws {
        let file = try directory.open("full")
        try file.write([1], at: 0)
        #expect(throws: ImageError.self) { try QCOW2Creation(byteCount: 1 << 20).create(on: file) }
        #expect(throws: ImageError.self) { try QCOW2Creation(byteCount: 1000).create(on: directory.open("odd")) }
    }

    /// 512-byte clusters: 32 KiB for each L1 entry, so that the L1 table outgrows its place, and with 64-bit refcounts the
    /// refcount table too.
    @Test func grownImageKeepsItsDataAndReadsZeroesBehind() throws {
        var creation = QCOW2Creation(byteCount: 100_352)
        creation.clusterBits = 9
        creation.refcountOrder = 6
        let path = directory["grow.qcow2"]
        try creation.create(on: openFile(path))
        let image = try QCOW2Image(file: openFile(path), isReadOnly: false, backing: nil)
        let bytes = pattern(byteCount: 100_352, seed: 5)
        try image.write(bytes, at: 0)
        try image.grow(to: 300 << 20)
        #expect(image.byteCount == 300 << 20)
        try image.write([UInt8](repeating: 9, count: 512), at: 300 << 20 - 512)
        // More clusters than the first refcount table counts: 64 blocks of 64 refcounts.
        let more = pattern(byteCount: 3 << 20, seed: 6)
        try image.write(more, at: 1 << 20)
        try image.close()
        try expectClean(path)
        let again = try QCOW2Image(file: openFile(path), isReadOnly: true, backing: nil)
        let memory = try again.read(at: 0, count: 5 << 20)
        #expect(memory.array(0..<100_352) == bytes)
        #expect(memory.array(100_352..<(1 << 20)).allSatisfy { $0 == 0 })
        #expect(memory.array((1 << 20)..<(4 << 20)) == more)
        #expect(again.header.refcountTableClusters > 1)
    }

    @Test func grownOverlayDoesNotShowWhatItsLongerBackingHoldsBehindItsOldEnd() throws {
        let base = directory["base.raw"]
        try Data([UInt8](repeating: 0xEE, count: 400_000)).write(to: URL(fileURLWithPath: base))
        var creation = QCOW2Creation(byteCount: 100_352)
        creation.backing = (base, "raw")
        let path = directory["overlay.qcow2"]
        try creation.create(on: openFile(path))
        let image = try QCOW2Image(file: openFile(path), isReadOnly: false, backing: openRaw(base))
        try image.grow(to: 500_224)
        try image.close()
        let contents = try image.contents()
        #expect(contents[..<100_352].allSatisfy { $0 == 0xEE })
        #expect(contents[100_352...].allSatisfy { $0 == 0 })
        try expectClean(path)
    }

    @Test func shrinkingAndReadOnlyGrowingAreRefused() throws {
        let path = directory["a.qcow2"]
        try QCOW2Creation(byteCount: 1 << 20).create(on: openFile(path))
        let image = try QCOW2Image(file: openFile(path), isReadOnly: false, backing: nil)
        #expect(throws: ImageError.self) { try image.grow(to: 512) }
        let reading = try QCOW2Image(file: openFile(path, readOnly: true), isReadOnly: true, backing: nil)
        #expect(throws: ImageError.self) { try reading.grow(to: 2 << 20) }
    }

    @Test func committedBackingReadsAsTheOverlayDidAndTheOverlayIsEmpty() throws {
        let base = directory["base.qcow2"]
        let path = directory["top.qcow2"]
        try QCOW2Creation(byteCount: 1 << 20).create(on: openFile(base))
        var creation = QCOW2Creation(byteCount: 3 << 20)
        creation.backing = (base, "qcow2")
        try creation.create(on: openFile(path))
        let backing = try QCOW2Image(file: openFile(base), isReadOnly: false, backing: nil)
        try backing.write(pattern(byteCount: 1 << 20, seed: 1), at: 0)
        let image = try QCOW2Image(file: openFile(path), isReadOnly: false, backing: backing)
        try image.write(pattern(byteCount: 300_032, seed: 2), at: 200_192)
        try image.write(pattern(byteCount: 4096, seed: 3), at: 2 << 20)
        try image.carryOut(BlockRequest(.writeZeroes(mayUnmap: true), offset: 786_432, byteCount: 65536, tag: 0))
        let before = try image.contents()
        try image.commit { (byteCount) throws(ImageError) in try backing.grow(to: byteCount) }
        #expect(try backing.contents() == before)
        try image.empty()
        #expect(try image.contents() == before)
        #expect(try image.source(at: 200_192, limit: 4096).source == .backing)
        try backing.close()
        try expectClean(base)
        try expectClean(path)
    }

    @Test func refcountsThatWereLostAreRebuiltAndLeaksAreGivenBack() throws {
        let path = directory["broken.qcow2"]
        try QCOW2Creation(byteCount: 4 << 20).create(on: openFile(path))
        let image = try QCOW2Image(file: openFile(path), isReadOnly: false, backing: nil)
        let bytes = pattern(byteCount: 1 << 20, seed: 8)
        try image.write(bytes, at: 65536)
        try image.close()
        let header = try QCOW2Header(readFrom: openFile(path))
        let file = try openFile(path)
        // The only refcount block follows the table: all of it becomes zero.
        try file.write([UInt8](repeating: 0, count: 65536), at: header.refcountTableOffset + 65536)
        let found = try QCOW2Check(file: file).check()
        #expect(found.undercountedClusters > 16 && found.leakedClusters == 0)
        #expect(try QCOW2Check(file: file).repair() == found)
        try expectClean(path)
        // A count of two for a cluster with one user: a leak.
        let table = try QCOW2Header(readFrom: file).refcountTableOffset
        let entry = try file.bytesOrZero(at: table, count: 8)
        let block = entry.reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        try file.write([0, 2], at: block)
        #expect(try QCOW2Check(file: file).check().leakedClusters == 1)
        if Tools.arePresent { #expect(try Tools.check(path).status == 3) }
        #expect(try QCOW2Check(file: file).repair().isSafe)
        try expectClean(path)
        let again = try QCOW2Image(file: openFile(path, readOnly: true), isReadOnly: true, backing: nil)
        #expect(try again.read(at: 65536, count: 1 << 20).array(0..<(1 << 20)) == bytes)
    }

    /// A repair that dies after each of its writes in turn, with some of them lost, is followed by one that does not.
    @Test func crashWhileRefcountsAreRebuiltLeavesAnImageThatCanBeRepaired() throws {
        let sound = CrashingFile()
        var creation = QCOW2Creation(byteCount: 2 << 20)
        creation.clusterBits = 9
        try creation.create(on: sound)
        let image = try QCOW2Image(file: sound, isReadOnly: false, backing: nil)
        try image.write(pattern(byteCount: 400_384, seed: 3), at: 65536)
        try image.close()
        let contents = try image.contents()
        var broken = sound.bytes
        // The second refcount block: 256 clusters lose their counts. The first one is cluster 2.
        let table = Int(image.header.refcountTableOffset)
        let second = broken[(table + 8)..<(table + 16)].reduce(0) { $0 << 8 | Int($1) }
        broken.replaceSubrange(second..<(second + 512), with: [UInt8](repeating: 0, count: 512))
        var numbers = SeededNumbers(seed: 5)
        var crashes = 0
        for writes in 0..<24 {
            let file = CrashingFile(bytes: broken)
            file.crash(after: writes)
            do { _ = try QCOW2Check(file: file).repair() } catch { crashes += 1 }
            let left = CrashingFile(bytes: file.remains(losingSectors: file.isCrashed, &numbers))
            _ = try QCOW2Check(file: left).repair()
            let report = try QCOW2Check(file: left).check()
            try #require(report.isClean, "after \(writes) writes: \(report.problems)")
            try #require(try QCOW2Image(file: left, isReadOnly: false, backing: nil).contents() == contents)
        }
        #expect(crashes > 6 && crashes < 24)
    }

    /// A thousand snapshots that all name the active L1 table: each would have the same tables read again.
    @Test func tablesThatAreNamedTooOftenEndTheCheck() throws {
        let file = CrashingFile()
        try QCOW2Creation(byteCount: 1 << 30).create(on: file)
        let image = try QCOW2Image(file: file, isReadOnly: false, backing: nil)
        try image.write(pattern(byteCount: 4096, seed: 1), at: 0)
        try image.close()
        let header = image.header
        func bigEndian(_ value: UInt64, _ count: Int) -> [UInt8] {
            (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64((count - 1 - $0) * 8)) }
        }
        let entry =
            bigEndian(header.l1Offset, 8) + bigEndian(UInt64(header.l1EntryCount), 4) + [UInt8](repeating: 0, count: 28)
        let end = file.byteCount
        try file.write((0..<1000).flatMap { _ in entry } + [UInt8](repeating: 0, count: 65536), at: end)
        try file.write(bigEndian(1000, 4) + bigEndian(end, 8), at: 60)
        let error = #expect(throws: ImageError.self) { try QCOW2Check(file: file, tableByteLimit: 1 << 20).check() }
        #expect(error?.code == .malformed)
    }

    @Test func entryThatPointsIntoATableIsNotWrittenThroughAndClosesTheImage() throws {
        let path = directory["hostile.qcow2"]
        try QCOW2Creation(byteCount: 4 << 20).create(on: openFile(path))
        do {
            let image = try QCOW2Image(file: openFile(path), isReadOnly: false, backing: nil)
            try image.write(pattern(byteCount: 4096, seed: 8), at: 0)
            try image.close()
        }
        let file = try openFile(path)
        let l1 = try QCOW2Header(readFrom: file).l1Offset
        let l2 =
            try file.bytesOrZero(at: l1, count: 8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) } & 0x00FF_FFFF_FFFF_FE00
        // The guest's first cluster is said to be the refcount table.
        try file.write([0x80, 0, 0, 0, 0, 1, 0, 0], at: l2)
        let before = try file.bytesOrZero(at: 65536, count: 65536)
        let image = try QCOW2Image(file: openFile(path), isReadOnly: false, backing: nil)
        let memory = ScratchMemory(byteCount: 4096)
        let write = BlockRequest(.write(isDurable: false), offset: 0, byteCount: 4096, tag: 0)
        #expect(image.perform(write, vectors: memory.vectors) == EIO)
        #expect(image.lastError?.description.contains("a guest's cluster lies in a table") == true)
        #expect(try file.bytesOrZero(at: 65536, count: 65536) == before)
        #expect(try QCOW2Header(readFrom: file).incompatibleFeatures == .corrupt)
        #expect(image.perform(write, vectors: memory.vectors) == EPERM)
        #expect(throws: ImageError.self) { try QCOW2Image(file: openFile(path), isReadOnly: false, backing: nil) }
        #expect(
            try QCOW2Image(file: openFile(path, readOnly: true), isReadOnly: true, backing: nil).byteCount == 4 << 20)
    }

    @Test func requestsOutsideOfTheDiskOrAgainstAReadOnlyOneAreRefused() throws {
        let path = directory["a.qcow2"]
        try QCOW2Creation(byteCount: 1 << 20).create(on: openFile(path))
        let image = try QCOW2Image(file: openFile(path), isReadOnly: true, backing: nil)
        let memory = ScratchMemory(byteCount: 1024)
        func end(_ operation: BlockRequest.Operation, _ offset: UInt64) -> CInt {
            image.perform(BlockRequest(operation, offset: offset, byteCount: 1024, tag: 0), vectors: memory.vectors)
        }
        #expect(end(.read, 1 << 20 - 512) == EINVAL)
        #expect(end(.read, .max - 100) == EINVAL)
        #expect(end(.write(isDurable: false), 0) == EROFS)
        #expect(end(.discard, 0) == EROFS)
        #expect(end(.read, 1 << 20 - 1024) == 0)
    }

    /// A disk of 8 MiB in a file system with room for 3, and on a device of 3.
    @Test(arguments: [true, false]) func fullHostIsAnErrorOfTheRequestAndPassesWithTheNextDiscard(canGrow: Bool) throws
    {
        let capacity = 3 << 20
        let file = CrashingFile(
            bytes: canGrow ? [] : [UInt8](repeating: 0xA5, count: capacity), canGrow: canGrow, capacity: capacity)
        var creation = QCOW2Creation(byteCount: 8 << 20)
        creation.clusterBits = 12
        try creation.create(on: file)
        let image = try QCOW2Image(file: file, isReadOnly: false, backing: nil)
        let memory = ScratchMemory(byteCount: 65536)
        var model = [UInt8](repeating: 0, count: 8 << 20)
        func write(_ place: Int, _ value: UInt8) -> CInt {
            let bytes = [UInt8](repeating: value, count: 65536)
            memory.vectors.fill(from: bytes, at: 0)
            let request = BlockRequest(.write(isDurable: false), offset: UInt64(place), byteCount: 65536, tag: 0)
            return image.perform(request, vectors: memory.vectors)
        }
        var failures = 0
        // 96 KiB apart and 64 KiB long, so that there are holes.
        for number in 0..<80 {
            let place = number * 98_304
            let result = write(place, UInt8(number + 1))
            if result == 0 {
                model.replaceSubrange(
                    place..<(place + 65536), with: [UInt8](repeating: UInt8(number + 1), count: 65536))
            } else {
                #expect(result == ENOSPC)
                failures += 1
                // A part of a request that failed may have been written.
                model.replaceSubrange(
                    place..<(place + 65536), with: try image.read(at: UInt64(place), count: 65536).array(0..<65536))
            }
        }
        #expect(failures > 20 && failures < 60)
        try image.flush()
        #expect(try image.contents() == model)
        try image.carryOut(BlockRequest(.discard, offset: 0, byteCount: 1 << 20, tag: 0))
        model.replaceSubrange(0..<(1 << 20), with: [UInt8](repeating: 0, count: 1 << 20))
        try image.flush()
        for number in 0..<8 {
            #expect(write(7 << 20 + number * 65536, 0xEE) == 0)
            model.replaceSubrange(
                (7 << 20 + number * 65536)..<(7 << 20 + number * 65536 + 65536),
                with: [UInt8](repeating: 0xEE, count: 65536))
        }
        try image.close()
        #expect(try image.contents() == model)
        #expect(try QCOW2Check(file: file).check().isClean)
    }

    /// Two queues work on clusters of 4 KiB that belong to one of them by turns, so that both change the same tables, while
    /// discards give clusters back for the other one to take.
    @Test func twoQueuesAtOnceDoNotDisturbEachOther() throws {
        var creation = QCOW2Creation(byteCount: 4 << 20)
        creation.clusterBits = 12
        let path = directory["queues.qcow2"]
        try creation.create(on: openFile(path))
        let image = try QCOW2Image(file: openFile(path), isReadOnly: false, backing: nil, cacheByteLimit: 64 << 10)
        let clusters = 1024
        let results = (0..<2).map { _ in ThreadResult() }
        let threads = (0..<2).map { number -> Foundation.Thread in
            let thread = Foundation.Thread {
                do { results[number].sectors = try exercise(image, number, clusters) } catch {
                    results[number].failure = "\(error)"
                }
                results[number].done.signal()
            }
            thread.start()
            return thread
        }
        for result in results { #expect(result.done.wait(timeout: .now() + 60) == .success) }
        _ = threads
        for result in results { #expect(result.failure == nil) }
        let contents = try image.contents()
        for cluster in 0..<clusters {
            let expected = results[cluster % 2].sectors[cluster]
            try #require(
                contents[(cluster * 4096)..<(cluster * 4096 + 4096)].allSatisfy { $0 == expected }, "cluster \(cluster)"
            )
        }
        try image.close()
        try expectClean(path)
    }
}

private final class ThreadResult: @unchecked Sendable {
    // @unchecked: written by one thread before `done`, read after it.
    var sectors: [UInt8] = []
    var failure: String?
    let done = DispatchSemaphore(value: 0)
}

/// Writes and discards whole clusters of one parity through a queue of its own; what each holds at the end.
private func exercise(_ image: QCOW2Image, _ parity: Int, _ clusters: Int) throws -> [UInt8] {
    var numbers = SeededNumbers(seed: UInt64(parity) + 40)
    var model = [UInt8](repeating: 0, count: clusters)
    let depth = 8
    let queue = try image.makeQueue(depth: depth, vectorLimit: 2)
    let memory = ScratchMemory(byteCount: depth * 4096)
    for _ in 0..<150 {
        // Different clusters in one batch: their order is the queue's.
        var chosen: Set<Int> = []
        for tag in 0..<depth {
            let cluster = Int.random(in: 0..<(clusters / 2), using: &numbers) * 2 + parity
            let isFlush = Int.random(in: 0..<20, using: &numbers) == 0
            guard chosen.insert(cluster).inserted, !isFlush else {
                queue.submit(BlockRequest(.flush, tag: tag), vectorCount: 0)
                continue
            }
            let offset = UInt64(cluster * 4096)
            if Int.random(in: 0..<3, using: &numbers) == 0 {
                queue.submit(BlockRequest(.discard, offset: offset, byteCount: 4096, tag: tag), vectorCount: 0)
                model[cluster] = 0
            } else {
                let value = UInt8.random(in: 1...255, using: &numbers)
                let base = try #require(memory.bytes.baseAddress) + tag * 4096
                memset(base, CInt(value), 4096)
                queue.vectors(for: tag)[0] = iovec(iov_base: base, iov_len: 1000)
                queue.vectors(for: tag)[1] = iovec(iov_base: base + 1000, iov_len: 3096)
                queue.submit(
                    BlockRequest(.write(isDurable: false), offset: offset, byteCount: 4096, tag: tag), vectorCount: 2)
                model[cluster] = value
            }
        }
        queue.commit()
        var ends: [BlockCompletion] = []
        let deadline = Date().addingTimeInterval(20)
        while ends.count < depth, Date() < deadline {
            var wait = pollfd(fd: queue.completionDescriptor, events: Int16(POLLIN), revents: 0)
            poll(&wait, 1, 100)
            queue.reap { ends.append($0) }
        }
        try #require(ends.count == depth && ends.allSatisfy { $0.errno == 0 })
    }
    return model
}

@Suite struct ImageFormatTests {
    @Test func formatIsTheOwnersWordAndNotTheContents() throws {
        let directory = try TemporaryDirectory()
        try QCOW2Creation(byteCount: 1 << 20).create(on: directory.open("a"))
        func open(_ format: ImageFormat, isReadOnly: Bool = true) throws -> any BlockingImage {
            try format.open(
                owning: OwnedDescriptor(owning: Glibc.open(directory["a"], O_RDWR)), named: "a", isReadOnly: isReadOnly)
        }
        #expect(try open(.qcow2, isReadOnly: false).byteCount == 1 << 20)
        // A raw disk on which a guest wrote a header stays a raw disk.
        #expect(try open(.raw).read(at: 0, count: 4).array(0..<4) == [0x51, 0x46, 0x49, 0xFB])
        for format in [ImageFormat.vmdk, .vhd, .vhdx, .vdi] {
            #expect(throws: ImageError.self) { try open(format) }
            let error = #expect(throws: ImageError.self) { try open(format, isReadOnly: false) }
            #expect(error?.code == .refused)
        }
        #expect(throws: ImageError.self) {
            try ImageFormat.raw.open(
                owning: OwnedDescriptor(owning: Glibc.open(directory["a"], O_RDWR)), named: "a", isReadOnly: true,
                backing: open(.raw))
        }
    }
}
