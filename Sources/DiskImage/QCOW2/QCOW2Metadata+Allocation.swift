// Host clusters: their refcounts, the search for free ones, and the refcount structures that grow with the file (qcow2, "Host
// cluster management").

extension QCOW2Metadata {
    /// The refcount block that holds a cluster's refcount and the index in it; nil where there is no block, so that the
    /// refcount is 0.
    private mutating func refcountPlace(_ cluster: UInt64) throws(ImageError) -> (page: UInt64, index: Int)? {
        let block = refcountTable[Int(clamping: cluster / header.refcountsPerBlock)].offset
        if block == 0 { return nil }
        guard isPlausible(block) else {
            throw corruption("find refcount block of", at: block, "it does not lie in the file")
        }
        let index = cluster % header.refcountsPerBlock
        let bits = index << UInt64(header.refcountOrder)
        let page = try load(block + bits / 8)
        return (page, Int(((block + bits / 8 - page) * 8 + bits % 8) >> UInt64(header.refcountOrder)))
    }

    mutating func refcount(_ cluster: UInt64) throws(ImageError) -> UInt64 {
        guard let (page, index) = try refcountPlace(cluster) else { return 0 }
        return cache.read(page) { [width] in width.count($0, index) } ?? 0
    }

    /// Sets a refcount whose block exists.
    mutating func setRefcount(_ cluster: UInt64, _ value: UInt64) throws(ImageError) {
        guard let (page, index) = try refcountPlace(cluster) else {
            throw corruption("set refcount of", at: cluster << clusterBits, "its refcount block is gone")
        }
        guard value <= width.maximum else {
            throw ImageError(.full, "set refcount of", subject: name, reason: "\(value) needs wider refcounts")
        }
        cache.change(page, .refcounts) { [width] in width.set(&$0, index, value) }
    }

    /// Takes one free cluster, or up to `want` that follow each other. Their refcounts are 1 in memory.
    mutating func allocate(upTo want: UInt64) throws(ImageError) -> (first: UInt64, count: UInt64) {
        guard !isCorrupt else {
            throw ImageError(.refused, "allocate in", subject: name, reason: "the image is marked corrupt")
        }
        if pendingReleases.count >= 4096 { try writeBack() }
        var cluster = max(freeHint, 1)
        while true {
            let block = cluster / header.refcountsPerBlock
            if block >= UInt64(refcountTable.count) {
                try growRefcountTable(toCover: block)
                continue
            }
            if refcountTable[Int(block)].offset == 0 {
                try addRefcountBlock(at: cluster, number: Int(block))
                cluster += 1
                continue
            }
            guard let (page, index) = try refcountPlace(cluster) else { continue }
            let inPage = (Int(cache.pageByteCount) * 8) >> Int(header.refcountOrder)
            // A page holds refcounts of one block only; a block of less than a page does not exist.
            let found = cache.read(page) { [width] bytes -> Int? in
                (index..<inPage).first { width.count(bytes, $0) == 0 }
            }
            guard let found, let first = found else {
                cluster += UInt64(inPage - index)
                continue
            }
            cluster += UInt64(first - index)
            let firstCluster = cluster
            let count = cache.read(page) { [width] bytes -> UInt64 in
                UInt64((first..<min(inPage, first + Int(want))).prefix { width.count(bytes, $0) == 0 }.count)
            }
            var taken: UInt64 = 0
            while taken < count ?? 0, !isMetadata(cluster: firstCluster + taken) { taken += 1 }
            guard taken > 0 else {
                throw corruption("allocate in", at: firstCluster << clusterBits, "a table's cluster has refcount 0")
            }
            if !file.canGrow, (firstCluster + taken) << clusterBits > file.byteCount {
                throw ImageError(.full, "allocate in", subject: name, reason: "the device is full")
            }
            cache.change(page, .refcounts) { [width] bytes in
                for position in first..<(first + Int(taken)) { width.set(&bytes, position, 1) }
            }
            freeHint = firstCluster + taken
            return (firstCluster, taken)
        }
    }

    /// Gives back clusters that nothing ever pointed at.
    mutating func cancelAllocation(first: UInt64, count: UInt64) throws(ImageError) {
        for cluster in first..<(first + count) {
            try setRefcount(cluster, 0)
            noteUsed(cluster)
        }
        freeHint = min(freeHint, first)
    }

    /// One user less of each cluster of `release`, which the file says already. Returns clusters that are free now.
    mutating func apply(_ release: Release) throws(ImageError) -> [UInt64] {
        var freed: [UInt64] = []
        for cluster in release.firstCluster..<(release.firstCluster + release.clusterCount) {
            let old = try refcount(cluster)
            guard old > 0 else { throw corruption("release", at: cluster << clusterBits, "its refcount is 0 already") }
            try setRefcount(cluster, old - 1)
            if old == 1 {
                freed.append(cluster)
                freeHint = min(freeHint, cluster)
                tableClusters.remove(cluster)
            }
        }
        return freed
    }

    /// Makes `cluster`, the first one in use of a block without refcounts, that block's own home: it counts itself.
    private mutating func addRefcountBlock(at cluster: UInt64, number: Int) throws(ImageError) {
        guard !isMetadata(cluster: cluster) else {
            throw corruption("allocate in", at: cluster << clusterBits, "a table's cluster has no refcount")
        }
        if !file.canGrow, (cluster + 1) << clusterBits > file.byteCount {
            throw ImageError(.full, "allocate in", subject: name, reason: "the device is full")
        }
        try writeRefcountBlock(UInt64(number), at: cluster, counting: cluster..<(cluster + 1))
    }

    /// Writes a new block in which the clusters `counted` have one user each; only then does the table in memory name it, so
    /// that a write-back at any moment finds it complete.
    private mutating func writeRefcountBlock(
        _ number: UInt64, at cluster: UInt64, counting counted: Range<UInt64>
    ) throws(ImageError) {
        let perBlock = header.refcountsPerBlock
        var bytes = [UInt8](repeating: 0, count: Int(clusterByteCount))
        for cluster in counted.clamped(to: (number * perBlock)..<((number + 1) * perBlock)) {
            width.set(&bytes, Int(cluster % perBlock), 1)
        }
        cache.forget(cluster: cluster << clusterBits, byteCount: clusterByteCount)
        try file.write(bytes, at: cluster << clusterBits)
        noteUsed(cluster)
        tableClusters.insert(cluster)
        refcountTable[Int(number)] = QCOW2Entry(rawValue: cluster << clusterBits)
        changedRefcountTable.insert(Int(number))
    }

    /// A larger refcount table behind everything that the old one covers, together with the blocks that count it.
    private mutating func growRefcountTable(toCover block: UInt64) throws(ImageError) {
        let perBlock = header.refcountsPerBlock
        let entriesPerCluster = clusterByteCount / 8
        // Half as much again as needed, so that growing stays rare.
        var blocks: UInt64 = 1
        var length = (max(block + 2, UInt64(refcountTable.count) * 3 / 2) / entriesPerCluster) + 1
        while true {
            let needed = (blocks + length + perBlock - 1) / perBlock
            let entries = block + needed
            let clusters = max(length, (entries + entriesPerCluster - 1) / entriesPerCluster)
            if needed <= blocks, clusters == length { break }
            blocks = max(blocks, needed)
            length = clusters
        }
        guard length * clusterByteCount <= QCOW2Header.maximumRefcountTableByteCount else {
            throw ImageError(
                .full, "grow refcount table of", subject: name, reason: "it would have \(length) clusters",
                remedy: "convert the image to larger clusters")
        }
        // Everything in the old table is in the file first, so that a copy of it can take its place.
        try writeBack()
        let start = block * perBlock
        let end = start + blocks + length
        if !file.canGrow, end << clusterBits > file.byteCount {
            throw ImageError(.full, "allocate in", subject: name, reason: "the device is full")
        }
        guard !(start..<end).contains(where: { isMetadata(cluster: $0) }) else {
            throw corruption("grow refcount table of", at: start << clusterBits, "a table's cluster has no refcount")
        }
        var table = QCOW2Table(
            bytes: refcountTable.bytes
                + [UInt8](repeating: 0, count: Int(length * clusterByteCount) - refcountTable.bytes.count))
        for number in 0..<blocks {
            var bytes = [UInt8](repeating: 0, count: Int(clusterByteCount))
            let counted = min(perBlock, (end - start) - min(end - start, number * perBlock))
            for index in 0..<counted { width.set(&bytes, Int(index), 1) }
            let offset = (start + number) << clusterBits
            cache.forget(cluster: offset, byteCount: clusterByteCount)
            try file.write(bytes, at: offset)
            table[Int(block + number)] = QCOW2Entry(rawValue: offset)
            self.tableClusters.insert(start + number)
        }
        try file.write(table.bytes, at: (start + blocks) << clusterBits)
        noteUsed(end - 1)
        try file.synchronise()
        let oldFirst = header.refcountTableOffset >> clusterBits
        let oldCount = UInt64(header.refcountTableClusters)
        header.refcountTableOffset = (start + blocks) << clusterBits
        header.refcountTableClusters = UInt32(length)
        refcountTable = table
        try header.writeRefcountTablePlace(to: file)
        try file.synchronise()
        pendingReleases.append(Release(firstCluster: oldFirst, clusterCount: oldCount))
    }

    /// Takes `want` clusters in one piece, for tables: where free space is in smaller pieces, behind every block of refcounts.
    mutating func allocateContiguous(_ want: UInt64) throws(ImageError) -> UInt64 {
        let (first, count) = try allocate(upTo: want)
        if count == want { return first }
        try cancelAllocation(first: first, count: count)
        let perBlock = header.refcountsPerBlock
        while true {
            let block = UInt64((0..<refcountTable.count).last { refcountTable[$0].offset != 0 }.map { $0 + 1 } ?? 0)
            var blocks = (want + perBlock - 1) / perBlock
            while (want + blocks + perBlock - 1) / perBlock > blocks { blocks += 1 }
            if block + blocks > UInt64(refcountTable.count) {
                try growRefcountTable(toCover: block + blocks)
                continue
            }
            let start = block * perBlock
            let end = start + blocks + want
            if !file.canGrow, end << clusterBits > file.byteCount {
                throw ImageError(.full, "allocate in", subject: name, reason: "the device is full")
            }
            guard !(start..<end).contains(where: { isMetadata(cluster: $0) }) else {
                throw corruption("allocate in", at: start << clusterBits, "a table's cluster has no refcount")
            }
            for number in 0..<blocks {
                try writeRefcountBlock(block + number, at: start + number, counting: start..<end)
            }
            noteUsed(end - 1)
            return start + blocks
        }
    }
}
