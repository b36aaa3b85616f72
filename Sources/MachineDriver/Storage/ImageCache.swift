// Images below <instances_path>/<_base>, each under the SHA-1 of its id as Nova names them; one in a format of its own is kept as the
// raw disk it becomes, ".raw" after its name. A file in there is complete: it gets its name after its last byte is on the disk. Fetches
// of one image at one time share one download.
import ComputeDriver
import Crypto
import Glibc

final class ImageCache: Sendable {
    let directory: String
    private let locks = KeyedLocks()

    init(directory: String) { self.directory = directory }

    func path(of imageID: String) -> String {
        let digits = Array("0123456789abcdef".utf8)
        let name = Insecure.SHA1.hash(data: Array(imageID.utf8)).flatMap {
            [digits[Int($0 >> 4)], digits[Int($0 & 15)]]
        }
        return "\(directory)/\(String(decoding: name, as: UTF8.self))"
    }

    /// Makes a new file from what was downloaded, and asks its last argument between pieces whether to stop.
    typealias Conversion = @Sendable (Descriptor, String, () -> Bool) throws -> Void

    /// The image's file, opened for reading; fetched first where it is missing. `check` looks at new data before it is kept, and
    /// at what is there; `conversion` makes what is kept. A download that fails, is cut or cancelled leaves nothing; one who waited
    /// for it then tries by himself.
    func open(
        _ imageID: String, fetch: @Sendable (String, CInt) async throws -> Int64,
        check: @escaping @Sendable (Descriptor) throws -> Void, conversion: Conversion? = nil
    ) async throws -> Descriptor {
        let path = path(of: imageID) + (conversion == nil ? "" : Self.convertedSuffix)
        return try await locks.withLock(path) {
            if let file = try await blocking({ try Self.existing(path) }) {
                if conversion == nil { try await blocking { try check(file) } }
                return file
            }
            let file = try await download(imageID, to: path, fetch: fetch, check: check, isKept: conversion == nil)
            guard let conversion else { return file }
            return try await convert(file, to: path, conversion)
        }
    }

    private func convert(_ file: Descriptor, to path: String, _ conversion: @escaping Conversion) async throws -> Descriptor {
        let part = path + Self.partSuffix
        do {
            return try await blockingCancellably { isCancelled in
                unsafe unlink(part)
                try conversion(file, part, isCancelled)
                try Files.rename(part, to: path)
                return try Descriptor(opening: path, O_RDONLY)
            }
        } catch {
            _ = try? await blocking { unsafe unlink(part) }
            throw error
        }
    }

    private static let convertedSuffix = ".raw"

    /// Removes images that none of `imageIDs` is and that nobody has used for `age` seconds. - Returns: how many.
    func removeUnused(except imageIDs: Set<String>, olderThan age: Int) async throws -> Int {
        let used = Set(imageIDs.flatMap { [path(of: $0), path(of: $0) + Self.convertedSuffix] })
        let names = try await blocking { [directory] in try Files.names(in: directory) }
        var count = 0
        for name in names where !name.hasSuffix(Self.partSuffix) {
            let path = "\(directory)/\(name)"
            // Under its lock: nobody is about to open it.
            let isRemoved = try await locks.withLock(path) {
                try await blocking {
                    if used.contains(path) {
                        // Its age counts from its last use, as Nova has it.
                        _ = unsafe utimensat(AT_FDCWD, path, nil, 0)
                        return false
                    }
                    var status = stat()
                    guard unsafe stat(path, &status) == 0, time(nil) - status.st_mtim.tv_sec >= age else { return false }
                    try Files.removeTree(path)
                    return true
                }
            }
            if isRemoved { count += 1 }
        }
        return count
    }

    private static func existing(_ path: String) throws(HostFailure) -> Descriptor? {
        do { return try Descriptor(opening: path, O_RDONLY) } catch {
            if error.errno == ENOENT { return nil }
            throw error
        }
    }

    private func download(
        _ imageID: String, to path: String, fetch: @Sendable (String, CInt) async throws -> Int64,
        check: @escaping @Sendable (Descriptor) throws -> Void, isKept: Bool
    ) async throws -> Descriptor {
        let part = path + Self.partSuffix
        let file = try await blocking { [directory] in
            try Files.makeDirectories(directory)
            unsafe unlink(part)
            return try Descriptor(opening: part, O_RDWR | O_CREAT | O_EXCL, mode: 0o644)
        }
        do {
            let announced = try await fetch(imageID, file.rawValue)
            try Task.checkCancellation()
            try await blocking {
                let byteCount = try Files.byteCount(of: file, named: part)
                guard byteCount == announced else {
                    throw ImageCut(imageID: imageID, byteCount: byteCount, announced: announced)
                }
                try check(file)
                guard isKept else {
                    unsafe unlink(part)
                    return
                }
                guard fsync(file.rawValue) == 0 else { throw HostFailure("write", part) }
                try Files.rename(part, to: path)
            }
            return file
        } catch {
            let isFull = await (try? blocking { Self.isFull(file) }) ?? false
            _ = try? await blocking { unsafe unlink(part) }
            // The fetcher is a stranger here: whatever it calls its error, a full disk has one name.
            guard isFull, !(error is DriverError), !(error is CancellationError) else { throw error }
            throw HostFailure("write image \(imageID) to", "\(part) (\(error))", errno: ENOSPC)
        }
    }

    private static let partSuffix = ".part"

    private static func isFull(_ file: Descriptor) -> Bool {
        var space = statvfs()
        guard unsafe fstatvfs(file.rawValue, &space) == 0 else { return false }
        return space.f_bavail &* space.f_frsize < 64 << 10
    }

    /// Downloads that a crash cut.
    func removeParts() throws {
        for name in try Files.names(in: directory) where name.hasSuffix(Self.partSuffix) {
            try Files.removeTree("\(directory)/\(name)")
        }
    }
}

/// The fetcher said it wrote more or less than the file has.
struct ImageCut: Error, CustomStringConvertible {
    let imageID: String
    let byteCount: Int64
    let announced: Int64

    var description: String { "image \(imageID): \(byteCount) bytes arrived of \(announced)" }
}
