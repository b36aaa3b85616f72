import Foundation
import Glibc
import Synchronization
import Testing

@testable import MachineDriver

struct ImageCacheTests {
    private let scratch: Scratch
    private let cache: ImageCache

    init() throws {
        scratch = try Scratch()
        cache = ImageCache(directory: scratch.path + "/_base")
    }

    @Test func fileIsNamedAsNovaDoes() {
        #expect(cache.path(of: "abc") == scratch.path + "/_base/a9993e364706816aba3e25717850c26c9cd0d89d")
    }

    @Test func concurrentFetchesShareOneDownload() async throws {
        let counter = Counter()
        let shared = cache
        try await withThrowingTaskGroup(of: Int64.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    let file = try await shared.open("abc") { _, descriptor in
                        counter.value.add(1, ordering: .relaxed)
                        try await Task.sleep(for: .milliseconds(20))
                        return Int64(write(descriptor, "data", 4))
                    } check: { _ in
                    }
                    return try Files.byteCount(of: file, named: "abc")
                }
            }
            for try await size in group { #expect(size == 4) }
        }
        #expect(counter.value.load(ordering: .relaxed) == 1)
        #expect(scratch.names("/_base") == ["a9993e364706816aba3e25717850c26c9cd0d89d"])
    }

    private struct Broken: Error {}
    private final class Counter: Sendable { let value = Atomic(0) }

    @Test func failedCutRefusedAndCancelledDownloadsLeaveNothing() async throws {
        await #expect(throws: Broken.self) {
            try await cache.open("abc") { _, descriptor in
                _ = write(descriptor, "da", 2); throw Broken()
            } check: { _ in
            }
        }
        #expect(scratch.names("/_base") == [])
        await #expect(throws: ImageCut.self) {
            try await cache.open("abc") { _, descriptor in
                _ = write(descriptor, "da", 2); return 4
            } check: { _ in
            }
        }
        #expect(scratch.names("/_base") == [])
        await #expect(throws: Broken.self) {
            try await cache.open("abc") { _, descriptor in
                Int64(write(descriptor, "da", 2))
            } check: { _ in
                throw Broken()
            }
        }
        #expect(scratch.names("/_base") == [])
        let shared = cache
        let download = Task {
            try await shared.open("abc") { _, descriptor in
                _ = write(descriptor, "da", 2)
                try await Task.sleep(for: .seconds(60))
                return 2
            } check: { _ in
            }
        }
        _ = try await eventually("the download began") { scratch.names("/_base").isEmpty ? nil : true }
        let waiter = Task {
            try await shared.open(
                "abc", fetch: { _, descriptor in Int64(write(descriptor, "whole", 5)) }, check: { _ in })
        }
        download.cancel()
        await #expect(throws: CancellationError.self) { _ = try await download.value }
        // Who waited for it is not harmed.
        #expect(try Files.byteCount(of: await waiter.value, named: "abc") == 5)
    }

    @Test func partsOfACrashAreRemoved() throws {
        try Files.makeDirectories(scratch.path + "/_base")
        try Files.write(scratch.path + "/_base/x.part", [1])
        try Files.write(scratch.path + "/_base/y", [1])
        try cache.removeParts()
        #expect(scratch.names("/_base") == ["y"])
    }

    @Test func cancelledWaiterLeavesTheLockToOthers() async throws {
        let locks = KeyedLocks()
        let (gate, open) = AsyncStream.makeStream(of: Void.self)
        let (entered, enter) = AsyncStream.makeStream(of: Void.self)
        let holder = Task {
            try await locks.withLock("k") {
                enter.yield()
                for await _ in gate { break }
            }
        }
        for await _ in entered { break }
        let waiter = Task { try await locks.withLock("k") {} }
        waiter.cancel()
        await #expect(throws: CancellationError.self) { try await waiter.value }
        open.yield()
        try await holder.value
        #expect(try await locks.withLock("k") { 5 } == 5)
    }
}
