// Headers that we make, and the fields of existing headers that we change: each in one write within one sector, so that a
// crash leaves the old fields or the new ones.

extension QCOW2Header {
    /// The header as the beginning of a new image's first cluster.
    func serialised(backingName: String?) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(headerByteCount))
        bytes.setBigEndian(Self.magic, at: 0)
        bytes.setBigEndian(version, at: 4)
        bytes.setBigEndian(clusterBits, at: 20)
        bytes.setBigEndian(byteCount, at: 24)
        bytes.setBigEndian(l1EntryCount, at: 36)
        bytes.setBigEndian(l1Offset, at: 40)
        bytes.setBigEndian(refcountTableOffset, at: 48)
        bytes.setBigEndian(refcountTableClusters, at: 56)
        bytes.setBigEndian(snapshotCount, at: 60)
        bytes.setBigEndian(snapshotsOffset, at: 64)
        if version >= 3 {
            bytes.setBigEndian(incompatibleFeatures.rawValue, at: 72)
            bytes.setBigEndian(compatibleFeatures, at: 80)
            bytes.setBigEndian(autoclearFeatures, at: 88)
            bytes.setBigEndian(refcountOrder, at: 96)
            bytes.setBigEndian(headerByteCount, at: 100)
        }
        for item in extensions {
            var field = [UInt8](repeating: 0, count: 8)
            field.setBigEndian(item.type, at: 0)
            field.setBigEndian(UInt32(clamping: item.data.count), at: 4)
            bytes += field + item.data
            bytes += [UInt8](repeating: 0, count: (8 - item.data.count % 8) % 8)
        }
        bytes += [UInt8](repeating: 0, count: 8)  // the end of the extensions
        if let backingName {
            let name = Array(backingName.utf8)
            bytes.setBigEndian(UInt64(bytes.count), at: 8)
            bytes.setBigEndian(UInt32(clamping: name.count), at: 16)
            bytes += name
        }
        return bytes
    }

    /// Bytes 24...47: the disk's size and its L1 table.
    func writeSize(to file: any ImageFile) throws(ImageError) {
        var bytes = [UInt8](repeating: 0, count: 24)
        bytes.setBigEndian(byteCount, at: 0)
        bytes.setBigEndian(l1EntryCount, at: 12)  // crypt_method between them is 0: others are refused
        bytes.setBigEndian(l1Offset, at: 16)
        try file.write(bytes, at: 24)
    }

    /// Bytes 48...59: the refcount table.
    func writeRefcountTablePlace(to file: any ImageFile) throws(ImageError) {
        var bytes = [UInt8](repeating: 0, count: 12)
        bytes.setBigEndian(refcountTableOffset, at: 0)
        bytes.setBigEndian(refcountTableClusters, at: 8)
        try file.write(bytes, at: 48)
    }

    /// Bytes 72...95: the features of a version 3 image.
    func writeFeatures(to file: any ImageFile) throws(ImageError) {
        guard version >= 3 else { return }
        var bytes = [UInt8](repeating: 0, count: 24)
        bytes.setBigEndian(incompatibleFeatures.rawValue, at: 0)
        bytes.setBigEndian(compatibleFeatures, at: 8)
        bytes.setBigEndian(autoclearFeatures, at: 16)
        try file.write(bytes, at: 72)
    }
}
