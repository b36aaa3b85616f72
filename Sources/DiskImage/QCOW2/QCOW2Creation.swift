// Making an empty qcow2 image.

package struct QCOW2Creation: Sendable {
    /// The guest's disk in bytes, a multiple of 512.
    package var byteCount: UInt64
    /// 2, or 3 (which QEMU calls 1.1).
    package var version: UInt32 = 3
    /// 9 (512 bytes) to 21 (2 MiB).
    package var clusterBits: UInt32 = 16
    /// A refcount has 1 << refcountOrder bits: 0...6; 4 in version 2.
    package var refcountOrder: UInt32 = 4
    /// The name of the backing file, relative to this image or absolute, and its format ("raw", "qcow2"): both or none.
    package var backing: (name: String, format: String)?

    package init(byteCount: UInt64) { self.byteCount = byteCount }

    /// Writes the image to `file`, which is empty or a device. The header comes last: before, it is no image.
    package func create(on file: any ImageFile) throws(ImageError) {
        func refused(_ reason: String) -> ImageError {
            ImageError(.refused, "create qcow2 image", subject: file.name, reason: reason)
        }
        guard !file.canGrow || file.byteCount == 0 else { throw refused("the file is not empty") }
        guard QCOW2Header.clusterBitsRange.contains(clusterBits) else { throw refused("cluster_bits \(clusterBits)") }
        guard byteCount % 512 == 0 else { throw refused("\(byteCount) bytes are not whole sectors") }
        guard version == 3 || (version == 2 && refcountOrder == 4), refcountOrder <= 6 else {
            throw refused("version \(version) with refcount_order \(refcountOrder)")
        }
        var header = QCOW2Header()
        header.version = version
        header.clusterBits = clusterBits
        header.refcountOrder = refcountOrder
        header.byteCount = byteCount
        header.headerByteCount = version == 3 ? 104 : 72
        if let backing {
            guard backing.name.utf8.count <= 1023, !backing.name.isEmpty, !backing.format.isEmpty else {
                throw refused("a backing file needs a name of at most 1,023 bytes and a format")
            }
            header.extensions = [
                .init(type: QCOW2Header.Extension.backingFormat, data: Array(backing.format.utf8))
            ]
        }
        let cluster = header.clusterByteCount
        let entries = QCOW2Header.l1EntriesNeeded(byteCount: byteCount, clusterBits: clusterBits)
        guard entries * 8 <= QCOW2Header.maximumL1ByteCount else {
            throw refused("\(byteCount) bytes need larger clusters")
        }
        let l1Clusters = max(1, (entries * 8 + cluster - 1) / cluster)
        let perBlock = header.refcountsPerBlock
        var blocks: UInt64 = 1
        var tableLength: UInt64 = 1
        while true {
            let needed = (1 + tableLength + blocks + l1Clusters + perBlock - 1) / perBlock
            let length = (needed * 8 + cluster - 1) / cluster
            if needed == blocks, length == tableLength { break }
            blocks = needed
            tableLength = length
        }
        let total = 1 + tableLength + blocks + l1Clusters
        header.refcountTableOffset = cluster
        header.refcountTableClusters = UInt32(tableLength)
        header.l1Offset = (1 + tableLength + blocks) * cluster
        header.l1EntryCount = UInt32(entries)

        let first = header.serialised(backingName: backing?.name)
        guard UInt64(first.count) <= cluster else { throw refused("the backing file's name does not fit in a cluster") }
        if file.canGrow {
            try file.setByteCount(total * cluster)
        } else {
            try file.write([UInt8](repeating: 0, count: Int(total * cluster)), at: 0)
        }
        let width = QCOW2RefcountWidth(order: refcountOrder)
        var table = QCOW2Table(bytes: [UInt8](repeating: 0, count: Int(tableLength * cluster)))
        for number in 0..<blocks {
            var bytes = [UInt8](repeating: 0, count: Int(cluster))
            let start = number * perBlock
            for counted in start..<min(total, start + perBlock) { width.set(&bytes, Int(counted - start), 1) }
            try file.write(bytes, at: (1 + tableLength + number) * cluster)
            table[Int(number)] = QCOW2Entry(rawValue: (1 + tableLength + number) * cluster)
        }
        try file.write(table.bytes, at: cluster)
        try file.synchronise()
        try file.write(first, at: 0)
        try file.synchronise()
    }
}
