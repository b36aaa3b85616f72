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

    @Test func convertedImageIsKeptInPlaceOfWhatCame() async throws {
        let counter = Counter()
        for _ in 0..<2 {
            let file = try await cache.open("abc") { _, descriptor in
                counter.value.add(1, ordering: .relaxed)
                return Int64(write(descriptor, "packed", 6))
            } check: { _ in
            } conversion: { source, path, _ in
                #expect(try Files.byteCount(of: source, named: "abc") == 6)
                try Files.write(path, Array("unpacked".utf8))
            }
            #expect(try Files.byteCount(of: file, named: "abc") == 8)
        }
        #expect(counter.value.load(ordering: .relaxed) == 1, "converted once")
        #expect(scratch.names("/_base") == ["a9993e364706816aba3e25717850c26c9cd0d89d.raw"])
        await #expect(throws: Broken.self) {
            try await cache.open("def") { _, descriptor in
                Int64(write(descriptor, "packed", 6))
            } check: { _ in
            } conversion: { _, path, _ in
                try Files.write(path, [1])
                throw Broken()
            }
        }
        #expect(scratch.names("/_base").count == 1)
    }

    @Test func whatNothingUsesGoesWhenItIsOldEnough() async throws {
        for id in ["used", "young", "old"] {
            _ = try await cache.open(id) { _, descriptor in Int64(write(descriptor, "data", 4)) } check: { _ in }
        }
        func age(_ id: String, _ seconds: Int) {
            let when = timespec(tv_sec: time(nil) - seconds, tv_nsec: 0)
            utimensat(AT_FDCWD, cache.path(of: id), [when, when], 0)
        }
        for (id, seconds) in [("used", 200_000), ("young", 100), ("old", 90_000)] { age(id, seconds) }
        #expect(try await cache.removeUnused(except: ["used"], olderThan: 86_400) == 1)
        #expect(Set(scratch.names("/_base")) == Set(["used", "young"].map { String(cache.path(of: $0).split(separator: "/").last ?? "") }))
        // Its age counts from its last use.
        #expect(try await cache.removeUnused(except: [], olderThan: 86_400) == 0)
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
