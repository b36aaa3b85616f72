// Disks as raw files: copied with their holes, grown by a hole.
import CServiceHost
import Glibc

enum DiskFiles {
    private static let pieceByteCount: Int64 = 16 << 20

    /// Copies `source` to the new file `path`, sharing blocks where the file system can, then grows it to `byteCount`.
    /// `isCancelled` is asked between pieces. On failure there is no file.
    static func copy(
        _ source: Descriptor, named sourceName: String, to path: String, byteCount: Int64, isCancelled: () -> Bool
    ) throws {
        let target = try Descriptor(opening: path, O_RDWR | O_CREAT | O_EXCL)
        do {
            let length = try Files.byteCount(of: source, named: sourceName)
            if apus_host_clone(target.rawValue, source.rawValue) != 0 {
                try copyData(source, sourceName, to: target, path, length: length, isCancelled: isCancelled)
            }
            guard ftruncate(target.rawValue, off_t(max(length, byteCount))) == 0 else {
                throw HostFailure("grow disk", path)
            }
            guard fsync(target.rawValue) == 0 else { throw HostFailure("write", path) }
        } catch {
            unsafe unlink(path)
            throw error
        }
    }

    /// Copies what `source` has into the empty file `target`.
    static func copy(
        _ source: Descriptor, named sourceName: String, to target: Descriptor, named path: String, isCancelled: () -> Bool
    ) throws {
        let length = try Files.byteCount(of: source, named: sourceName)
        try copyData(source, sourceName, to: target, path, length: length, isCancelled: isCancelled)
        guard ftruncate(target.rawValue, off_t(length)) == 0 else { throw HostFailure("grow disk", path) }
    }

    private static func copyData(
        _ source: Descriptor, _ sourceName: String, to target: Descriptor, _ path: String, length: Int64,
        isCancelled: () -> Bool
    ) throws {
        var position: Int64 = 0
        while position < length {
            let data = apus_host_next_data(source.rawValue, position)
            if data < 0 && errno == ENXIO { return }  // only a hole is left
            var from = position, to = length
            if data >= 0 {
                from = data
                let hole = apus_host_next_hole(source.rawValue, data)
                if hole > data { to = min(hole, length) }
            }
            while from < to {
                if isCancelled() { throw CancellationError() }
                let count = apus_host_copy(target.rawValue, source.rawValue, from, min(to - from, pieceByteCount))
                guard count >= 0 else { throw HostFailure("copy \(sourceName) to", path) }
                guard count > 0 else { return }  // the source became shorter
                from += count
            }
            position = to
        }
    }

    /// A new disk that is one hole.
    static func makeEmpty(_ path: String, byteCount: Int64) throws(HostFailure) {
        let file = try Descriptor(opening: path, O_RDWR | O_CREAT | O_EXCL)
        guard ftruncate(file.rawValue, off_t(byteCount)) == 0 else {
            let failure = HostFailure("make disk", path)
            unsafe unlink(path)
            throw failure
        }
    }

    /// The same file under a second name, or a copy where that cannot be.
    static func linkOrCopy(_ path: String, to newPath: String, isCancelled: () -> Bool) throws {
        if unsafe link(path, newPath) == 0 { return }
        guard errno == EXDEV || errno == EPERM || errno == EMLINK else {
            throw HostFailure("link", "\(path) to \(newPath)")
        }
        try copy(
            try Descriptor(opening: path, O_RDONLY), named: path, to: newPath, byteCount: 0, isCancelled: isCancelled)
    }
}
