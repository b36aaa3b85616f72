// The tables of one open qcow2 image and what was changed in them: a value behind the image's lock.
//
// The rule that makes a crash harmless, at any moment: what is in memory may be written back now, in the order of
// `writeBack`, and leaves at worst clusters that nobody uses. So a change goes through memory in this order: the refcount of
// a new cluster, its data into the file, then the entry that points at it; a cluster that is not pointed at any more waits
// in `pendingReleases` until the file says so, and only then can it be given to somebody else.
//
//     guest write -> allocate -> data to the file -> set entry -> release old cluster (pending)
//     guest flush -> refcounts | sync | refcount table | sync | L2 tables | sync | L1 | sync | pending releases
//
// An image with the lazy refcounts feature is kept the strict way all the same: the feature allows laziness, no more.
import HostSystem

struct QCOW2Metadata: Sendable {
    /// A cluster, or the clusters under a piece of compressed data, that lost one user.
    struct Release: Sendable, Equatable {
        var firstCluster: UInt64
        var clusterCount: UInt64
    }

    let file: any ImageFile
    let name: String
    let isReadOnly: Bool
    let inFlight: TransfersInFlight
    var header: QCOW2Header
    var l1: QCOW2Table
    var refcountTable: QCOW2Table
    var cache: QCOW2PageCache
    let width: QCOW2RefcountWidth

    var changedL1: Set<Int> = []
    var changedRefcountTable: Set<Int> = []
    var pendingReleases: [Release] = []
    /// Where the search for a free cluster starts.
    var freeHint: UInt64 = 0
    /// Clusters of the file that may hold old bytes; behind them a growing file reads as zero.
    var usedFileClusters: UInt64
    /// Clusters with L2 tables and refcount blocks: no guest data goes there, whatever an entry says.
    var tableClusters: Set<UInt64> = []
    /// Something in the tables contradicts itself: nothing is written any more.
    private(set) var isCorrupt = false
    /// Called where host clusters under compressed data were released.
    var compressedGeneration: UInt64 = 0
    var counters = QCOW2Counters()

    /// Reads the L1 table and the refcount table, whose places the header's parser has checked.
    init(
        header: QCOW2Header, file: any ImageFile, isReadOnly: Bool, cacheByteLimit: Int, inFlight: TransfersInFlight
    ) throws(ImageError) {
        self.header = header
        self.file = file
        self.name = file.name
        self.isReadOnly = isReadOnly
        self.inFlight = inFlight
        width = QCOW2RefcountWidth(order: header.refcountOrder)
        cache = QCOW2PageCache(clusterByteCount: header.clusterByteCount, byteLimit: cacheByteLimit)
        l1 = QCOW2Table(
            bytes: try file.bytes(at: header.l1Offset, count: Int(header.l1EntryCount) * 8, "L1 table"))
        refcountTable = QCOW2Table(
            bytes: try file.bytes(
                at: header.refcountTableOffset,
                count: Int(UInt64(header.refcountTableClusters) * header.clusterByteCount),
                "refcount table"))
        usedFileClusters = (file.byteCount + header.clusterByteCount - 1) >> UInt64(header.clusterBits)
        if header.incompatibleFeatures.contains(.corrupt) { isCorrupt = true }
        if !isReadOnly { noteTableClusters() }
    }

    var clusterBits: UInt64 { UInt64(header.clusterBits) }
    var clusterByteCount: UInt64 { header.clusterByteCount }
    var hasChanges: Bool {
        cache.changedCount > 0 || !changedL1.isEmpty || !changedRefcountTable.isEmpty || !pendingReleases.isEmpty
    }

    mutating func noteTableClusters() {
        tableClusters.removeAll()
        for table in [l1, refcountTable] {
            for index in 0..<table.count where isPlausible(table[index].offset) {
                tableClusters.insert(table[index].offset >> clusterBits)
            }
        }
    }

    /// An error of the file's content. Where the image is written to, it is closed for writing, and says so to whoever opens
    /// it next.
    mutating func corruption(_ operation: String, at offset: UInt64, _ reason: String) -> ImageError {
        counters.faults += 1
        if !isReadOnly, !isCorrupt {
            isCorrupt = true
            header.incompatibleFeatures.insert(.corrupt)
            do { try header.writeFeatures(to: file) } catch { counters.faults += 1 }
        }
        return ImageError(
            .malformed, operation, subject: "\(name) at byte \(offset)", reason: reason,
            remedy: "check and repair the image")
    }

    /// The place of a host cluster that an entry names: aligned, in the file, not in the header's cluster.
    func isPlausible(_ offset: UInt64) -> Bool {
        offset & (clusterByteCount - 1) == 0 && offset >> clusterBits != 0 && offset >> clusterBits < usedFileClusters
    }

    /// True where guest data must not go: the header, the tables.
    func isMetadata(cluster: UInt64) -> Bool {
        func covers(_ offset: UInt64, _ byteCount: UInt64) -> Bool {
            byteCount > 0 && cluster >= offset >> clusterBits && cluster <= (offset + byteCount - 1) >> clusterBits
        }
        return cluster == 0 || tableClusters.contains(cluster)
            || covers(header.l1Offset, UInt64(header.l1EntryCount) * 8)
            || covers(header.refcountTableOffset, UInt64(header.refcountTableClusters) * clusterByteCount)
            || (header.snapshotCount > 0 && covers(header.snapshotsOffset, UInt64(header.snapshotCount) * 40))
    }

    /// Has the page with byte `offset` of the file in the cache; returns its start.
    mutating func load(_ offset: UInt64) throws(ImageError) -> UInt64 {
        let page = cache.pageOffset(offset)
        if !cache.contains(page) {
            if cache.isFullOfChanges { try writeBack() }
            cache.insert(try file.bytesOrZero(at: page, count: Int(cache.pageByteCount)), at: page)
        }
        return page
    }

    /// Before the first change: what unknown autoclear features promise does not hold any more (qcow2, "autoclear_features").
    mutating func prepareForChanges() throws(ImageError) {
        guard !isCorrupt else {
            throw ImageError(
                .refused, "change", subject: name, reason: "the image is marked corrupt", remedy: "repair it")
        }
        guard header.autoclearFeatures != 0 else { return }
        header.autoclearFeatures = 0
        try header.writeFeatures(to: file)
        try file.synchronise()
    }

    // MARK: Mapping

    func l1Index(_ guestOffset: UInt64) -> Int { Int(clamping: guestOffset >> (clusterBits * 2 - 3)) }
    func l2Index(_ guestOffset: UInt64) -> UInt64 { (guestOffset >> clusterBits) & (header.l2EntryCount - 1) }

    /// The place of the L2 entry for a guest offset; nil where there is no L2 table.
    mutating func l2EntryOffset(_ guestOffset: UInt64) throws(ImageError) -> UInt64? {
        let table = l1[l1Index(guestOffset)].offset
        if table == 0 { return nil }
        guard isPlausible(table) else { throw corruption("find L2 table of", at: table, "it does not lie in the file") }
        return table + l2Index(guestOffset) * 8
    }

    /// What stands at `guestOffset`, and for how many bytes on (at most `limit`) the same holds: unallocated, zero, or data
    /// at the following host bytes. A run ends with its page of L2 entries.
    mutating func mapping(
        at guestOffset: UInt64, limit: UInt64
    ) throws(ImageError) -> (mapping: QCOW2Mapping, byteCount: UInt64) {
        let within = guestOffset & (clusterByteCount - 1)
        guard let entryOffset = try l2EntryOffset(guestOffset) else {
            let tableBytes: UInt64 = 1 << (clusterBits * 2 - 3)
            return (.unallocated, min(limit, tableBytes - (guestOffset & (tableBytes - 1))))
        }
        let page = try load(entryOffset)
        let bits = header.clusterBits
        let version = header.version
        let cluster = clusterByteCount
        let first = Int(entryOffset - page)
        let run = cache.read(page) { bytes -> (QCOW2Mapping, UInt64) in
            let start = QCOW2Entry(rawValue: bytes.bigEndian(at: first)).mapping(clusterBits: bits, version: version)
            var length = cluster - within
            var position = first + 8
            while length < limit, position < bytes.count {
                let next = QCOW2Entry(rawValue: bytes.bigEndian(at: position)).mapping(
                    clusterBits: bits, version: version)
                switch (start, next) {
                case (.unallocated, .unallocated), (.zero, .zero): break
                case (.data(let offset, let isCopied), .data(let following, let isNextCopied))
                where isCopied == isNextCopied && following == offset + within + length: break
                default: return (start, length)
                }
                length += cluster
                position += 8
            }
            return (start, length)
        }
        guard let (mapping, byteCount) = run else {
            throw corruption("read L2 table of", at: page, "it left the cache")
        }
        switch mapping {
        case .malformed: throw corruption("read L2 entry of", at: entryOffset, "it names no cluster")
        case .data(let offset, _) where offset >> 56 != 0:
            throw corruption("read L2 entry of", at: entryOffset, "it lies behind every file")
        default: return (mapping, min(limit, byteCount))
        }
    }

    /// Changes the L2 entry of a guest cluster. Its table exists and is this image's own.
    mutating func setEntry(_ guestOffset: UInt64, _ entry: QCOW2Entry) throws(ImageError) {
        guard let offset = try l2EntryOffset(guestOffset) else {
            throw corruption("change L2 entry of", at: guestOffset, "its table is gone")
        }
        let page = try load(offset)
        cache.change(page, .mappings) { $0.setBigEndian(entry.rawValue, at: Int(offset - page)) }
    }

    /// Makes sure that the L2 table for `guestOffset` exists and may be written to.
    mutating func prepareL2Table(_ guestOffset: UInt64) throws(ImageError) {
        let index = l1Index(guestOffset)
        guard index < l1.count else {
            throw ImageError(.malformed, "find L1 entry of", subject: name, reason: "the table is too short")
        }
        let old = l1[index]
        if old.offset != 0 {
            guard isPlausible(old.offset) else {
                throw corruption("find L2 table of", at: old.offset, "it does not lie in the file")
            }
            if old.isCopied { return }
        }
        let cluster = try allocate(upTo: 1).first
        let offset = cluster << clusterBits
        if old.offset != 0 {
            // Shared with an internal snapshot. What is in the cache may be newer than the file only in tables of our own.
            cache.forget(cluster: offset, byteCount: clusterByteCount)
            try file.write(try file.bytesOrZero(at: old.offset, count: Int(clusterByteCount)), at: offset)
            pendingReleases.append(Release(firstCluster: old.offset >> clusterBits, clusterCount: 1))
        } else {
            try clearTableCluster(cluster)
        }
        noteUsed(cluster)
        tableClusters.insert(cluster)
        l1[index] = QCOW2Entry(rawValue: offset | QCOW2Entry.copied)
        changedL1.insert(index)
    }

    /// A new table's cluster is in the file, as zeroes.
    mutating func clearTableCluster(_ cluster: UInt64) throws(ImageError) {
        let offset = cluster << clusterBits
        cache.forget(cluster: offset, byteCount: clusterByteCount)
        if cluster >= usedFileClusters, file.canGrow {
            try file.setByteCount(offset + clusterByteCount)
        } else {
            try file.write([UInt8](repeating: 0, count: Int(clusterByteCount)), at: offset)
        }
        noteUsed(cluster)
    }

    mutating func noteUsed(_ cluster: UInt64) { usedFileClusters = max(usedFileClusters, cluster + 1) }
}

/// What an image has met; read by whoever collects metrics.
package struct QCOW2Counters: Sendable, Equatable {
    /// Contradictions found in the file.
    package var faults: UInt64 = 0
    /// Clusters taken for guest data.
    package var allocations: UInt64 = 0
    /// Times the tables were written back.
    package var writeBacks: UInt64 = 0
}
