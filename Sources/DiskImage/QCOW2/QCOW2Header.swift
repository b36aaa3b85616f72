// The header of a qcow2 image, versions 2 and 3, as a value from bytes (QEMU docs/interop/qcow2, "Header").
//
// The bytes are hostile. Every field is compared with the format's bounds and, where it names a place, with the size of the
// file, so that what follows can multiply offsets and sizes without care. Features that are not understood are refused by name.

package struct QCOW2Header: Sendable, Equatable {
    /// Features without which an image must not be opened at all.
    package struct IncompatibleFeatures: OptionSet, Sendable, Hashable {
        package let rawValue: UInt64
        package init(rawValue: UInt64) { self.rawValue = rawValue }
        /// Refcounts may be wrong: they are rebuilt before the first write.
        package static let dirty = Self(rawValue: 1 << 0)
        /// Any table may be wrong: the image is only read.
        package static let corrupt = Self(rawValue: 1 << 1)
        package static let externalDataFile = Self(rawValue: 1 << 2)
        package static let compressionType = Self(rawValue: 1 << 3)
        package static let extendedL2 = Self(rawValue: 1 << 4)
    }
    package enum Compression: UInt8, Sendable {
        /// Raw deflate (RFC 1951), whatever the name says.
        case zlib = 0
        /// Zstandard frames (RFC 8878).
        case zstd = 1
    }
    /// Bits of `autoclearFeatures`.
    package enum Autoclear {
        package static let bitmaps: UInt64 = 1 << 0
    }
    package struct Extension: Sendable, Equatable {
        package var type: UInt32
        package var data: [UInt8]
        static let end: UInt32 = 0
        static let backingFormat: UInt32 = 0xE279_2ACA
        static let featureNames: UInt32 = 0x6803_F857
        static let bitmaps: UInt32 = 0x2385_2875
    }

    /// "QFI\xfb"
    package static let magic: UInt32 = 0x5146_49FB
    static let clusterBitsRange: ClosedRange<UInt32> = 9...21  // 512 bytes to 2 MiB, as QEMU
    static let maximumL1ByteCount: UInt64 = 32 << 20  // as QEMU
    static let maximumRefcountTableByteCount: UInt64 = 8 << 20  // as QEMU
    static let maximumSnapshotCount: UInt32 = 65536  // as QEMU
    /// The header, its extensions and the backing file's name lie in the first cluster; more than this of it is not looked at.
    package static let maximumByteCount = 64 << 10

    package var version: UInt32 = 3
    package var clusterBits: UInt32 = 16
    /// The guest's disk, in bytes.
    package var byteCount: UInt64 = 0
    package var l1EntryCount: UInt32 = 0
    package var l1Offset: UInt64 = 0
    package var refcountTableOffset: UInt64 = 0
    package var refcountTableClusters: UInt32 = 0
    package var snapshotCount: UInt32 = 0
    package var snapshotsOffset: UInt64 = 0
    package var incompatibleFeatures: IncompatibleFeatures = []
    package var compatibleFeatures: UInt64 = 0
    package var autoclearFeatures: UInt64 = 0
    /// A refcount has 1 << refcountOrder bits.
    package var refcountOrder: UInt32 = 4
    package var headerByteCount: UInt32 = 104
    package var compression: Compression = .zlib
    package var extensions: [Extension] = []
    /// The name of the backing file, as printable text: for messages. Nobody opens it.
    package var backingName: String?
    /// What the header says the backing file's format is, as printable text.
    package var backingFormat: String?

    package var clusterByteCount: UInt64 { 1 << UInt64(clusterBits) }
    /// Entries of one L2 table.
    var l2EntryCount: UInt64 { clusterByteCount / 8 }
    /// Refcounts in one refcount block.
    var refcountsPerBlock: UInt64 { (clusterByteCount * 8) >> UInt64(refcountOrder) }
    /// L1 entries that a disk of `byteCount` bytes needs.
    static func l1EntriesNeeded(byteCount: UInt64, clusterBits: UInt32) -> UInt64 {
        // An L2 table maps 1 << (2 * clusterBits - 3) bytes.
        let bits = UInt64(clusterBits) * 2 - 3
        return (byteCount >> bits) + (byteCount & ((1 << bits) - 1) == 0 ? 0 : 1)
    }

    package init() {}

    /// - Parameters:
    ///   - bytes: the beginning of the file, up to `maximumByteCount` or its end.
    ///   - name: for messages only.
    ///   - fileByteCount: the size of the file.
    package init(parsing bytes: [UInt8], named name: String, fileByteCount: UInt64) throws(ImageError) {
        func malformed(_ reason: String) -> ImageError {
            ImageError(.malformed, "read qcow2 header of", subject: name, reason: reason)
        }
        guard bytes.count >= 72, bytes.bigEndian(UInt32.self, at: 0) == Self.magic else {
            throw malformed("no qcow2 image")
        }
        version = bytes.bigEndian(at: 4)
        guard version == 2 || version == 3 else {
            throw ImageError(.unsupported, "read qcow2 header of", subject: name, reason: "version \(version)")
        }
        guard version == 2 || bytes.count >= 104 else { throw malformed("the file ends in the header") }
        clusterBits = bytes.bigEndian(at: 20)
        guard Self.clusterBitsRange.contains(clusterBits) else {
            throw malformed("cluster_bits \(clusterBits) is not within 9...21")
        }
        byteCount = bytes.bigEndian(at: 24)
        let cryptMethod: UInt32 = bytes.bigEndian(at: 32)
        guard cryptMethod == 0 else {
            throw ImageError(
                .unsupported, "open qcow2 image", subject: name, reason: "encryption method \(cryptMethod)",
                remedy: "convert it to an image without encryption")
        }
        l1EntryCount = bytes.bigEndian(at: 36)
        l1Offset = bytes.bigEndian(at: 40)
        refcountTableOffset = bytes.bigEndian(at: 48)
        refcountTableClusters = bytes.bigEndian(at: 56)
        snapshotCount = bytes.bigEndian(at: 60)
        snapshotsOffset = bytes.bigEndian(at: 64)
        if version == 3 {
            incompatibleFeatures = IncompatibleFeatures(rawValue: bytes.bigEndian(at: 72))
            compatibleFeatures = bytes.bigEndian(at: 80)
            autoclearFeatures = bytes.bigEndian(at: 88)
            refcountOrder = bytes.bigEndian(at: 96)
            headerByteCount = bytes.bigEndian(at: 100)
            guard headerByteCount >= 104, headerByteCount % 8 == 0, UInt64(headerByteCount) <= clusterByteCount,
                Int(headerByteCount) <= bytes.count
            else { throw malformed("header_length \(headerByteCount)") }
            guard refcountOrder <= 6 else { throw malformed("refcount_order \(refcountOrder) is above 6") }
        } else {
            headerByteCount = 72
        }
        let limit = Int(min(UInt64(bytes.count), clusterByteCount, UInt64(Self.maximumByteCount)))
        extensions = try Self.parseExtensions(bytes, from: Int(headerByteCount), limit: limit, malformed)
        try refuseFeatures(named: name)
        if incompatibleFeatures.contains(.compressionType) || headerByteCount > 104 {
            let type: UInt8 = version == 3 && headerByteCount > 104 ? bytes.bigEndian(at: 104) : 0
            guard let known = Compression(rawValue: type) else {
                throw ImageError(.unsupported, "open qcow2 image", subject: name, reason: "compression type \(type)")
            }
            guard (known != .zlib) == incompatibleFeatures.contains(.compressionType) else {
                throw malformed("compression type \(type) contradicts its feature bit")
            }
            compression = known
        }
        try checkPlaces(fileByteCount: fileByteCount, malformed)
        let backingOffset: UInt64 = bytes.bigEndian(at: 8)
        if backingOffset != 0 {
            let count: UInt32 = bytes.bigEndian(at: 16)
            guard count <= 1023, backingOffset <= UInt64(limit), backingOffset + UInt64(count) <= UInt64(limit) else {
                throw malformed("the backing file's name does not lie in the first cluster")
            }
            backingName = bytes.printableText(Int(backingOffset)..<(Int(backingOffset) + Int(count)))
            if let found = extensions.first(where: { $0.type == Extension.backingFormat }) {
                backingFormat = found.data.printableText(0..<found.data.count)
            }
        }
    }

    private static func parseExtensions(
        _ bytes: [UInt8], from start: Int, limit: Int, _ malformed: (String) -> ImageError
    ) throws(ImageError) -> [Extension] {
        var result: [Extension] = []
        var position = start
        while position <= limit - 8 {
            let type: UInt32 = bytes.bigEndian(at: position)
            if type == Extension.end { break }
            let count = Int(bytes.bigEndian(UInt32.self, at: position + 4))
            guard count <= limit - position - 8 else { throw malformed("a header extension leaves the first cluster") }
            guard !result.contains(where: { $0.type == type }) else {
                throw malformed("a header extension comes twice")
            }
            result.append(Extension(type: type, data: Array(bytes[(position + 8)..<(position + 8 + count)])))
            position += 8 + (count + 7) / 8 * 8
        }
        return result
    }

    /// Features of incompatible bits that are not understood, with the names that the header itself may give them.
    private func refuseFeatures(named name: String) throws(ImageError) {
        let understood: IncompatibleFeatures = [.dirty, .corrupt, .compressionType]
        let others = incompatibleFeatures.subtracting(understood)
        guard !others.isEmpty else { return }
        var names: [String] = []
        for bit in 0..<64 where others.rawValue & (1 << UInt64(bit)) != 0 {
            switch IncompatibleFeatures(rawValue: 1 << UInt64(bit)) {
            case .externalDataFile: names.append("external data file")
            case .extendedL2: names.append("extended L2 entries")
            default: names.append(featureName(bit: UInt8(bit)) ?? "incompatible feature \(bit)")
            }
        }
        throw ImageError(
            .unsupported, "open qcow2 image", subject: name, reason: names.joined(separator: ", "),
            remedy: "convert it to a plain qcow2 image")
    }

    /// What the feature name table calls an incompatible bit.
    private func featureName(bit: UInt8) -> String? {
        guard let table = extensions.first(where: { $0.type == Extension.featureNames })?.data else { return nil }
        for entry in stride(from: 0, to: table.count - 47, by: 48)
        where table[entry] == 0 && table[entry + 1] == bit {
            return "\"\(table.printableText((entry + 2)..<(entry + 48)))\""
        }
        return nil
    }

    /// Tables lie in the file, on cluster boundaries, and are not larger than anyone makes them.
    private func checkPlaces(fileByteCount: UInt64, _ malformed: (String) -> ImageError) throws(ImageError) {
        func check(_ what: String, _ offset: UInt64, _ size: UInt64) throws(ImageError) {
            let (end, overflow) = offset.addingReportingOverflow(size)
            guard offset & (clusterByteCount - 1) == 0, offset != 0 || size == 0, !overflow, end <= fileByteCount
            else { throw malformed("the \(what) at \(offset) does not lie in the file, or not on a cluster boundary") }
        }
        let l1ByteCount = UInt64(l1EntryCount) * 8
        guard l1ByteCount <= Self.maximumL1ByteCount else { throw malformed("an L1 table of \(l1EntryCount) entries") }
        guard Self.l1EntriesNeeded(byteCount: byteCount, clusterBits: clusterBits) <= UInt64(l1EntryCount) else {
            throw malformed("the L1 table is too short for \(byteCount) bytes")
        }
        try check("L1 table", l1Offset, l1ByteCount)
        let tableByteCount = UInt64(refcountTableClusters) * clusterByteCount
        guard refcountTableClusters > 0, tableByteCount <= Self.maximumRefcountTableByteCount else {
            throw malformed("a refcount table of \(refcountTableClusters) clusters")
        }
        try check("refcount table", refcountTableOffset, tableByteCount)
        guard snapshotCount <= Self.maximumSnapshotCount else { throw malformed("\(snapshotCount) snapshots") }
        // A snapshot entry has at least 40 bytes.
        if snapshotCount > 0 { try check("snapshot table", snapshotsOffset, UInt64(snapshotCount) * 40) }
    }
}
