// Names in a directory of the image: ISO 9660 level 1 in the primary tree, Joliet's UCS-2 in the supplementary one. The real
// name of the primary tree is in Rock Ridge's NM entry.

/// One naming scheme over a file tree: identifiers as they are on the disk, without the version ";1".
struct ISO9660Naming: Sendable {
    /// By index into the tree.
    let directories: [[UInt8]]
    let files: [[UInt8]]

    static func joliet(_ tree: FileTree) -> ISO9660Naming {
        func ucs2(_ name: String) -> [UInt8] { name.utf16.flatMap { [UInt8($0 >> 8), UInt8($0 & 0xFF)] } }
        return ISO9660Naming(
            directories: tree.directories.map { ucs2($0.name) }, files: tree.files.map { ucs2($0.name) })
    }

    /// 8.3 of A–Z, 0–9 and _; a name that another one of its directory has already gets a number.
    static func primary(_ tree: FileTree) -> ISO9660Naming {
        var directories = [[UInt8]](repeating: [], count: tree.directories.count)
        var files = [[UInt8]](repeating: [], count: tree.files.count)
        for directory in tree.directories {
            var taken: Set<[UInt8]> = []
            for index in directory.directories {
                directories[index] = unique(
                    stem: reduced(tree.directories[index].name, to: 8), suffix: [], among: &taken)
            }
            for index in directory.files {
                let name = tree.files[index].name
                let dot = name.lastIndex(of: ".")
                let stem = reduced(String(dot.map { name[..<$0] } ?? name[...]), to: 8)
                let suffix = dot.map { reduced(String(name[name.index(after: $0)...]), to: 3) } ?? []
                files[index] = unique(stem: stem, suffix: [UInt8(ascii: ".")] + suffix, among: &taken)
            }
        }
        return ISO9660Naming(directories: directories, files: files)
    }

    private static func reduced(_ name: String, to count: Int) -> [UInt8] {
        let characters = name.uppercased().unicodeScalars.prefix(count).map { scalar -> UInt8 in
            switch scalar {
            case "A"..."Z", "0"..."9": UInt8(truncatingIfNeeded: scalar.value)
            default: UInt8(ascii: "_")
            }
        }
        return characters
    }

    private static func unique(stem: [UInt8], suffix: [UInt8], among taken: inout Set<[UInt8]>) -> [UInt8] {
        var candidate = (stem.isEmpty ? [UInt8(ascii: "_")] : stem) + suffix
        var number = 0
        while !taken.insert(candidate).inserted {
            let digits = Array("\(number)".utf8)
            candidate = stem.prefix(8 - digits.count) + digits + suffix
            number += 1
        }
        return candidate
    }
}
