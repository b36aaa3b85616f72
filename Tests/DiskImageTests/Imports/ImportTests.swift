// Images of other formats as the format's other implementation makes them.
import DiskImage
import Foundation
import Testing

struct ImportCase: Sendable, CustomTestStringConvertible {
    /// What the other implementation calls the format.
    var format: String
    var options: String
    var open: @Sendable (any ImageFile) throws -> any ExtentMap
    /// Size granularity of the format as made by the other implementation.
    var testDescription: String { "\(format) \(options)" }
}

private let imports: [ImportCase] = [
    ImportCase(format: "vdi", options: "static=off") { try VDIMap(file: $0) },
    ImportCase(format: "vdi", options: "static=on") { try VDIMap(file: $0) },
    ImportCase(format: "vpc", options: "subformat=dynamic,force_size=on") { try VHDMap(file: $0) },
    ImportCase(format: "vpc", options: "subformat=fixed,force_size=on") { try VHDMap(file: $0) },
    ImportCase(format: "vmdk", options: "subformat=monolithicSparse") { try VMDKMap(file: $0) },
    ImportCase(format: "vmdk", options: "subformat=streamOptimized") { try VMDKMap(file: $0) },
    ImportCase(format: "vhdx", options: "subformat=dynamic") { try VHDXMap(file: $0) },
    ImportCase(format: "vhdx", options: "subformat=fixed,block_size=1M") { try VHDXMap(file: $0) },
]

/// 9.5 MiB: data at both ends and across the blocks of every format, zeroes between.
private func source() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 19 << 19)
    bytes.replaceSubrange(0..<300_032, with: pattern(byteCount: 300_032, seed: 1))
    bytes.replaceSubrange(4_100_096..<4_300_800, with: pattern(byteCount: 200_704, seed: 2))
    bytes.replaceSubrange((19 << 19 - 65536)..<(19 << 19), with: pattern(byteCount: 65536, seed: 3))
    return bytes
}

@Suite(.enabled(if: Tools.arePresent)) struct ImportTests {
    private let directory: TemporaryDirectory
    init() throws { directory = try TemporaryDirectory() }

    private func make(_ this: ImportCase) throws -> String {
        let raw = directory["source.raw"]
        try Data(source()).write(to: URL(fileURLWithPath: raw))
        let path = directory["image.\(this.format)"]
        try Tools.makeImage("convert", "-f", "raw", "-O", this.format, "-o", this.options, raw, path)
        return path
    }

    @Test(arguments: imports) func convertedImageReadsAsItsSource(this: ImportCase) throws {
        let file = try openFile(make(this), readOnly: true)
        let image = ImportedImage(file: file, map: try this.open(file))
        let bytes = source()
        #expect(image.byteCount == UInt64(bytes.count))
        #expect(try image.contents() == bytes)
        // Parts that begin and end within blocks.
        for (offset, count) in [(512, 70_000), (4_194_304 - 512, 1024), (300_000, 200_000)] {
            #expect(
                try image.read(at: UInt64(offset), count: count).array(0..<count)
                    == Array(bytes[offset..<(offset + count)]))
        }
        let memory = ScratchMemory(byteCount: 512)
        let write = BlockRequest(.write(isDurable: false), offset: 0, byteCount: 512, tag: 0)
        #expect(image.perform(write, vectors: memory.vectors) == EROFS)
    }

    @Test func vmdkOfSeveralFilesAndChildrenAreRefused() throws {
        let flat = directory["flat.vmdk"]
        try Tools.makeImage("create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentFlat", flat, "1M")
        #expect(throws: ImageError.self) { try VMDKMap(file: openFile(flat)) }
        let base = directory["base.vmdk"]
        let child = directory["child.vmdk"]
        try Tools.makeImage("create", "-q", "-f", "vmdk", base, "1M")
        try Tools.makeImage("create", "-q", "-f", "vmdk", "-b", base, "-F", "vmdk", child)
        let error = #expect(throws: ImageError.self) { try VMDKMap(file: openFile(child)) }
        #expect(error?.code == .unsupported && error?.reason == "it has a parent image")
    }

    /// Damages a few bytes of the tables at a time, and reads the whole disk: errors, yes; a trap or a huge allocation, no.
    @Test(arguments: imports) func damagedImageIsAnErrorAndNoTrap(this: ImportCase) throws {
        let sound = Array(try Data(contentsOf: URL(fileURLWithPath: make(this))))
        var numbers = SeededNumbers(seed: 11)
        let end = Date().addingTimeInterval(1.2)  // twice a format
        var rounds = 0
        var refused = 0
        while Date() < end {
            rounds += 1
            var bytes = sound
            // Where headers, footers and tables lie in these files; the first 300 KiB have all but what VHDX has at 2 and 3 MiB
            // and the ends of streams.
            let places = [
                0..<512, 0..<1024, 0..<4096, 0..<(300 << 10), (bytes.count - 1536)..<bytes.count,
                (192 << 10)..<(193 << 10),
                (2 << 20)..<(2 << 20 + 256), (2 << 20 + 65536)..<(2 << 20 + 65536 + 64), (3 << 20)..<(3 << 20 + 64),
            ]
            for _ in 0..<Int.random(in: 1...6, using: &numbers) {
                let range = (places.randomElement(using: &numbers) ?? 0..<512).clamped(to: 0..<bytes.count)
                guard let place = range.randomElement(using: &numbers) else { continue }
                bytes[place] =
                    [0, 1, 0x7F, 0x80, 0xFF, UInt8.random(in: 0...255, using: &numbers)].randomElement(using: &numbers)
                    ?? 0
            }
            if this.format == "vpc", Bool.random(using: &numbers) { repairChecksums(&bytes) }
            if Int.random(in: 0..<10, using: &numbers) == 0 {
                bytes.removeLast(Int.random(in: 0..<bytes.count, using: &numbers))
            }
            let file = CrashingFile(bytes: bytes)
            do {
                let image = ImportedImage(file: file, map: try this.open(file))
                for offset in [0, 512, image.byteCount / 2, image.byteCount &- 4096] where image.byteCount >= 8192 {
                    let memory = ScratchMemory(byteCount: 4096)
                    let start = min(offset, image.byteCount - 4096)
                    _ = image.perform(
                        BlockRequest(.read, offset: start, byteCount: 4096, tag: 0), vectors: memory.vectors)
                }
            } catch let error as ImageError {
                _ = error
                refused += 1
            }
        }
        #expect(rounds > 10 && refused > 0, "\(rounds) rounds, \(refused) refused")
    }
}

/// Right checksums over damaged fields, so that the damage is looked at: the footer's and the dynamic header's behind its copy.
private func repairChecksums(_ bytes: inout [UInt8]) {
    for (start, count, field) in [(bytes.count - 512, 512, 64), (512, 1024, 36)] {
        for index in 0..<4 { bytes[start + field + index] = 0 }
        let sum = ~bytes[start..<(start + count)].reduce(UInt32(0)) { $0 &+ UInt32($1) }
        for index in 0..<4 { bytes[start + field + index] = UInt8(truncatingIfNeeded: sum >> UInt32((3 - index) * 8)) }
    }
}
