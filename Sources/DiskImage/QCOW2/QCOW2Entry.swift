// The entries of qcow2's tables as values: L1, L2, refcount table, and refcounts of 1 to 64 bits (qcow2, "Cluster mapping",
// "Host cluster management"). Entries come from the file and are hostile: `mapping` says what is wrong with one.

/// What an L2 entry says about a guest cluster.
enum QCOW2Mapping: Equatable, Sendable {
    /// The backing image's bytes, or zeroes where there is none.
    case unallocated
    /// Zeroes. A host cluster may be kept for it.
    case zero(preallocated: UInt64?, isCopied: Bool)
    /// A host cluster; `isCopied` where its refcount is exactly one.
    case data(UInt64, isCopied: Bool)
    /// Compressed bytes from a byte offset on, up to the end of a 512-byte sector.
    case compressed(QCOW2CompressedPlace)
    /// What no writer puts there.
    case malformed
}

struct QCOW2CompressedPlace: Hashable, Sendable {
    var offset: UInt64
    /// From the offset to the end of the last sector. The stream may end before.
    var byteCount: Int
}

struct QCOW2Entry: Equatable, Sendable {
    /// Bit 63: the refcount of what the entry points at is exactly one, so it may be written in place.
    static let copied: UInt64 = 1 << 63
    static let compressed: UInt64 = 1 << 62
    /// L2, version 3: all zeroes.
    static let zero: UInt64 = 1 << 0
    /// Bits 9...55.
    static let offsetMask: UInt64 = 0x00FF_FFFF_FFFF_FE00

    var rawValue: UInt64

    var offset: UInt64 { rawValue & Self.offsetMask }
    var isCopied: Bool { rawValue & Self.copied != 0 }

    /// Reads it as a standard or compressed L2 entry.
    func mapping(clusterBits: UInt32, version: UInt32) -> QCOW2Mapping {
        if rawValue & Self.compressed != 0 {
            // x = 62 - (cluster_bits - 8): bits below x are the offset, those from x to 61 count further sectors.
            let x = UInt64(62 - (clusterBits - 8))
            let offset = rawValue & ((1 << x) - 1)
            let sectors = (rawValue & (Self.compressed - 1)) >> x
            let byteCount = (sectors + 1) * 512 - (offset & 511)
            guard offset >> 56 == 0 else { return .malformed }
            return .compressed(QCOW2CompressedPlace(offset: offset, byteCount: Int(byteCount)))
        }
        guard offset & ((1 << UInt64(clusterBits)) - 1) == 0 else { return .malformed }
        if rawValue & Self.zero != 0 {
            guard version >= 3 else { return .malformed }
            return .zero(preallocated: offset == 0 ? nil : offset, isCopied: isCopied)
        }
        // Cluster 0 is the header: no data there. QEMU reads an entry of only the copied flag as unallocated.
        return offset == 0 ? .unallocated : .data(offset, isCopied: isCopied)
    }
}

/// A table of big-endian 64-bit entries, kept as on disk.
struct QCOW2Table: Sendable, Equatable {
    var bytes: [UInt8]
    var count: Int { bytes.count / 8 }

    init(bytes: [UInt8]) { self.bytes = bytes }

    /// 0 beyond the end.
    subscript(index: Int) -> QCOW2Entry {
        get { QCOW2Entry(rawValue: bytes.bigEndian(at: index &* 8)) }
        set { bytes.setBigEndian(newValue.rawValue, at: index * 8) }
    }
}

/// Reads and writes refcounts in a piece of a refcount block.
struct QCOW2RefcountWidth: Sendable {
    /// The width is 1 << order bits.
    let order: UInt32

    var maximum: UInt64 { order == 6 ? .max : (1 << (1 << UInt64(order))) - 1 }

    func count(_ bytes: [UInt8], _ index: Int) -> UInt64 {
        switch order {
        case 0, 1, 2:
            let byte: UInt8 = bytes.bigEndian(at: index >> (3 - Int(order)))
            return UInt64(byte >> shift(index)) & maximum
        case 3: return UInt64(bytes.bigEndian(UInt8.self, at: index))
        case 4: return UInt64(bytes.bigEndian(UInt16.self, at: index * 2))
        case 5: return UInt64(bytes.bigEndian(UInt32.self, at: index * 4))
        default: return bytes.bigEndian(at: index * 8)
        }
    }

    /// - Parameter value: at most `maximum`.
    func set(_ bytes: inout [UInt8], _ index: Int, _ value: UInt64) {
        switch order {
        case 0, 1, 2:
            let position = index >> (3 - Int(order))
            let mask = UInt8(maximum) << shift(index)
            let rest = bytes.bigEndian(UInt8.self, at: position) & ~mask
            bytes.setBigEndian(rest | UInt8(truncatingIfNeeded: value) << shift(index), at: position)
        case 3: bytes.setBigEndian(UInt8(truncatingIfNeeded: value), at: index)
        case 4: bytes.setBigEndian(UInt16(truncatingIfNeeded: value), at: index * 2)
        case 5: bytes.setBigEndian(UInt32(truncatingIfNeeded: value), at: index * 4)
        default: bytes.setBigEndian(value, at: index * 8)
        }
    }

    /// Below one byte the first refcount is in the least significant bits.
    private func shift(_ index: Int) -> UInt8 {
        UInt8((index & ((8 >> Int(order)) - 1)) << Int(order))
    }
}
