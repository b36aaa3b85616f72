// Repairing: refcounts become the number of users, copied flags what the refcounts say. What an entry lost stays lost.

extension QCOW2Check {
    /// Repairs what can be; returns what was found before. A crash in between leaves a file that can be repaired again.
    package func repair() throws(ImageError) -> Report {
        var copy = self
        return try copy.repairNow()
    }

    private mutating func repairNow() throws(ImageError) -> Report {
        try countUsers()
        var wrong: [(cluster: Int, users: UInt64)] = []
        try compareRefcounts { cluster, _, users in wrong.append((cluster, users)) }
        if let most = users.max(), UInt64(most) > width.maximum {
            throw ImageError(
                .full, "repair", subject: file.name, reason: "a cluster with \(most) users needs wider refcounts")
        }
        if report.undercountedClusters > 0 || areBlocksDamaged {
            try rebuildRefcounts()
        } else if !wrong.isEmpty {
            try lowerRefcounts(wrong)
        }
        // After the refcounts: a flag that says "alone" must not be newer than they are.
        let (file, header) = (file, header)
        try compareFlags { (offset, table) throws(ImageError) in
            try file.write(table.bytes, at: offset ?? header.l1Offset)
        }
        try file.synchronise()
        if report.damagedEntries == 0 { self.header.incompatibleFeatures.remove(.corrupt) }
        self.header.incompatibleFeatures.remove(.dirty)
        if self.header.incompatibleFeatures != header.incompatibleFeatures {
            try self.header.writeFeatures(to: file)
            try file.synchronise()
        }
        return report
    }

    /// In place: only leaks, whose refcounts may be anything between during a crash.
    private func lowerRefcounts(_ wrong: [(cluster: Int, users: UInt64)]) throws(ImageError) {
        let perBlock = Int(header.refcountsPerBlock)
        var position = 0
        while position < wrong.count {
            let block = wrong[position].cluster / perBlock
            let offset = refcountTable[block].offset
            var bytes = try file.bytesOrZero(at: offset, count: Int(header.clusterByteCount))
            while position < wrong.count, wrong[position].cluster / perBlock == block {
                width.set(&bytes, wrong[position].cluster % perBlock, wrong[position].users)
                position += 1
            }
            try file.write(bytes, at: offset)
        }
        try file.synchronise()
    }

    /// New refcount blocks and a new table behind the end of the file; then the header names them.
    private mutating func rebuildRefcounts() throws(ImageError) {
        guard file.canGrow else {
            throw ImageError(.refused, "repair", subject: file.name, reason: "a device has no room for new refcounts")
        }
        forgetRefcountStructures()
        let perBlock = header.refcountsPerBlock
        let cluster = header.clusterByteCount
        let start = UInt64(users.count)
        var blocks: UInt64 = 1
        var tableLength: UInt64 = 1
        while true {
            let needed = (start + blocks + tableLength + perBlock - 1) / perBlock
            let length = (needed * 8 + cluster - 1) / cluster
            if needed == blocks, length == tableLength { break }
            blocks = needed
            tableLength = length
        }
        let end = start + blocks + tableLength
        guard tableLength * cluster <= QCOW2Header.maximumRefcountTableByteCount else {
            throw ImageError(.full, "repair", subject: file.name, reason: "its refcount table would be too large")
        }
        var table = QCOW2Table(bytes: [UInt8](repeating: 0, count: Int(tableLength * cluster)))
        for number in 0..<blocks {
            var bytes = [UInt8](repeating: 0, count: Int(cluster))
            let first = number * perBlock
            for counted in first..<min(end, first + perBlock) {
                let count: UInt64 = counted < start ? UInt64(users[Int(counted)]) : 1
                if count > 0 { width.set(&bytes, Int(counted - first), count) }
            }
            try file.write(bytes, at: (start + number) << clusterBits)
            table[Int(number)] = QCOW2Entry(rawValue: (start + number) << clusterBits)
        }
        try file.write(table.bytes, at: (start + blocks) << clusterBits)
        try file.synchronise()
        header.refcountTableOffset = (start + blocks) << clusterBits
        header.refcountTableClusters = UInt32(tableLength)
        try header.writeRefcountTablePlace(to: file)
        try file.synchronise()
        refcountTable = table
    }
}
