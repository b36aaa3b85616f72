// VirtualBox disk images, dynamic and static (VDI 1.1; the layout is public in VirtualBox's VDICore.h): a header and one table
// of blocks. Images with a parent are refused.

package struct VDIMap: ExtentMap {
    private static let signature: UInt32 = 0xBEDA_107F
    private static let version: UInt32 = 0x0001_0001
    /// Table entries from here on are no blocks: never written, or given back.
    private static let firstFree: UInt32 = 0xFFFF_FFFE

    package let byteCount: UInt64
    private let blockByteCount: UInt64
    private let extraByteCount: UInt64
    private let tableOffset: UInt64
    private let dataOffset: UInt64
    private let name: String
    private let table: TableReader

    package init(file: any ImageFile) throws(ImageError) {
        let header = try file.bytes(at: 0, count: 512, "VDI header")
        func malformed(_ reason: String) -> ImageError {
            ImageError(.malformed, "read VDI header of", subject: file.name, reason: reason)
        }
        guard header.littleEndian(UInt32.self, at: 64) == Self.signature else { throw malformed("no VDI image") }
        let version: UInt32 = header.littleEndian(at: 68)
        let type: UInt32 = header.littleEndian(at: 76)
        guard version == Self.version, type == 1 || type == 2 else {
            throw ImageError(
                .unsupported, "open VDI image", subject: file.name,
                reason: "version \(version >> 16).\(version & 0xFFFF), type \(type)")
        }
        // uuid_link and uuid_parent
        guard header[424..<456].allSatisfy({ $0 == 0 }) else {
            throw ImageError(.unsupported, "open VDI image", subject: file.name, reason: "it has a parent image")
        }
        tableOffset = UInt64(header.littleEndian(UInt32.self, at: 340))
        dataOffset = UInt64(header.littleEndian(UInt32.self, at: 344))
        byteCount = header.littleEndian(at: 368)
        let block: UInt32 = header.littleEndian(at: 376)
        extraByteCount = UInt64(header.littleEndian(UInt32.self, at: 380))
        let blockCount: UInt32 = header.littleEndian(at: 384)
        guard block >= 4096, block <= 1 << 30, block & (block - 1) == 0 else {
            throw malformed("blocks of \(block) bytes")
        }
        blockByteCount = UInt64(block)
        guard byteCount / blockByteCount + (byteCount % blockByteCount == 0 ? 0 : 1) <= UInt64(blockCount) else {
            throw malformed("the table is too short for \(byteCount) bytes")
        }
        guard tableOffset % 4 == 0, tableOffset + UInt64(blockCount) * 4 <= file.byteCount, dataOffset <= file.byteCount
        else { throw malformed("the table does not lie in the file") }
        name = file.name
        table = TableReader(file)
    }

    package func extent(at offset: UInt64) throws(ImageError) -> Extent {
        let within = offset % blockByteCount
        let entry = try table.littleEndian(UInt32.self, at: tableOffset + offset / blockByteCount * 4)
        let rest = blockByteCount - within
        if entry >= Self.firstFree { return Extent(source: .zero, byteCount: rest) }
        // Below 2^32 blocks of below 2^32 bytes each: no overflow.
        let place = dataOffset + UInt64(entry) * (blockByteCount + extraByteCount) + extraByteCount + within
        return Extent(source: .data(place), byteCount: rest)
    }
}
