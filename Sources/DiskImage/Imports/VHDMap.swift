// Virtual hard disks, fixed and dynamic (Microsoft, "Virtual Hard Disk Image Format Specification" 1.0). Differencing disks
// are refused. All numbers are big-endian.
//
// The bitmap before each block says which sectors were written; the others hold zeroes, so it need not be read.

package struct VHDMap: ExtentMap {
    private static let footerByteCount: UInt64 = 512

    package let byteCount: UInt64
    private struct Blocks: Sendable {
        var tableOffset: UInt64
        var byteCount: UInt64
        var bitmapByteCount: UInt64
        var table: TableReader
    }
    /// nil: a fixed disk, byte for byte.
    private let blocks: Blocks?

    package init(file: any ImageFile) throws(ImageError) {
        func malformed(_ reason: String) -> ImageError {
            ImageError(.malformed, "read VHD footer of", subject: file.name, reason: reason)
        }
        let fileByteCount = file.byteCount
        guard fileByteCount >= Self.footerByteCount else { throw malformed("the file is too short") }
        var footer = try file.bytes(at: fileByteCount - Self.footerByteCount, count: 512, "VHD footer")
        // A dynamic disk begins with a copy, for when the end was cut off.
        if !Self.isIntact(footer) { footer = try file.bytes(at: 0, count: 512, "VHD footer") }
        guard Self.isIntact(footer) else { throw malformed("no footer with a right checksum") }
        byteCount = footer.bigEndian(at: 48)
        let type: UInt32 = footer.bigEndian(at: 60)
        switch type {
        case 2:
            guard byteCount <= fileByteCount - Self.footerByteCount else { throw malformed("the file is too short") }
            blocks = nil
        case 3:
            let offset: UInt64 = footer.bigEndian(at: 16)
            let header = try file.bytes(at: offset, count: 1024, "VHD dynamic header")
            guard Array(header[0..<8]) == Array("cxsparse".utf8),
                Self.checksum(header, field: 36) == header.bigEndian(at: 36)
            else { throw malformed("no dynamic header with a right checksum") }
            let tableOffset: UInt64 = header.bigEndian(at: 16)
            let entries: UInt32 = header.bigEndian(at: 28)
            let block: UInt32 = header.bigEndian(at: 32)
            guard block >= 512, block <= 1 << 30, block & (block - 1) == 0 else {
                throw malformed("blocks of \(block) bytes")
            }
            let size = UInt64(block)
            guard byteCount / size + (byteCount % size == 0 ? 0 : 1) <= UInt64(entries) else {
                throw malformed("the table is too short for \(byteCount) bytes")
            }
            guard tableOffset % 512 == 0, tableOffset <= fileByteCount,
                UInt64(entries) * 4 <= fileByteCount - tableOffset
            else { throw malformed("the table does not lie in the file") }
            blocks = Blocks(
                tableOffset: tableOffset, byteCount: size, bitmapByteCount: (size / 512 / 8 + 511) / 512 * 512,
                table: TableReader(file))
        default:
            throw ImageError(
                .unsupported, "open VHD image", subject: file.name,
                reason: type == 4 ? "it has a parent image" : "disk type \(type)")
        }
    }

    private static func isIntact(_ footer: [UInt8]) -> Bool {
        Array(footer[0..<8]) == Array("conectix".utf8) && checksum(footer, field: 64) == footer.bigEndian(at: 64)
    }

    /// The complement of the sum of all bytes but those of the checksum itself.
    private static func checksum(_ bytes: [UInt8], field: Int) -> UInt32 {
        var sum: UInt32 = 0
        for (index, byte) in bytes.enumerated() where !(field..<(field + 4)).contains(index) { sum &+= UInt32(byte) }
        return ~sum
    }

    package func extent(at offset: UInt64) throws(ImageError) -> Extent {
        guard let blocks else { return Extent(source: .data(offset), byteCount: byteCount - offset) }
        let within = offset % blocks.byteCount
        let stored = try blocks.table.littleEndian(
            UInt32.self, at: blocks.tableOffset + offset / blocks.byteCount * 4)
        let entry = stored.byteSwapped
        let rest = blocks.byteCount - within
        if entry == .max { return Extent(source: .zero, byteCount: rest) }
        return Extent(source: .data(UInt64(entry) * 512 + blocks.bitmapByteCount + within), byteCount: rest)
    }
}
