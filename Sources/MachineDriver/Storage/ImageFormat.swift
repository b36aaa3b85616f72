// What an image's first bytes say it is. A guest that could pass off a qcow2 as raw would name the host's files as its backing
// file to whoever opens it next (contract §8.2); this driver refuses such content instead of trusting the record.

enum ImageFormat: String, Sendable {
    case raw, qcow2, vmdk, vhd, vhdx, vdi, qed, luks, parallels

    /// How many bytes `detect` wants to see.
    static let headByteCount = 512

    static func detect(_ head: [UInt8]) -> ImageFormat {
        func begins(_ text: String, at offset: Int = 0) -> Bool {
            let bytes = Array(text.utf8)
            return head.count >= offset + bytes.count && head[offset..<(offset + bytes.count)].elementsEqual(bytes)
        }
        if head.starts(with: [0x51, 0x46, 0x49, 0xFB]) { return .qcow2 }
        if begins("KDMV") || begins("COWD") || begins("# Disk DescriptorFile") { return .vmdk }
        if begins("conectix") { return .vhd }
        if begins("vhdxfile") { return .vhdx }
        if begins("QED\0") { return .qed }
        if head.starts(with: Array("LUKS".utf8) + [0xBA, 0xBE]) { return .luks }
        if begins("WithoutFreeSpace") || begins("WithouFreSpacExt") { return .parallels }
        if head.count >= 0x44, head[0x40..<0x44].elementsEqual([0x7F, 0x10, 0xDA, 0xBE]) { return .vdi }
        return .raw
    }
}
