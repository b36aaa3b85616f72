// VMDK images in one file: monolithicSparse and streamOptimized (VMware, "Virtual Disk Format" 5.0): a directory of tables of
// grains, which may be compressed. Images with a parent and those of several files are refused. Numbers are little-endian.

package struct VMDKMap: ExtentMap {
    private static let magic: UInt32 = 0x564D_444B  // "KDMV"
    /// gdOffset of a stream: the directory is at the end, and the footer knows where.
    private static let directoryAtEnd: UInt64 = .max
    private enum Flags {
        static let zeroedGrain: UInt32 = 1 << 2
        static let compressed: UInt32 = 1 << 16
    }
    private static let sector: UInt64 = 512

    package let byteCount: UInt64
    private let grainByteCount: UInt64
    private let entriesPerTable: UInt64
    private let directoryOffset: UInt64
    private let isCompressed: Bool
    private let hasZeroedGrains: Bool
    private let name: String
    private let file: any ImageFile
    private let directory: TableReader
    private let table: TableReader

    package init(file: any ImageFile) throws(ImageError) {
        func malformed(_ reason: String) -> ImageError {
            ImageError(.malformed, "read VMDK header of", subject: file.name, reason: reason)
        }
        func unsupported(_ reason: String) -> ImageError {
            ImageError(.unsupported, "open VMDK image", subject: file.name, reason: reason)
        }
        var header = try file.bytes(at: 0, count: 512, "VMDK header")
        guard header.littleEndian(UInt32.self, at: 0) == Self.magic else {
            throw malformed("no sparse VMDK image in one file")
        }
        let descriptorOffset: UInt64 = header.littleEndian(at: 28)
        let descriptorSectors: UInt64 = header.littleEndian(at: 36)
        if header.littleEndian(UInt64.self, at: 56) == Self.directoryAtEnd {
            // The footer is a header too; an end-of-stream marker of one sector follows it.
            guard file.byteCount >= 1536 else { throw malformed("the file ends before its footer") }
            header = try file.bytes(at: file.byteCount - 1024, count: 512, "VMDK footer")
            guard header.littleEndian(UInt32.self, at: 0) == Self.magic else { throw malformed("it has no footer") }
        }
        let version: UInt32 = header.littleEndian(at: 4)
        let flags: UInt32 = header.littleEndian(at: 8)
        guard (1...3).contains(version) else { throw unsupported("version \(version)") }
        let capacity: UInt64 = header.littleEndian(at: 12)
        let grainSectors: UInt64 = header.littleEndian(at: 20)
        let entries: UInt32 = header.littleEndian(at: 44)
        let directorySector: UInt64 = header.littleEndian(at: 56)
        let algorithm: UInt16 = header.littleEndian(at: 77)
        guard capacity < 1 << 54 else { throw malformed("\(capacity) sectors") }
        guard grainSectors >= 1, grainSectors <= 4096, grainSectors & (grainSectors - 1) == 0 else {
            throw malformed("grains of \(grainSectors) sectors")
        }
        guard entries >= 1, entries <= 1 << 16 else { throw malformed("tables of \(entries) grains") }
        isCompressed = flags & Flags.compressed != 0
        guard !isCompressed || algorithm == 1 else { throw unsupported("compression algorithm \(algorithm)") }
        hasZeroedGrains = flags & Flags.zeroedGrain != 0
        byteCount = capacity * Self.sector
        grainByteCount = grainSectors * Self.sector
        entriesPerTable = UInt64(entries)
        let tableBytes = entriesPerTable * grainByteCount
        let tables = byteCount / tableBytes + (byteCount % tableBytes == 0 ? 0 : 1)
        guard directorySector < 1 << 54, directorySector * Self.sector <= file.byteCount,
            tables * 4 <= file.byteCount - directorySector * Self.sector
        else { throw malformed("the grain directory does not lie in the file") }
        directoryOffset = directorySector * Self.sector
        name = file.name
        self.file = file
        directory = TableReader(file)
        table = TableReader(file)
        if descriptorOffset != 0 {
            guard descriptorOffset < 1 << 54, descriptorSectors <= 256 else {
                throw malformed("a descriptor too large")
            }
            let text = try file.bytes(
                at: descriptorOffset * Self.sector, count: Int(descriptorSectors * Self.sector), "VMDK descriptor")
            try Self.checkDescriptor(text, unsupported)
        }
    }

    /// The lines of the text that change what the file means.
    private static func checkDescriptor(_ text: [UInt8], _ unsupported: (String) -> ImageError) throws(ImageError) {
        for line in text.prefix(while: { $0 != 0 }).split(whereSeparator: { $0 == 10 || $0 == 13 }) {
            let parts = line.split(separator: UInt8(ascii: "="), maxSplits: 1)
            guard parts.count == 2 else { continue }
            let value = Array(parts[1].filter { $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: " ") })
            let shown = value.printableText(0..<min(value.count, 64))
            switch String(decoding: parts[0].filter { $0 != UInt8(ascii: " ") }, as: UTF8.self) {
            case "parentCID" where shown.lowercased() != "ffffffff": throw unsupported("it has a parent image")
            case "createType" where shown != "monolithicSparse" && shown != "streamOptimized":
                throw unsupported("type \(shown)")
            default: continue
            }
        }
    }

    package func extent(at offset: UInt64) throws(ImageError) -> Extent {
        let within = offset % grainByteCount
        let grain = offset / grainByteCount
        let rest = grainByteCount - within
        let tableSector = try directory.littleEndian(UInt32.self, at: directoryOffset + grain / entriesPerTable * 4)
        if tableSector == 0 { return Extent(source: .zero, byteCount: rest) }
        let entry = try table.littleEndian(
            UInt32.self, at: UInt64(tableSector) * Self.sector + grain % entriesPerTable * 4)
        if entry == 0 || (entry == 1 && hasZeroedGrains) { return Extent(source: .zero, byteCount: rest) }
        let place = UInt64(entry) * Self.sector
        guard isCompressed else { return Extent(source: .data(place + within), byteCount: rest) }
        // Grain marker: the first sector of the grain, the size of its data.
        let marker = try file.bytes(at: place, count: 12, "grain marker")
        let size: UInt32 = marker.littleEndian(at: 8)
        guard marker.littleEndian(UInt64.self, at: 0) == grain * (grainByteCount / Self.sector),
            UInt64(size) <= 2 * grainByteCount + 1024
        else {
            throw ImageError(
                .malformed, "read grain of", subject: "\(name) at byte \(place)", reason: "its marker belongs elsewhere"
            )
        }
        return Extent(
            source: .deflated(
                offset: place + 12, compressedByteCount: Int(size), byteCount: Int(grainByteCount), skip: Int(within)),
            byteCount: rest)
    }
}
