import DiskImage
import Foundation
import HostSystem
import Synchronization
import Testing

private let engines: [RawImage.Engine] = [.automatic, .thread]

/// An unlinked temporary file of `byteCount` bytes, opened with `flags`.
private func makeImage(byteCount: Int, engine: RawImage.Engine) throws -> (image: RawImage, descriptor: CInt) {
    var path = Array("/tmp/apus-image-test-XXXXXX".utf8CString)
    let descriptor = mkstemp(&path)
    unlink(path)
    ftruncate(descriptor, off_t(byteCount))
    let image = try RawImage(
        owning: OwnedDescriptor(owning: dup(descriptor)), named: "test", isReadOnly: false, engine: engine)
    return (image, descriptor)
}

/// Reaps until `count` completions came, at most five seconds.
private func reap(_ queue: any BlockQueue, _ count: Int) -> [BlockCompletion] {
    var all: [BlockCompletion] = []
    let deadline = Date().addingTimeInterval(5)
    while all.count < count, Date() < deadline {
        var wait = pollfd(fd: queue.completionDescriptor, events: Int16(POLLIN), revents: 0)
        poll(&wait, 1, 100)
        queue.reap { all.append($0) }
    }
    return all
}

@Suite struct RawImageTests {
    @Test(arguments: engines) func sixtyFourWritesInFlightAllLand(engine: RawImage.Engine) throws {
        let (image, descriptor) = try makeImage(byteCount: 64 * 4096, engine: engine)
        defer { close(descriptor) }
        let queue = try image.makeQueue(depth: 64, vectorLimit: 4)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: 64 * 4096, alignment: 4096)
        defer { memory.deallocate() }
        for tag in 0..<64 {
            memset(memory + tag * 4096, CInt(tag + 1), 4096)
            // Two vectors, so that gathering is exercised.
            queue.vectors(for: tag)[0] = iovec(iov_base: memory + tag * 4096, iov_len: 1000)
            queue.vectors(for: tag)[1] = iovec(iov_base: memory + tag * 4096 + 1000, iov_len: 3096)
            let request = BlockRequest(
                .write(isDurable: tag % 2 == 0), offset: UInt64(tag * 4096), byteCount: 4096, tag: tag)
            queue.submit(request, vectorCount: 2)
        }
        queue.commit()
        let completions = reap(queue, 64)
        #expect(Set(completions.map(\.tag)) == Set(0..<64))
        #expect(completions.allSatisfy { $0.errno == 0 })
        var byte: UInt8 = 0
        for tag in 0..<64 {
            pread(descriptor, &byte, 1, off_t(tag * 4096 + 2000))
            #expect(byte == UInt8(tag + 1))
        }
    }

    @Test(arguments: engines) func readAcrossTheEndIsAnError(engine: RawImage.Engine) throws {
        let (image, descriptor) = try makeImage(byteCount: 4096, engine: engine)
        defer { close(descriptor) }
        let queue = try image.makeQueue(depth: 2, vectorLimit: 1)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: 8192, alignment: 4096)
        defer { memory.deallocate() }
        queue.vectors(for: 1)[0] = iovec(iov_base: memory, iov_len: 8192)
        queue.submit(BlockRequest(.read, offset: 0, byteCount: 8192, tag: 1), vectorCount: 1)
        queue.commit()
        #expect(reap(queue, 1).map(\.errno) == [EIO])
    }

    @Test(arguments: engines) func discardGivesSpaceBack(engine: RawImage.Engine) throws {
        let (image, descriptor) = try makeImage(byteCount: 1 << 20, engine: engine)
        defer { close(descriptor) }
        let queue = try image.makeQueue(depth: 2, vectorLimit: 1)
        let ones = [UInt8](repeating: 0xFF, count: 1 << 20)
        pwrite(descriptor, ones, ones.count, 0)
        queue.submit(BlockRequest(.discard, offset: 4096, byteCount: 8192, tag: 0), vectorCount: 0)
        queue.commit()
        #expect(reap(queue, 1).map(\.errno) == [0])
        var byte: UInt8 = 1
        pread(descriptor, &byte, 1, 5000)
        #expect(byte == 0)
    }

    @Test func grownImageShowsItsNewSizeAfterRefresh() throws {
        let (image, descriptor) = try makeImage(byteCount: 4096, engine: .thread)
        defer { close(descriptor) }
        ftruncate(descriptor, 8192)
        #expect(image.byteCount == 4096)
        try image.refreshSize()
        #expect(image.byteCount == 8192)
    }

    /// A read that blocks until it is let go does not keep the requests behind it.
    @Test func requestsOverlapOnABlockingImage() throws {
        let image = GatedImage()
        let queue = try image.makeQueue(depth: 8, vectorLimit: 1)
        for tag in 0..<3 { queue.submit(BlockRequest(.flush, offset: UInt64(tag), tag: tag), vectorCount: 0) }
        queue.commit()
        for tag in 3..<6 {
            queue.submit(BlockRequest(.flush, offset: UInt64(tag), tag: tag), vectorCount: 0)
            queue.commit()
        }
        // Request 0 waits for request 5's end.
        #expect(Set(reap(queue, 6).map(\.tag)) == Set(0..<6))
    }

    /// What a format keeps in memory is written back when nothing has come for a second, and when the queue goes.
    @Test func idleQueueSettlesItsImage() throws {
        let image = GatedImage()
        var queue: (any BlockQueue)? = try image.makeQueue(depth: 8, vectorLimit: 1)
        queue?.submit(BlockRequest(.flush, offset: 5, tag: 0), vectorCount: 0)
        queue?.commit()
        let deadline = Date().addingTimeInterval(20)
        while image.settledCount == 0, Date() < deadline { usleep(20_000) }
        #expect(image.settledCount == 1)
        queue = nil
        while image.settledCount == 1, Date() < deadline { usleep(20_000) }
        #expect(image.settledCount == 2)
    }

    @Test func descriptorThatIsNotOpenIsRefusedInWords() throws {
        #expect(throws: HostError.self) {
            try RawImage(owning: OwnedDescriptor(owning: 9999), named: "absent", isReadOnly: false)
        }
    }
}

/// The request at offset 0 ends after that at offset 5.
private final class GatedImage: BlockingImage {
    let byteCount: UInt64 = 4096
    let isReadOnly = false
    let logicalBlockByteCount: UInt32 = 512
    let physicalBlockByteCount: UInt32 = 4096
    private let gate = DispatchSemaphore(value: 0)
    private let settled = Atomic<Int>(0)
    var settledCount: Int { settled.load(ordering: .relaxed) }

    func perform(_ request: BlockRequest, vectors: TransferVectors) -> CInt {
        if request.offset == 0 { gate.wait() }
        if request.offset == 5 { gate.signal() }
        return 0
    }
    func settle() { settled.wrappingAdd(1, ordering: .relaxed) }
}
