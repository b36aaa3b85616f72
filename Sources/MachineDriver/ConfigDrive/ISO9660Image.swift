// A CD image from paths and bytes (ECMA-119, Rock Ridge 1.10, Joliet): the config drive. A pure value; the same input gives the
// same bytes.
//
//   sector 0–15  system area, zero          19…  path tables (L and M, primary and Joliet)
//          16    primary volume descriptor   …   primary directories, Rock Ridge's ER, Joliet directories
//          17    Joliet volume descriptor    …   file data, shared by both trees
//          18    terminator

struct ISO9660Image {
    static let sectorByteCount = 2048

    private let tree: FileTree
    private let volumeID: String
    /// Recording time in both of the standard's forms: seven bytes, and digits.
    private let recordingTime: [UInt8]
    private let creationTime: [UInt8]

    /// - Parameter secondsSinceEpoch: the time all files bear.
    static func build(_ content: [String: [UInt8]], volumeID: String, secondsSinceEpoch: Int) throws(ConfigDriveError)
        -> [UInt8]
    {
        ISO9660Image(tree: try FileTree(content), volumeID: volumeID, secondsSinceEpoch: secondsSinceEpoch).layOut()
    }

    private init(tree: FileTree, volumeID: String, secondsSinceEpoch: Int) {
        self.tree = tree
        self.volumeID = volumeID
        let time = CalendarTime(secondsSinceEpoch: secondsSinceEpoch)
        let fields = [time.month, time.day, time.hour, time.minute, time.second]
        recordingTime = ([time.year - 1900] + fields).map { UInt8(truncatingIfNeeded: $0) } + [0]
        let digits = "\(time.year)" + fields.map { $0 < 10 ? "0\($0)" : "\($0)" }.joined() + "00"
        creationTime = Array(digits.utf8.prefix(16)) + [0]
    }

    /// One of the two trees: where its directories are, and what names they use.
    private struct Plan {
        let naming: ISO9660Naming
        let isJoliet: Bool
        var extents: [Int] = []
        var byteCounts: [Int] = []
        var pathTable = 0
        var pathTableByteCount = 0
    }

    private static func sectors(_ byteCount: Int) -> Int { (byteCount + sectorByteCount - 1) / sectorByteCount }

    private func layOut() -> [UInt8] {
        var plans = [
            Plan(naming: .primary(tree), isJoliet: false), Plan(naming: .joliet(tree), isJoliet: true),
        ]
        var next = 19
        for index in plans.indices {
            plans[index].pathTable = next
            plans[index].pathTableByteCount = pathTable(plans[index], bigEndian: false, places: false).count
            next += 2 * Self.sectors(plans[index].pathTableByteCount)
        }
        let reference = next
        next += 1
        for index in plans.indices {
            for directory in tree.directories.indices {
                let sizes = records(of: directory, in: plans[index], files: [], reference: 0).map(\.count)
                let byteCount = Self.packed(sizes) * Self.sectorByteCount
                plans[index].extents.append(next)
                plans[index].byteCounts.append(byteCount)
                next += byteCount / Self.sectorByteCount
            }
        }
        var files: [Int] = []
        for file in tree.files {
            files.append(next)
            next += Self.sectors(file.content.count)
        }
        var image = [UInt8](repeating: 0, count: next * Self.sectorByteCount)
        func put(_ bytes: [UInt8], at sector: Int) {
            let start = sector * Self.sectorByteCount
            image.replaceSubrange(start..<(start + bytes.count), with: bytes)
        }
        put(volumeDescriptor(plans[0], sectorCount: next), at: 16)
        put(volumeDescriptor(plans[1], sectorCount: next), at: 17)
        put([255] + Array("CD001".utf8) + [1], at: 18)
        put(RockRidge.reference, at: reference)
        for plan in plans {
            put(pathTable(plan, bigEndian: false, places: true), at: plan.pathTable)
            put(
                pathTable(plan, bigEndian: true, places: true),
                at: plan.pathTable + Self.sectors(plan.pathTableByteCount))
            for directory in tree.directories.indices {
                let records = records(of: directory, in: plan, files: files, reference: reference)
                put(Self.pack(records), at: plan.extents[directory])
            }
        }
        for (file, sector) in zip(tree.files, files) { put(file.content, at: sector) }
        return image
    }

    /// Sectors that records of these sizes fill; none crosses a sector's end.
    private static func packed(_ sizes: [Int]) -> Int {
        var (sectors, used) = (1, 0)
        for size in sizes {
            if used + size > sectorByteCount { (sectors, used) = (sectors + 1, 0) }
            used += size
        }
        return sectors
    }

    private static func pack(_ records: [[UInt8]]) -> [UInt8] {
        var bytes: [UInt8] = []
        for record in records {
            let used = bytes.count % sectorByteCount
            if used + record.count > sectorByteCount { bytes += [UInt8](repeating: 0, count: sectorByteCount - used) }
            bytes += record
        }
        return bytes
    }

    /// Records of one directory: itself, the one it is in, then its content by name. Their sizes do not depend on the places.
    private func records(of index: Int, in plan: Plan, files: [Int], reference: Int) -> [[UInt8]] {
        let directory = tree.directories[index]
        func extent(_ index: Int) -> Int { index < plan.extents.count ? plan.extents[index] : 0 }
        func byteCount(_ index: Int) -> Int { index < plan.byteCounts.count ? plan.byteCounts[index] : 0 }
        func attributes(_ index: Int, name: String?) -> [UInt8] {
            if plan.isJoliet { return [] }
            return RockRidge.attributes(isDirectory: true, linkCount: 2 + tree.directories[index].directories.count)
                + RockRidge.times(recordingTime) + (name.map(RockRidge.name) ?? [])
        }
        var own = attributes(index, name: nil)
        if index == 0 && !plan.isJoliet {
            own =
                RockRidge.sharing + own
                + RockRidge.continuation(sector: reference, byteCount: RockRidge.reference.count)
        }
        var records = [
            record([0], extent(index), byteCount(index), isDirectory: true, own),
            record(
                [1], extent(directory.parent), byteCount(directory.parent), isDirectory: true,
                attributes(directory.parent, name: nil)),
        ]
        var named: [(key: [UInt8], record: [UInt8])] = []
        for child in directory.directories {
            let name = plan.naming.directories[child]
            let entries = attributes(child, name: tree.directories[child].name)
            named.append((name, record(name, extent(child), byteCount(child), isDirectory: true, entries)))
        }
        for child in directory.files {
            let name = plan.naming.files[child], file = tree.files[child]
            let version: [UInt8] = plan.isJoliet ? [0, UInt8(ascii: ";"), 0, UInt8(ascii: "1")] : Array(";1".utf8)
            let entries =
                plan.isJoliet
                ? []
                : RockRidge.attributes(isDirectory: false, linkCount: 1) + RockRidge.times(recordingTime)
                    + RockRidge.name(file.name)
            let sector = child < files.count ? files[child] : 0
            named.append((name, record(name + version, sector, file.content.count, isDirectory: false, entries)))
        }
        named.sort { $0.key.lexicographicallyPrecedes($1.key) }
        records += named.map(\.record)
        return records
    }

    /// ECMA-119 9.1.
    private func record(_ name: [UInt8], _ extent: Int, _ byteCount: Int, isDirectory: Bool, _ systemUse: [UInt8])
        -> [UInt8]
    {
        var record: [UInt8] = [0, 0] + RockRidge.both(extent) + RockRidge.both(byteCount) + recordingTime
        record += [isDirectory ? 2 : 0, 0, 0, 1, 0, 0, 1, UInt8(truncatingIfNeeded: name.count)] + name
        if name.count % 2 == 0 { record.append(0) }
        record += systemUse
        if record.count % 2 == 1 { record.append(0) }
        record[0] = UInt8(truncatingIfNeeded: record.count)
        return record
    }

    /// ECMA-119 9.4: directories by level, then by parent, then by name; each named by its place in this order.
    private func pathTable(_ plan: Plan, bigEndian: Bool, places: Bool) -> [UInt8] {
        var order = [0]
        var number = [0: 1]
        var position = 0
        while position < order.count {
            let children = tree.directories[order[position]].directories
            for child in children.sorted(by: {
                plan.naming.directories[$0].lexicographicallyPrecedes(plan.naming.directories[$1])
            }) {
                order.append(child)
                number[child] = order.count
            }
            position += 1
        }
        func integer(_ value: Int, _ count: Int) -> [UInt8] {
            let little = (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
            return bigEndian ? little.reversed() : little
        }
        return order.flatMap { index -> [UInt8] in
            let name = index == 0 ? [0] : plan.naming.directories[index]
            return [UInt8(truncatingIfNeeded: name.count), 0] + integer(places ? plan.extents[index] : 0, 4)
                + integer(number[tree.directories[index].parent] ?? 1, 2) + name + (name.count % 2 == 1 ? [0] : [])
        }
    }

    /// ECMA-119 8.4 and 8.5.
    private func volumeDescriptor(_ plan: Plan, sectorCount: Int) -> [UInt8] {
        func text(_ text: String, _ count: Int) -> [UInt8] {
            if plan.isJoliet {
                let units = text.utf16.prefix(count / 2).flatMap { [UInt8($0 >> 8), UInt8($0 & 0xFF)] }
                let spaces = (0..<(count / 2)).flatMap { _ in [0, UInt8(ascii: " ")] as [UInt8] }
                return Array((units + spaces).prefix(count / 2 * 2)) + (count % 2 == 1 ? [0] : [])
            }
            let bytes = Array(text.utf8.prefix(count))
            return bytes + [UInt8](repeating: UInt8(ascii: " "), count: count - bytes.count)
        }
        func both16(_ value: UInt16) -> [UInt8] {
            [UInt8(value & 0xFF), UInt8(value >> 8), UInt8(value >> 8), UInt8(value & 0xFF)]
        }
        func little(_ value: Int) -> [UInt8] { Array(RockRidge.both(value)[..<4]) }
        func big(_ value: Int) -> [UInt8] { Array(RockRidge.both(value)[4...]) }
        let tableSectors = Self.sectors(plan.pathTableByteCount)
        let unset = [UInt8](repeating: UInt8(ascii: "0"), count: 16) + [0]
        var bytes: [UInt8] = [plan.isJoliet ? 2 : 1] + Array("CD001".utf8) + [1, 0]
        bytes += text("LINUX", 32) + text(volumeID, 32) + [UInt8](repeating: 0, count: 8) + RockRidge.both(sectorCount)
        // Joliet level 3 is told by its escape sequence.
        bytes += (plan.isJoliet ? Array("%/E".utf8) : [0, 0, 0]) + [UInt8](repeating: 0, count: 29)
        bytes += both16(1) + both16(1) + both16(UInt16(Self.sectorByteCount)) + RockRidge.both(plan.pathTableByteCount)
        bytes += little(plan.pathTable) + little(0) + big(plan.pathTable + tableSectors) + big(0)
        bytes += record([0], plan.extents[0], plan.byteCounts[0], isDirectory: true, [])
        bytes += text("", 128) + text("OPENSTACK COMPUTE", 128) + text("", 128) + text("APUS", 128)
        bytes += text("", 37) + text("", 37) + text("", 37)
        bytes += creationTime + creationTime + unset + unset + [1, 0]
        return bytes
    }
}
