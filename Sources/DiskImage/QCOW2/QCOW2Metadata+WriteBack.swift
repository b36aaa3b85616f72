// Bringing the file up to date in an order that a crash cannot turn into damage, even where the disk writes in any order
// between two synchronisations.

extension QCOW2Metadata {
    /// Writes back everything. Data that guests wrote before is durable after.
    mutating func writeBack() throws(ImageError) {
        counters.writeBacks += 1
        // The new users' refcounts, before anything points at what they count.
        for (offset, bytes) in cache.changed(.refcounts) {
            try file.write(bytes, at: offset)
            cache.markWritten(offset)
        }
        // The data of new clusters too, and the content of new refcount blocks before the table names them.
        try file.synchronise()
        if !changedRefcountTable.isEmpty {
            try writeEntries(changedRefcountTable, of: refcountTable, at: header.refcountTableOffset)
            changedRefcountTable.removeAll()
            try file.synchronise()
        }
        let mappings = cache.changed(.mappings)
        for (offset, bytes) in mappings {
            try file.write(bytes, at: offset)
            cache.markWritten(offset)
        }
        if !mappings.isEmpty || !changedL1.isEmpty { try file.synchronise() }
        if !changedL1.isEmpty {
            try writeEntries(changedL1, of: l1, at: header.l1Offset)
            changedL1.removeAll()
            try file.synchronise()
        }
        try releasePending()
    }

    private func writeEntries(_ indices: Set<Int>, of table: QCOW2Table, at offset: UInt64) throws(ImageError) {
        for index in indices.sorted() {
            try file.write(Array(table.bytes[(index * 8)..<(index * 8 + 8)]), at: offset + UInt64(index) * 8)
        }
    }

    /// Frees what nothing in the file points at any more. Transfers that began while something did are over first.
    private mutating func releasePending() throws(ImageError) {
        guard !pendingReleases.isEmpty else { return }
        inFlight.waitUntilOver()
        compressedGeneration &+= 1
        // Taken out first: where one of them cannot be released the others leak, which is harmless.
        let releases = pendingReleases
        pendingReleases.removeAll(keepingCapacity: true)
        for release in releases {
            // A block of refcounts may have to be read into a cache full of changes: those may be written as they are,
            // since they only count less than the file does.
            if cache.isFullOfChanges {
                for (offset, bytes) in cache.changed(.refcounts) {
                    try file.write(bytes, at: offset)
                    cache.markWritten(offset)
                }
            }
            let freed = try apply(release)
            if let first = freed.first, UInt64(freed.count) == release.clusterCount {
                file.giveBack(offset: first << clusterBits, byteCount: UInt64(freed.count) << clusterBits)
            } else {
                for cluster in freed { file.giveBack(offset: cluster << clusterBits, byteCount: clusterByteCount) }
            }
        }
    }
}
