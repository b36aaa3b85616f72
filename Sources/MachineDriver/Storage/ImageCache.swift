// Images as they came, below <instances_path>/<_base>, each under the SHA-1 of its id as Nova names them. A file in there is
// complete: it gets its name after its last byte is on the disk. Fetches of one image at one time share one download.
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

    /// The image's file, opened for reading; fetched first where it is missing. `check` looks at new data before it is kept.
    /// A download that fails, is cut or cancelled leaves nothing; one who waited for it then tries by himself.
    func open(
        _ imageID: String, fetch: @Sendable (String, CInt) async throws -> Int64,
        check: @escaping @Sendable (Descriptor) throws -> Void
    ) async throws -> Descriptor {
        let path = path(of: imageID)
        return try await locks.withLock(path) {
            if let file = try await blocking({ try Self.existing(path) }) {
                try await blocking { try check(file) }
                return file
            }
            return try await download(imageID, to: path, fetch: fetch, check: check)
        }
    }

    private static func existing(_ path: String) throws(HostFailure) -> Descriptor? {
        do { return try Descriptor(opening: path, O_RDONLY) } catch {
            if error.errno == ENOENT { return nil }
            throw error
        }
    }

    private func download(
        _ imageID: String, to path: String, fetch: @Sendable (String, CInt) async throws -> Int64,
        check: @escaping @Sendable (Descriptor) throws -> Void
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
