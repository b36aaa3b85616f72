import DiskImage
import Foundation
import Testing

/// A sound header in the first 512 bytes of a file of 1 MiB; tests damage one field each.
private func header(_ changes: [(offset: Int, bytes: [UInt8])]) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 512)
    func put(_ offset: Int, _ value: UInt64, _ count: Int) {
        for index in 0..<count {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64((count - 1 - index) * 8))
        }
    }
    put(0, 0x5146_49FB, 4)
    put(4, 3, 4)
    put(20, 9, 4)
    put(24, 65536, 8)  // size
    put(36, 2, 4)  // l1_size: 32 KiB each
    put(40, 0x400, 8)
    put(48, 0x200, 8)
    put(56, 1, 4)
    put(96, 4, 4)
    put(100, 104, 4)
    for change in changes {
        bytes.replaceSubrange(change.offset..<(change.offset + change.bytes.count), with: change.bytes)
    }
    return bytes
}

struct BadField: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var offset: Int
    var bytes: [UInt8]
    var code: ImageError.Code = .malformed
    init(_ name: String, _ offset: Int, _ bytes: [UInt8], _ code: ImageError.Code = .malformed) {
        (testDescription, self.offset, self.bytes, self.code) = (name, offset, bytes, code)
    }
}

private let badFields = [
    BadField("magic", 0, [0x51, 0x46, 0x49, 0xFA]),
    BadField("version 1", 4, [0, 0, 0, 1], .unsupported),
    BadField("version 4", 4, [0, 0, 0, 4], .unsupported),
    BadField("clusters of 256 bytes", 20, [0, 0, 0, 8]),
    BadField("clusters of 4 MiB", 20, [0, 0, 0, 22]),
    BadField("cluster_bits that would shift everything out", 20, [0xFF, 0xFF, 0xFF, 0xFF]),
    BadField("AES", 32, [0, 0, 0, 1], .unsupported),
    BadField("size that the L1 table does not map", 24, [0, 0, 0, 0, 0, 1, 0, 1]),
    BadField("size of all ones", 24, [UInt8](repeating: 0xFF, count: 8)),
    BadField("L1 table of 32 GiB", 36, [0xFF, 0xFF, 0xFF, 0xFF]),
    BadField("L1 table within a cluster", 40, [0, 0, 0, 0, 0, 0, 4, 8]),
    BadField("L1 table behind the file", 40, [0, 0, 0, 0, 0, 0x10, 0, 0]),
    BadField("L1 table whose end overflows", 40, [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0]),
    BadField("L1 table over the header", 40, [0, 0, 0, 0, 0, 0, 0, 0]),
    BadField("refcount table behind the file", 48, [0, 0, 0, 0, 0, 0x10, 0, 0]),
    BadField("no refcount table", 56, [0, 0, 0, 0]),
    BadField("refcount table of 2 TiB", 56, [0xFF, 0xFF, 0xFF, 0xFF]),
    BadField("too many snapshots", 60, [0, 1, 0, 1]),
    BadField("snapshot table behind the file", 60, [0, 0, 0, 1] + [0, 0, 0, 0, 0, 0x10, 0, 0]),
    BadField("external data file", 72, [0, 0, 0, 0, 0, 0, 0, 4], .unsupported),
    BadField("extended L2 entries", 72, [0, 0, 0, 0, 0, 0, 0, 16], .unsupported),
    BadField("unknown feature", 72, [0x80, 0, 0, 0, 0, 0, 0, 0], .unsupported),
    BadField("compression bit without a type", 72, [0, 0, 0, 0, 0, 0, 0, 8]),
    BadField("refcounts of 128 bits", 96, [0, 0, 0, 7]),
    BadField("short header_length", 100, [0, 0, 0, 96]),
    BadField("odd header_length", 100, [0, 0, 0, 107]),
    BadField("header_length behind the cluster", 100, [0, 0, 4, 0]),
    BadField("extension behind the cluster", 104, [1, 2, 3, 4, 0, 0, 2, 0]),
    BadField("extension of 4 GiB", 104, [1, 2, 3, 4, 0xFF, 0xFF, 0xFF, 0xFF]),
    BadField("extension twice", 104, [1, 2, 3, 4, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0]),
    BadField("backing file's name behind the cluster", 8, [0, 0, 0, 0, 0, 0, 1, 0xFF, 0, 0, 0, 2]),
    BadField("backing file's name too long", 8, [0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 4, 0]),
]

@Suite struct QCOW2HeaderTests {
    @Test func soundHeaderIsTaken() throws {
        let parsed = try QCOW2Header(parsing: header([]), named: "test", fileByteCount: 1 << 20)
        #expect(parsed.byteCount == 65536 && parsed.clusterByteCount == 512 && parsed.l1EntryCount == 2)
    }

    @Test(arguments: badFields) func fieldOutOfItsBoundsIsRefused(field: BadField) {
        let error = #expect(throws: ImageError.self) {
            try QCOW2Header(parsing: header([(field.offset, field.bytes)]), named: "test", fileByteCount: 1 << 20)
        }
        #expect(error?.code == field.code, "\(String(describing: error))")
    }

    @Test func unknownFeatureIsCalledByTheNameThatTheFileGivesIt() {
        // Feature name table: type 0, bit 9, a name with an escape sequence in it.
        let name = Array("time\u{1B}travel".utf8)
        let entry = [0, 9] + name + [UInt8](repeating: 0, count: 46 - name.count)
        let error = #expect(throws: ImageError.self) {
            try QCOW2Header(
                parsing: header([
                    (72, [0, 0, 0, 0, 0, 0, 2, 0]), (104, [0x68, 0x03, 0xF8, 0x57, 0, 0, 0, 48] + entry),
                ]),
                named: "test", fileByteCount: 1 << 20)
        }
        #expect(error?.reason == "\"time?travel\"")
    }

    @Test func shortFileIsNoImage() {
        for count in [0, 3, 71, 103] {
            #expect(throws: ImageError.self) {
                try QCOW2Header(parsing: Array(header([]).prefix(count)), named: "test", fileByteCount: UInt64(count))
            }
        }
    }
}
