// VHDX images (Microsoft, [MS-VHDX]): two headers, a region table, metadata items, and one table of blocks. Images with a
// parent, and those whose log was not replayed, are refused. Numbers are little-endian; checksums are CRC-32C.

package struct VHDXMap: ExtentMap {
    private static let headerOffsets: [UInt64] = [64 << 10, 128 << 10]
    private static let regionTableOffsets: [UInt64] = [192 << 10, 256 << 10]

    /// GUIDs as they are stored: the first three parts with their bytes swapped.
    private enum GUID {
        static let blockAllocationTable: [UInt8] = [
            0x66, 0x77, 0xC2, 0x2D, 0x23, 0xF6, 0x00, 0x42, 0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08,
        ]
        static let metadata: [UInt8] = [
            0x06, 0xA2, 0x7C, 0x8B, 0x90, 0x47, 0x9A, 0x4B, 0xB8, 0xFE, 0x57, 0x5F, 0x05, 0x0F, 0x88, 0x6E,
        ]
        static let fileParameters: [UInt8] = [
            0x37, 0x67, 0xA1, 0xCA, 0x36, 0xFA, 0x43, 0x4D, 0xB3, 0xB6, 0x33, 0xF0, 0xAA, 0x44, 0xE7, 0x6B,
        ]
        static let virtualDiskSize: [UInt8] = [
            0x24, 0x42, 0xA5, 0x2F, 0x1B, 0xCD, 0x76, 0x48, 0xB2, 0x11, 0x5D, 0xBE, 0xD8, 0x3B, 0xF4, 0xB8,
        ]
        static let logicalSectorSize: [UInt8] = [
            0x1D, 0xBF, 0x41, 0x81, 0x6F, 0xA9, 0x09, 0x47, 0xBA, 0x47, 0xF2, 0x33, 0xA8, 0xFA, 0xAB, 0x5F,
        ]
        static let physicalSectorSize: [UInt8] = [
            0xC7, 0x48, 0xA3, 0xCD, 0x5D, 0x44, 0x71, 0x44, 0x9C, 0xC9, 0xE9, 0x88, 0x52, 0x51, 0xC5, 0x56,
        ]
        static let virtualDiskID: [UInt8] = [
            0xAB, 0x12, 0xCA, 0xBE, 0xE6, 0xB2, 0x23, 0x45, 0x93, 0xEF, 0xC3, 0x09, 0xE0, 0x00, 0xC7, 0x46,
        ]
    }
    /// States of a block in the low three bits of its entry; the others mean zeroes where there is no parent.
    private enum BlockState {
        static let fullyPresent: UInt64 = 6
        static let partiallyPresent: UInt64 = 7
    }

    package let byteCount: UInt64
    private let blockByteCount: UInt64
    /// Blocks before each entry of a sector bitmap.
    private let chunkRatio: UInt64
    private let tableOffset: UInt64
    private let name: String
    private let table: TableReader

    package init(file: any ImageFile) throws(ImageError) {
        let identifier = try file.bytes(at: 0, count: 8, "VHDX identifier")
        guard identifier == Array("vhdxfile".utf8) else {
            throw ImageError(.malformed, "read VHDX header of", subject: file.name, reason: "no VHDX image")
        }
        try Self.checkHeader(file)
        let regions = try Self.regions(file)
        func malformed(_ reason: String) -> ImageError {
            ImageError(.malformed, "read VHDX metadata of", subject: file.name, reason: reason)
        }
        guard let blocks = regions[GUID.blockAllocationTable], let metadata = regions[GUID.metadata] else {
            throw malformed("a region is missing")
        }
        let items = try Self.metadataItems(file, metadata)
        guard let parameters = items[GUID.fileParameters], let size = items[GUID.virtualDiskSize],
            let sector = items[GUID.logicalSectorSize]
        else { throw malformed("an item is missing") }
        let block: UInt32 = parameters.littleEndian(at: 0)
        let flags: UInt32 = parameters.littleEndian(at: 4)
        guard flags & 2 == 0 else {
            throw ImageError(.unsupported, "open VHDX image", subject: file.name, reason: "it has a parent image")
        }
        guard block >= 1 << 20, block <= 256 << 20, block & (block - 1) == 0 else {
            throw malformed("blocks of \(block) bytes")
        }
        let sectorByteCount: UInt32 = sector.littleEndian(at: 0)
        guard sectorByteCount == 512 || sectorByteCount == 4096 else {
            throw malformed("sectors of \(sectorByteCount) bytes")
        }
        byteCount = size.littleEndian(at: 0)
        guard byteCount <= 64 << 40, byteCount % UInt64(sectorByteCount) == 0 else {
            throw malformed("\(byteCount) bytes")
        }
        blockByteCount = UInt64(block)
        chunkRatio = (UInt64(sectorByteCount) << 23) / blockByteCount
        tableOffset = blocks.offset
        let count = (byteCount + blockByteCount - 1) / blockByteCount
        guard count == 0 || (count - 1 + (count - 1) / chunkRatio + 1) * 8 <= blocks.byteCount else {
            throw malformed("the block table is too short for \(byteCount) bytes")
        }
        name = file.name
        table = TableReader(file)
    }

    /// The newer of the two headers that are intact. Its log must be empty.
    private static func checkHeader(_ file: any ImageFile) throws(ImageError) {
        var best: [UInt8]?
        for offset in headerOffsets {
            let header = try file.bytes(at: offset, count: 4096, "VHDX header")
            guard Array(header[0..<4]) == Array("head".utf8), isIntact(header) else { continue }
            let sequence: UInt64 = header.littleEndian(at: 8)
            if let known = best, known.littleEndian(UInt64.self, at: 8) >= sequence { continue }
            best = header
        }
        guard let best else {
            throw ImageError(
                .malformed, "read VHDX header of", subject: file.name, reason: "no header with a right checksum")
        }
        let version: UInt16 = best.littleEndian(at: 66)
        guard version == 1 else {
            throw ImageError(.unsupported, "open VHDX image", subject: file.name, reason: "version \(version)")
        }
        guard best[48..<64].allSatisfy({ $0 == 0 }) else {
            throw ImageError(
                .unsupported, "open VHDX image", subject: file.name, reason: "its log was not replayed",
                remedy: "open and close it once with the program that wrote it")
        }
    }

    private struct Region { var offset: UInt64, byteCount: UInt64 }

    private static func regions(_ file: any ImageFile) throws(ImageError) -> [[UInt8]: Region] {
        for offset in regionTableOffsets {
            let table = try file.bytes(at: offset, count: 64 << 10, "VHDX region table")
            let count: UInt32 = table.littleEndian(at: 8)
            guard Array(table[0..<4]) == Array("regi".utf8), isIntact(table), count <= 2047 else { continue }
            var result: [[UInt8]: Region] = [:]
            for entry in stride(from: 16, to: 16 + Int(count) * 32, by: 32) {
                let guid = Array(table[entry..<(entry + 16)])
                let region = Region(
                    offset: table.littleEndian(at: entry + 16),
                    byteCount: UInt64(table.littleEndian(UInt32.self, at: entry + 24)))
                guard region.offset <= file.byteCount, region.byteCount <= file.byteCount - region.offset,
                    region.offset & 0xF_FFFF == 0
                else {
                    throw ImageError(
                        .malformed, "read VHDX region table of", subject: file.name, reason: "a region leaves the file")
                }
                let isRequired = table.littleEndian(UInt32.self, at: entry + 28) & 1 != 0
                guard guid == GUID.blockAllocationTable || guid == GUID.metadata || !isRequired else {
                    throw ImageError(
                        .unsupported, "open VHDX image", subject: file.name, reason: "a required region is not known")
                }
                result[guid] = region
            }
            return result
        }
        throw ImageError(
            .malformed, "read VHDX header of", subject: file.name, reason: "no region table with a right checksum")
    }

    private static func metadataItems(_ file: any ImageFile, _ region: Region) throws(ImageError) -> [[UInt8]: [UInt8]]
    {
        func malformed(_ reason: String) -> ImageError {
            ImageError(.malformed, "read VHDX metadata of", subject: file.name, reason: reason)
        }
        guard region.byteCount >= 64 << 10 else { throw malformed("the region is too short") }
        let table = try file.bytes(at: region.offset, count: 64 << 10, "VHDX metadata table")
        let count: UInt16 = table.littleEndian(at: 10)
        guard Array(table[0..<8]) == Array("metadata".utf8), count <= 2047 else { throw malformed("no table") }
        let known = [
            GUID.fileParameters, GUID.virtualDiskSize, GUID.logicalSectorSize, GUID.physicalSectorSize,
            GUID.virtualDiskID,
        ]
        var result: [[UInt8]: [UInt8]] = [:]
        for entry in stride(from: 32, to: 32 + Int(count) * 32, by: 32) {
            let guid = Array(table[entry..<(entry + 16)])
            let offset = UInt64(table.littleEndian(UInt32.self, at: entry + 16))
            let isRequired = table.littleEndian(UInt32.self, at: entry + 24) & 4 != 0
            guard known.contains(guid) else {
                if isRequired {
                    throw ImageError(
                        .unsupported, "open VHDX image", subject: file.name, reason: "a required item is not known")
                }
                continue
            }
            // No item that is read has more than eight bytes.
            guard offset + 8 <= region.byteCount else { throw malformed("an item leaves its region") }
            result[guid] = try file.bytes(at: region.offset + offset, count: 8, "VHDX metadata item")
        }
        return result
    }

    /// The checksum, in bytes 4...7, is over all bytes with itself as zero.
    private static func isIntact(_ bytes: [UInt8]) -> Bool {
        var copy = bytes
        for index in 4..<8 { copy[index] = 0 }
        return CRC32C.checksum(copy) == bytes.littleEndian(UInt32.self, at: 4)
    }

    package func extent(at offset: UInt64) throws(ImageError) -> Extent {
        let within = offset % blockByteCount
        let block = offset / blockByteCount
        let entry = try table.littleEndian(UInt64.self, at: tableOffset + (block + block / chunkRatio) * 8)
        let rest = blockByteCount - within
        switch entry & 7 {
        case BlockState.fullyPresent:
            let place = entry & ~0xF_FFFF
            guard place != 0, place <= UInt64(Int64.max) - blockByteCount else {
                throw ImageError(.malformed, "read block of", subject: name, reason: "block \(block) is at \(place)")
            }
            return Extent(source: .data(place + within), byteCount: rest)
        case BlockState.partiallyPresent:
            throw ImageError(.malformed, "read block of", subject: name, reason: "block \(block) needs a parent image")
        default: return Extent(source: .zero, byteCount: rest)
        }
    }
}

/// CRC-32C (Castagnoli), reflected, as iSCSI has it (RFC 3720 §12.1).
private enum CRC32C {
    private static let table: [UInt32] = (0..<256).map { index in
        var value = UInt32(index)
        for _ in 0..<8 { value = value & 1 != 0 ? value >> 1 ^ 0x82F6_3B78 : value >> 1 }
        return value
    }

    static func checksum(_ bytes: [UInt8]) -> UInt32 {
        var value: UInt32 = .max
        for byte in bytes { value = value >> 8 ^ table[Int((value ^ UInt32(byte)) & 0xFF)] }
        return ~value
    }
}
