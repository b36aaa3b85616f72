// The files of a config drive as directories: what both naming schemes of the image are laid out from.

/// A path, a name or a size that an ISO 9660 image cannot hold.
struct ConfigDriveError: Error, Sendable, Equatable, CustomStringConvertible {
    let path: String
    let reason: String

    var description: String { "put \"\(path)\" on the config drive: \(reason)" }
}

/// A directory tree in breadth-first order, as ISO 9660's path tables want it.
struct FileTree: Sendable {
    struct Directory: Sendable {
        var name: String
        /// Index of the directory it is in; the root is in itself.
        var parent: Int
        /// Indices of `directories` and `files`.
        var directories: [Int] = []
        var files: [Int] = []
    }
    struct File: Sendable {
        var name: String
        var content: [UInt8]
    }
    /// Names within Joliet's 64 characters, and within one directory record in Rock Ridge's bytes.
    static let nameLimit = 64, nameByteLimit = 128
    static let depthLimit = 8, byteLimit = 64 << 20

    private(set) var directories = [Directory(name: "", parent: 0)]
    private(set) var files: [File] = []

    init(_ content: [String: [UInt8]]) throws(ConfigDriveError) {
        guard content.values.reduce(0, { $0 + $1.count }) <= Self.byteLimit else {
            throw ConfigDriveError(path: "", reason: "more than \(Self.byteLimit >> 20) MiB in all")
        }
        var paths: [(parts: [String], path: String)] = []
        for path in content.keys.sorted() {
            let parts = path.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
            for part in parts {
                guard !part.isEmpty, part != ".", part != "..", !part.utf8.contains(0) else {
                    throw ConfigDriveError(path: path, reason: "no relative path without empty, \".\" or \"..\" parts")
                }
                guard part.utf16.count <= Self.nameLimit, part.utf8.count <= Self.nameByteLimit else {
                    throw ConfigDriveError(path: path, reason: "a name longer than \(Self.nameLimit) characters")
                }
                guard
                    part.utf16.allSatisfy({
                        !(0xD800..<0xE000).contains($0) && !Self.forbidden.contains($0) && $0 >= 0x20
                    })
                else {
                    throw ConfigDriveError(path: path, reason: "a character that Joliet names cannot have")
                }
            }
            guard parts.count <= Self.depthLimit else {
                throw ConfigDriveError(path: path, reason: "more than \(Self.depthLimit) levels")
            }
            paths.append((parts, path))
        }
        // Level by level, so that the order is breadth-first.
        var places: [[String]: Int] = [[]: 0]
        for depth in 0..<Self.depthLimit {
            for (parts, path) in paths where parts.count > depth {
                let parent = Array(parts[..<depth])
                guard let place = places[parent] else {
                    throw ConfigDriveError(path: path, reason: "\(parent.joined(separator: "/")) is a file too")
                }
                let whole = Array(parts[...depth])
                if parts.count == depth + 1 {
                    directories[place].files.append(files.count)
                    files.append(File(name: parts[depth], content: content[path] ?? []))
                } else if places[whole] == nil {
                    guard content[whole.joined(separator: "/")] == nil else {
                        throw ConfigDriveError(path: path, reason: "\(whole.joined(separator: "/")) is a file too")
                    }
                    places[whole] = directories.count
                    directories[place].directories.append(directories.count)
                    directories.append(Directory(name: parts[depth], parent: place))
                }
            }
        }
    }

    /// * : ; ? \ (Joliet specification, "Allowed Characters")
    private static let forbidden: Set<UInt16> = [0x2A, 0x3A, 0x3B, 0x3F, 0x5C]
}
