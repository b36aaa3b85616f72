// System use entries of a directory record (IEEE P1282, Rock Ridge 1.10): POSIX attributes, times and the real name.

enum RockRidge {
    enum Kind { case root, directory, file }

    /// Both-endian number of four bytes.
    static func both(_ value: Int) -> [UInt8] {
        let number = UInt32(truncatingIfNeeded: value)
        let little = (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
        return little + little.reversed()
    }

    /// SP: the first entry of the root's own record says that the protocol is in use.
    static let sharing: [UInt8] = Array("SP".utf8) + [7, 1, 0xBE, 0xEF, 0]

    /// PX: everybody may read; nobody may write a config drive.
    static func attributes(isDirectory: Bool, linkCount: Int) -> [UInt8] {
        Array("PX".utf8) + [36, 1] + both(isDirectory ? 0o040_555 : 0o100_444) + both(linkCount) + both(0) + both(0)
    }

    /// TF: modification, access, attribute change.
    static func times(_ recordingTime: [UInt8]) -> [UInt8] {
        Array("TF".utf8) + [26, 1, 0x0E] + recordingTime + recordingTime + recordingTime
    }

    /// NM: the name as it was given.
    static func name(_ name: String) -> [UInt8] {
        let bytes = Array(name.utf8)
        return Array("NM".utf8) + [UInt8(truncatingIfNeeded: 5 + bytes.count), 1, 0] + bytes
    }

    /// CE: further entries are in another sector.
    static func continuation(sector: Int, byteCount: Int) -> [UInt8] {
        Array("CE".utf8) + [28, 1] + both(sector) + both(0) + both(byteCount)
    }

    /// ER: which extension this is; too long for the root's record.
    static let reference: [UInt8] = {
        let identifier = Array("RRIP_1991A".utf8)
        let description = Array(
            "THE ROCK RIDGE INTERCHANGE PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS".utf8)
        let source = Array("IEEE P1282".utf8)
        let lengths = [identifier.count, description.count, source.count].map { UInt8(truncatingIfNeeded: $0) }
        let byteCount = UInt8(truncatingIfNeeded: 8 + identifier.count + description.count + source.count)
        return Array("ER".utf8) + [byteCount, 1] + lengths + [1] + identifier + description + source
    }()
}
