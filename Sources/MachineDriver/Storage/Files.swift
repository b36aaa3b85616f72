// Small files that are complete or absent: temporary name, fsync, rename, fsync of the directory.
import Glibc

enum Files {
    /// Longest file this driver reads whole.
    static let readLimit = 4 << 20

    /// What `path` holds; nil where there is no such file. At most `limit` bytes, else EFBIG.
    static func read(_ path: String, limit: Int = readLimit) throws(HostFailure) -> [UInt8]? {
        let file: Descriptor
        do { file = try Descriptor(opening: path, O_RDONLY) } catch {
            if error.errno == ENOENT || error.errno == ENOTDIR { return nil }
            throw error
        }
        var content: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            // SAFETY: the buffer is ours and as long as said.
            let count = unsafe Glibc.read(file.rawValue, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            // A file of /proc whose process ended after it was opened: as good as missing.
            if count < 0 && errno == ESRCH { return nil }
            guard count >= 0 else { throw HostFailure("read", path) }
            if count == 0 { return content }
            content += buffer[..<count]
            guard content.count <= limit else { throw HostFailure("read", path, errno: EFBIG) }
        }
    }

    static func text(_ path: String) throws(HostFailure) -> String? {
        try read(path).map { String(decoding: $0, as: UTF8.self) }
    }

    /// Replaces `path` by `content`, durably: after a crash it holds the old or the new.
    static func replace(_ path: String, with content: [UInt8], mode: mode_t = 0o600) throws(HostFailure) {
        let temporary = path + ".new"
        try write(temporary, content, mode: mode)
        try rename(temporary, to: path)
    }

    /// Writes a new file and makes its content durable, not its name.
    static func write(_ path: String, _ content: [UInt8], mode: mode_t = 0o600) throws(HostFailure) {
        do throws(HostFailure) {
            let file = try Descriptor(opening: path, O_WRONLY | O_CREAT | O_TRUNC, mode: mode)
            try append(content, to: file, named: path)
            guard fsync(file.rawValue) == 0 else { throw HostFailure("write", path) }
        } catch {
            unsafe unlink(path)
            throw error
        }
    }

    static func append(_ content: [UInt8], to file: Descriptor, named path: String) throws(HostFailure) {
        var done = 0
        while done < content.count {
            let rest = content[done...]
            // SAFETY: the slice's own bytes, only read.
            let count = unsafe rest.withUnsafeBytes { unsafe Glibc.write(file.rawValue, $0.baseAddress, $0.count) }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw HostFailure("write", path) }
            done += count
        }
    }

    /// Renames, and makes the name durable.
    static func rename(_ path: String, to newPath: String) throws(HostFailure) {
        guard unsafe Glibc.rename(path, newPath) == 0 else { throw HostFailure("rename", "\(path) to \(newPath)") }
        try synchronizeDirectory(of: newPath)
    }

    static func synchronizeDirectory(of path: String) throws(HostFailure) {
        let parent = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        let directory = try Descriptor(opening: parent.isEmpty ? "/" : parent, O_RDONLY | O_DIRECTORY)
        guard fsync(directory.rawValue) == 0 else { throw HostFailure("write directory", parent) }
    }

    /// Makes a directory and those above it.
    static func makeDirectories(_ path: String, mode: mode_t = 0o755) throws(HostFailure) {
        if unsafe mkdir(path, mode) == 0 { return }
        switch errno {
        case EEXIST: return
        case ENOENT:
            guard let slash = path.lastIndex(of: "/"), slash > path.startIndex else {
                throw HostFailure("create", path)
            }
            try makeDirectories(String(path[..<slash]))
            guard unsafe mkdir(path, mode) == 0 || errno == EEXIST else { throw HostFailure("create", path) }
        default: throw HostFailure("create", path)
        }
    }

    /// Names in a directory; none where there is no such directory.
    static func names(in path: String) throws(HostFailure) -> [String] {
        // SAFETY: the stream is ours until closedir; each entry is read before the next readdir, and its name is terminated.
        guard let stream = unsafe opendir(path) else {
            if errno == ENOENT { return [] }
            throw HostFailure("list", path)
        }
        defer { unsafe closedir(stream) }
        var names: [String] = []
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafeBytes(of: entry.pointee.d_name) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// Removes a directory of files and directories; links are removed, not followed. None is no error.
    static func removeTree(_ path: String) throws(HostFailure) {
        if unsafe unlink(path) == 0 || errno == ENOENT { return }
        guard errno == EISDIR || errno == EPERM else { throw HostFailure("remove", path) }
        for name in try names(in: path) { try removeTree("\(path)/\(name)") }
        guard unsafe rmdir(path) == 0 || errno == ENOENT else { throw HostFailure("remove", path) }
    }

    static func isExecutable(_ path: String) -> Bool { unsafe access(path, X_OK) == 0 }

    static func exists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }

    static func byteCount(of file: Descriptor, named path: String) throws(HostFailure) -> Int64 {
        var status = stat()
        guard unsafe fstat(file.rawValue, &status) == 0 else { throw HostFailure("examine", path) }
        return Int64(status.st_size)
    }
}
