// A FAT16 disk without partitions from paths and bytes: the config drive where nova.conf says config_drive_format = vfat (Microsoft, "FAT:
// General Overview of On-Disk Format", 1.03). A pure value; the same input gives the same bytes.
//
//   sector 0      boot sector with the BIOS parameter block        then   root directory, 512 entries
//   …             two copies of the file allocation table          then   clusters of 2 KiB, from number 2
struct FATImage {
    /// Nova's CONFIGDRIVESIZE_BYTES.
    static let byteCount = 64 << 20
    private static let sectorByteCount = 512, sectorsPerCluster = 4, clusterByteCount = sectorByteCount * sectorsPerCluster
    private static let reservedSectors = 1, tableCount = 2, rootEntries = 512
    private static let rootSectors = rootEntries * entryByteCount / sectorByteCount
    private static let sectorCount = byteCount / sectorByteCount
    /// As many as the table's sectors, which grow with it, leave: a few more entries than clusters do no harm.
    private static let tableSectors = (sectorCount / sectorsPerCluster + 2) * 2 / sectorByteCount + 1
    private static let firstDataSector = reservedSectors + tableCount * tableSectors + rootSectors
    private static let clusterCount = (sectorCount - firstDataSector) / sectorsPerCluster
    private static let entryByteCount = 32

    /// DIR_Attr.
    private enum Attribute {
        static let volumeID: UInt8 = 0x08, directory: UInt8 = 0x10, archive: UInt8 = 0x20, longName: UInt8 = 0x0F
    }

    private let tree: FileTree
    private let time: UInt16
    private let date: UInt16
    /// Entries of the table: the next cluster of a chain, or its end.
    private var table: [UInt16] = [0xFFF8, 0xFFFF]
    private var clusters: [UInt8] = []

    /// The image up to its last byte that is not zero; the rest of `byteCount` is zero.
    /// - Parameters: volumeID: at most 11 characters of ASCII.
    ///   secondsSinceEpoch: the time all files bear, of 1980 or later.
    static func build(_ content: [String: [UInt8]], volumeID: String, secondsSinceEpoch: Int) throws(ConfigDriveError) -> [UInt8] {
        var image = FATImage(tree: try FileTree(content), secondsSinceEpoch: secondsSinceEpoch)
        return try image.layOut(volumeID)
    }

    private init(tree: FileTree, secondsSinceEpoch: Int) {
        self.tree = tree
        let moment = CalendarTime(secondsSinceEpoch: secondsSinceEpoch)
        time = UInt16(truncatingIfNeeded: moment.hour << 11 | moment.minute << 5 | moment.second / 2)
        date = UInt16(truncatingIfNeeded: max(0, moment.year - 1980) << 9 | moment.month << 5 | moment.day)
    }

    private mutating func layOut(_ volumeID: String) throws(ConfigDriveError) -> [UInt8] {
        let label = Self.padded(Array(volumeID.utf8), 11)
        // A directory's place is known before its children's entries are written: each gets its clusters first.
        var firstClusters: [Int] = [0]
        for directory in tree.directories.indices.dropFirst() {
            let count = entryCount(directory, and: 2) * Self.entryByteCount
            firstClusters.append(try allocate([UInt8](repeating: 0, count: count), named: tree.directories[directory].name))
        }
        var places: [Int] = []
        for file in tree.files { places.append(file.content.isEmpty ? 0 : try allocate(file.content, named: file.name)) }
        var root = entry(label, Attribute.volumeID, cluster: 0, byteCount: 0)
        for directory in tree.directories.indices {
            let children = entries(of: directory, directories: firstClusters, files: places)
            guard directory != 0 else {
                root += children
                continue
            }
            let parent = firstClusters[tree.directories[directory].parent]
            let all = entry(Self.padded([0x2E], 11), Attribute.directory, cluster: firstClusters[directory], byteCount: 0)
                + entry(Self.padded([0x2E, 0x2E], 11), Attribute.directory, cluster: parent, byteCount: 0) + children
            let begin = (firstClusters[directory] - 2) * Self.clusterByteCount
            clusters.replaceSubrange(begin..<begin + all.count, with: all)
        }
        guard root.count <= Self.rootEntries * Self.entryByteCount else { throw ConfigDriveError(path: "", reason: "too many files in its root") }
        var image = bootSector(label)
        var bytes = table.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] }
        bytes += [UInt8](repeating: 0, count: Self.tableSectors * Self.sectorByteCount - bytes.count)
        for _ in 0..<Self.tableCount { image += bytes }
        image += root + [UInt8](repeating: 0, count: Self.rootEntries * Self.entryByteCount - root.count)
        return image + clusters
    }

    /// Clusters that follow one another. - Returns: the number of the first.
    private mutating func allocate(_ bytes: [UInt8], named name: String) throws(ConfigDriveError) -> Int {
        let first = table.count, count = (bytes.count + Self.clusterByteCount - 1) / Self.clusterByteCount
        guard first + count <= Self.clusterCount + 2 else {
            throw ConfigDriveError(path: name, reason: "the disk of \(Self.byteCount >> 20) MiB is full")
        }
        for index in 1..<max(1, count) { table.append(UInt16(first + index)) }
        table.append(0xFFFF)
        clusters += bytes + [UInt8](repeating: 0, count: count * Self.clusterByteCount - bytes.count)
        return first
    }

    // MARK: Directories

    private func entryCount(_ directory: Int, and others: Int) -> Int {
        let names = tree.directories[directory].directories.map { tree.directories[$0].name } + tree.directories[directory].files.map { tree.files[$0].name }
        return names.reduce(others) { $0 + 1 + ($1.utf16.count + Self.namePart - 1) / Self.namePart }
    }

    private func entries(of directory: Int, directories: [Int], files: [Int]) -> [UInt8] {
        var bytes: [UInt8] = [], number = 0
        for child in tree.directories[directory].directories {
            bytes += named(tree.directories[child].name, number, Attribute.directory, cluster: directories[child], byteCount: 0)
            number += 1
        }
        for child in tree.directories[directory].files {
            bytes += named(tree.files[child].name, number, Attribute.archive, cluster: files[child], byteCount: tree.files[child].content.count)
            number += 1
        }
        return bytes
    }

    /// Characters in one entry of a long name.
    private static let namePart = 13

    /// The long name's entries, the last part first, and then the short one's, whose name is its number in the directory: nobody reads it.
    private func named(_ name: String, _ number: Int, _ attributes: UInt8, cluster: Int, byteCount: Int) -> [UInt8] {
        let digits = String(number)
        let short = Self.padded(Array(("F" + String(repeating: "0", count: max(0, 7 - digits.count)) + digits).utf8), 11)
        let checksum = short.reduce(UInt8(0)) { ($0 >> 1 | $0 << 7) &+ $1 }
        var units = Array(name.utf16)
        if units.count % Self.namePart != 0 {
            units.append(0)
            units += [UInt16](repeating: 0xFFFF, count: (Self.namePart - units.count % Self.namePart) % Self.namePart)
        }
        var bytes: [UInt8] = []
        let count = units.count / Self.namePart
        for part in (0..<count).reversed() {
            let letters = units[part * Self.namePart..<(part + 1) * Self.namePart].flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] }
            bytes.append(UInt8(part + 1) | (part == count - 1 ? 0x40 : 0))
            bytes += letters[0..<10] + [Attribute.longName, 0, checksum] + letters[10..<22] + [0, 0] + letters[22..<26]
        }
        return bytes + entry(short, attributes, cluster: cluster, byteCount: byteCount)
    }

    private func entry(_ name: [UInt8], _ attributes: UInt8, cluster: Int, byteCount: Int) -> [UInt8] {
        var bytes = name + [attributes, 0, 0]
        for word in [time, date, date, 0, time, date, UInt16(cluster)] { bytes += Self.littleEndian(UInt32(word), 2) }
        return bytes + Self.littleEndian(UInt32(byteCount), 4)
    }

    // MARK: Boot sector

    private func bootSector(_ label: [UInt8]) -> [UInt8] {
        var bytes: [UInt8] = [0xEB, 0x3C, 0x90] + Self.padded(Array("APUS".utf8), 8)
        bytes += Self.littleEndian(UInt32(Self.sectorByteCount), 2) + [UInt8(Self.sectorsPerCluster)] + Self.littleEndian(UInt32(Self.reservedSectors), 2)
        bytes += [UInt8(Self.tableCount)] + Self.littleEndian(UInt32(Self.rootEntries), 2) + Self.littleEndian(0, 2) + [0xF8]
        bytes += Self.littleEndian(UInt32(Self.tableSectors), 2) + Self.littleEndian(63, 2) + Self.littleEndian(255, 2)
        bytes += Self.littleEndian(0, 4) + Self.littleEndian(UInt32(Self.sectorCount), 4)
        // BS_DrvNum, reserved, BS_BootSig, BS_VolID (the time, as DOS made it), label, type.
        bytes += [0x80, 0, 0x29] + Self.littleEndian(UInt32(date) << 16 | UInt32(time), 4) + label + Self.padded(Array("FAT16".utf8), 8)
        return bytes + [UInt8](repeating: 0, count: 510 - bytes.count) + [0x55, 0xAA]
    }

    private static func padded(_ bytes: [UInt8], _ count: Int) -> [UInt8] { Array((bytes + [UInt8](repeating: 0x20, count: count)).prefix(count)) }

    private static func littleEndian(_ value: UInt32, _ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt32($0 * 8)) } }
}
