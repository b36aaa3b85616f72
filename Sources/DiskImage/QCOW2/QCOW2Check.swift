// Checking and repairing a qcow2 image that nobody has open: who uses each host cluster, against what the refcounts say.
//
// The walk is bounded whatever the file holds: the tables that are read may add up to a few times the file, however often its
// snapshots name them, and the counters take four bytes for each cluster of the file.

/// Usage: try QCOW2Check(file: file).check(), and .repair() where the report has something that can be repaired.
package struct QCOW2Check {
    package struct Report: Sendable, Equatable {
        /// Clusters whose refcount is higher than their users: lost space, no damage.
        package var leakedClusters: UInt64 = 0
        /// Clusters whose refcount is lower than their users: the next write may damage data. Repairable.
        package var undercountedClusters: UInt64 = 0
        /// Entries whose copied flag contradicts the refcount. Repairable.
        package var wrongFlags: UInt64 = 0
        /// Entries that name no cluster of the file: what they held is lost.
        package var damagedEntries: UInt64 = 0
        /// Guest clusters with data, in the active table.
        package var dataClusters: UInt64 = 0
        /// The first hundred problems in words.
        package var problems: [String] = []

        package var isClean: Bool { leakedClusters == 0 && isSafe }
        /// Nothing but lost space.
        package var isSafe: Bool { undercountedClusters == 0 && wrongFlags == 0 && damagedEntries == 0 }

        mutating func note(_ problem: @autoclosure () -> String) {
            if problems.count < 100 { problems.append(problem()) }
        }
    }

    let file: any ImageFile
    var header: QCOW2Header
    let clusterLimit: UInt64
    var report = Report()
    /// Users of each cluster of the file, saturating.
    private(set) var users: [UInt32]
    var l1: QCOW2Table
    var refcountTable: QCOW2Table
    let width: QCOW2RefcountWidth
    /// Bytes of tables that may still be read.
    private var readAllowance: UInt64
    /// A refcount block's place is wrong, or it is used for something else too.
    var areBlocksDamaged = false

    /// - Parameters:
    ///   - clusterLimit: the largest file, in clusters, whose counters may be held in memory: four bytes each.
    ///   - tableByteLimit: the most bytes of tables that are read; four times the file and 256 MiB where nil, since sound tables
    ///     are some 1/8192 of the data of each snapshot.
    package init(
        file: any ImageFile, clusterLimit: UInt64 = 1 << 26, tableByteLimit: UInt64? = nil
    ) throws(ImageError) {
        self.file = file
        self.clusterLimit = clusterLimit
        header = try QCOW2Header(readFrom: file)
        width = QCOW2RefcountWidth(order: header.refcountOrder)
        let clusters = (file.byteCount + header.clusterByteCount - 1) >> UInt64(header.clusterBits)
        guard clusters <= clusterLimit else {
            throw ImageError(
                .refused, "check", subject: file.name, reason: "\(clusters) clusters are more than \(clusterLimit)")
        }
        users = Array(repeating: 0, count: Int(clusters))
        readAllowance = tableByteLimit ?? 4 * file.byteCount + 256 << 20
        l1 = QCOW2Table(
            bytes: try file.bytes(at: header.l1Offset, count: Int(header.l1EntryCount) * 8, "L1 table"))
        refcountTable = QCOW2Table(
            bytes: try file.bytes(
                at: header.refcountTableOffset,
                count: Int(UInt64(header.refcountTableClusters) * header.clusterByteCount), "refcount table"))
    }

    var clusterBits: UInt64 { UInt64(header.clusterBits) }

    /// Compares without changing anything.
    package func check() throws(ImageError) -> Report {
        var copy = self
        try copy.countUsers()
        try copy.compareRefcounts { (_, _, _) in }
        try copy.compareFlags { (_, _) throws(ImageError) in }
        return copy.report
    }

    // MARK: Counting

    private mutating func readTable(_ offset: UInt64, _ byteCount: UInt64) throws(ImageError) -> QCOW2Table {
        guard byteCount <= readAllowance else {
            throw ImageError(
                .malformed, "check", subject: file.name,
                reason: "its tables name each other more often than any image's do")
        }
        readAllowance -= byteCount
        return QCOW2Table(bytes: try file.bytesOrZero(at: offset, count: Int(byteCount)))
    }

    mutating func countUsers() throws(ImageError) {
        use(0, header.clusterByteCount, "header")
        use(header.refcountTableOffset, UInt64(refcountTable.bytes.count), "refcount table")
        for index in 0..<refcountTable.count where refcountTable[index].rawValue != 0 {
            let offset = refcountTable[index].offset
            if !isCluster(offset) || users[Int(offset >> clusterBits)] != 0 {
                areBlocksDamaged = true
                report.undercountedClusters += 1
                report.note("refcount block \(index) at \(offset) does not lie in the file, or is used twice")
            } else {
                use(offset, header.clusterByteCount, "refcount block")
            }
        }
        use(header.l1Offset, UInt64(l1.bytes.count), "L1 table")
        try countTable(l1, isActive: true)
        try countSnapshots()
        try countBitmaps()
    }

    func isCluster(_ offset: UInt64) -> Bool {
        offset != 0 && offset & (header.clusterByteCount - 1) == 0 && offset >> clusterBits < UInt64(users.count)
    }

    /// One user more for each cluster that the bytes touch.
    mutating func use(_ offset: UInt64, _ byteCount: UInt64, _ what: @autoclosure () -> String) {
        guard byteCount > 0 else { return }
        let (end, overflow) = offset.addingReportingOverflow(byteCount - 1)
        guard !overflow, end >> clusterBits < UInt64(users.count) else {
            report.damagedEntries += 1
            report.note("\(what()) at \(offset) leaves the file")
            return
        }
        for cluster in Int(offset >> clusterBits)...Int(end >> clusterBits) where users[cluster] < .max {
            users[cluster] += 1
        }
    }

    private mutating func countTable(_ table: QCOW2Table, isActive: Bool) throws(ImageError) {
        var seen: Set<UInt64> = []
        for index in 0..<table.count where table[index].offset != 0 {
            let offset = table[index].offset
            guard isCluster(offset), seen.insert(offset).inserted else {
                report.damagedEntries += 1
                report.note("L1 entry \(index) names \(offset), which is no L2 table of its own")
                continue
            }
            use(offset, header.clusterByteCount, "L2 table")
            let l2 = try readTable(offset, header.clusterByteCount)
            for position in 0..<l2.count where l2[position].rawValue != 0 {
                switch l2[position].mapping(clusterBits: header.clusterBits, version: header.version) {
                case .unallocated, .zero(preallocated: .none, _): break
                case .zero(preallocated: .some(let host), _), .data(let host, _):
                    if isActive { report.dataClusters += 1 }
                    use(host, header.clusterByteCount, "data")
                case .compressed(let place):
                    if isActive { report.dataClusters += 1 }
                    use(place.offset, UInt64(place.byteCount), "compressed data")
                case .malformed:
                    report.damagedEntries += 1
                    report.note("L2 entry \(position) of table \(offset) names no cluster")
                }
            }
        }
    }

    /// Snapshot table entries (qcow2, "Snapshots"): the place of an L1 table, and strings of given lengths.
    private mutating func countSnapshots() throws(ImageError) {
        var position = header.snapshotsOffset
        for _ in 0..<header.snapshotCount {
            let entry = try file.bytes(at: position, count: 40, "snapshot table")
            let l1Offset: UInt64 = entry.bigEndian(at: 0)
            let l1EntryCount: UInt32 = entry.bigEndian(at: 8)
            let strings = UInt64(entry.bigEndian(UInt16.self, at: 12)) + UInt64(entry.bigEndian(UInt16.self, at: 14))
            position += (40 + UInt64(entry.bigEndian(UInt32.self, at: 36)) + strings + 7) & ~7
            let l1ByteCount = UInt64(l1EntryCount) * 8
            guard l1ByteCount <= QCOW2Header.maximumL1ByteCount, isCluster(l1Offset) || l1EntryCount == 0 else {
                report.damagedEntries += 1
                report.note("a snapshot's L1 table at \(l1Offset) does not lie in the file")
                continue
            }
            use(l1Offset, l1ByteCount, "snapshot's L1 table")
            try countTable(
                try readTable(l1Offset, l1ByteCount), isActive: false)
        }
        if header.snapshotCount > 0 { use(header.snapshotsOffset, position - header.snapshotsOffset, "snapshot table") }
    }

    /// Dirty bitmaps, where they are valid; where not they are lost space (qcow2, "Bitmaps").
    private mutating func countBitmaps() throws(ImageError) {
        guard header.autoclearFeatures & QCOW2Header.Autoclear.bitmaps != 0,
            let data = header.extensions.first(where: { $0.type == QCOW2Header.Extension.bitmaps })?.data,
            data.count >= 24
        else { return }
        let byteCount: UInt64 = data.bigEndian(at: 8)
        let offset: UInt64 = data.bigEndian(at: 16)
        guard isCluster(offset), byteCount <= 64 << 20 else {
            report.damagedEntries += 1
            report.note("the bitmap directory at \(offset) does not lie in the file")
            return
        }
        use(offset, byteCount, "bitmap directory")
        let directory = try file.bytes(at: offset, count: Int(byteCount), "bitmap directory")
        var position = 0
        while position + 24 <= directory.count {
            let tableOffset: UInt64 = directory.bigEndian(at: position)
            let entryCount: UInt32 = directory.bigEndian(at: position + 8)
            guard isCluster(tableOffset), UInt64(entryCount) * 8 <= QCOW2Header.maximumL1ByteCount else {
                report.damagedEntries += 1
                report.note("a bitmap's table at \(tableOffset) does not lie in the file")
                return
            }
            use(tableOffset, UInt64(entryCount) * 8, "bitmap table")
            let table = try readTable(tableOffset, UInt64(entryCount) * 8)
            for index in 0..<table.count where table[index].offset != 0 {
                use(table[index].offset, header.clusterByteCount, "bitmap")
            }
            let names = Int(directory.bigEndian(UInt16.self, at: position + 18))
            let extra = Int(directory.bigEndian(UInt32.self, at: position + 20))
            position += (24 + names + extra + 7) / 8 * 8
        }
    }

    // MARK: Comparing

    /// Calls `body` for each cluster whose refcount is not the number of its users.
    mutating func compareRefcounts(
        _ body: (_ cluster: Int, _ refcount: UInt64, _ users: UInt64) -> Void
    ) throws(ImageError) {
        let perBlock = Int(header.refcountsPerBlock)
        var first = 0
        while first < users.count {
            let offset = refcountTable[first / perBlock].offset
            let bytes =
                isCluster(offset) ? try file.bytesOrZero(at: offset, count: Int(header.clusterByteCount)) : []
            for cluster in first..<min(users.count, first + perBlock) {
                let refcount = bytes.isEmpty ? 0 : width.count(bytes, cluster - first)
                let expected = UInt64(users[cluster])
                if refcount == expected { continue }
                if refcount > expected {
                    report.leakedClusters += 1
                    report.note("cluster \(cluster) has refcount \(refcount) and \(expected) users")
                } else {
                    report.undercountedClusters += 1
                    report.note("cluster \(cluster) has refcount \(refcount), but \(expected) users")
                }
                body(cluster, refcount, expected)
            }
            first += perBlock
        }
    }

    /// Compares the copied flags of the active tables; calls `body` with each table that is to be different, and its place;
    /// nil stands for the L1 table.
    mutating func compareFlags(_ body: (UInt64?, QCOW2Table) throws(ImageError) -> Void) throws(ImageError) {
        var fixedL1 = l1
        var isL1Wrong = false
        for index in 0..<l1.count where isCluster(l1[index].offset) {
            let offset = l1[index].offset
            let isAlone = users[Int(offset >> clusterBits)] == 1
            if l1[index].isCopied != isAlone {
                report.wrongFlags += 1
                report.note("L1 entry \(index) has the wrong copied flag")
                fixedL1[index] = QCOW2Entry(rawValue: l1[index].rawValue ^ QCOW2Entry.copied)
                isL1Wrong = true
            }
            var l2 = try readTable(offset, header.clusterByteCount)
            var isWrong = false
            for position in 0..<l2.count where l2[position].rawValue != 0 {
                let entry = l2[position]
                switch entry.mapping(clusterBits: header.clusterBits, version: header.version) {
                case .data(let host, let isCopied), .zero(preallocated: .some(let host), let isCopied):
                    guard isCluster(host), isCopied != (users[Int(host >> clusterBits)] == 1) else { continue }
                    report.wrongFlags += 1
                    report.note("L2 entry \(position) of table \(offset) has the wrong copied flag")
                    l2[position] = QCOW2Entry(rawValue: entry.rawValue ^ QCOW2Entry.copied)
                    isWrong = true
                case .unallocated, .zero, .compressed, .malformed: break
                }
            }
            if isWrong { try body(offset, l2) }
        }
        if isL1Wrong { try body(nil, fixedL1) }
    }

    /// The old refcount structures do not count as users, since new ones take their place.
    mutating func forgetRefcountStructures() {
        func forget(_ offset: UInt64) {
            let cluster = Int(clamping: offset >> clusterBits)
            if cluster < users.count, users[cluster] > 0 { users[cluster] -= 1 }
        }
        for number in 0..<UInt64(header.refcountTableClusters) {
            forget(header.refcountTableOffset + number << clusterBits)
        }
        var seen: Set<UInt64> = []
        for index in 0..<refcountTable.count where isCluster(refcountTable[index].offset) {
            if seen.insert(refcountTable[index].offset).inserted { forget(refcountTable[index].offset) }
        }
    }
}
