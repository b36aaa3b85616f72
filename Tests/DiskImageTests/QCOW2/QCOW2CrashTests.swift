// Random operations against a model, with crashes: after each crash the image has no damage but lost space, and each sector
// holds what the last completed flush saw or something written since.
import DiskImage
import Foundation
import Testing

struct CrashCase: Sendable, CustomTestStringConvertible {
    var clusterBits: UInt32
    var refcountOrder: UInt32
    var version: UInt32
    /// Sectors of a raw backing image; 0: none.
    var backingSectors: Int
    var sectors: Int
    var seed: UInt64
    var operations = 2000
    var cacheByteLimit = 4 << 20
    /// Begins as an image of compressed clusters with an internal snapshot, which the other implementation makes.
    var startsCompressed = false
    var testDescription: String {
        "clusters 1<<\(clusterBits), refcounts 1<<\(refcountOrder), v\(version), backing \(backingSectors)"
            + (startsCompressed ? ", compressed" : "")
    }
}

private let cases = [
    CrashCase(clusterBits: 9, refcountOrder: 4, version: 3, backingSectors: 0, sectors: 4099, seed: 1),
    CrashCase(clusterBits: 12, refcountOrder: 0, version: 3, backingSectors: 3001, sectors: 8192, seed: 2),
    CrashCase(clusterBits: 16, refcountOrder: 6, version: 3, backingSectors: 0, sectors: 16384, seed: 3),
    // The backing image is longer than the disk: growing must not show its end.
    CrashCase(clusterBits: 9, refcountOrder: 4, version: 2, backingSectors: 4000, sectors: 3000, seed: 4),
    // 16 pages of 512 bytes: nearly every operation has to write back in its middle.
    CrashCase(
        clusterBits: 9, refcountOrder: 6, version: 3, backingSectors: 1000, sectors: 20_000, seed: 5, cacheByteLimit: 1),
    CrashCase(
        clusterBits: 12, refcountOrder: 4, version: 3, backingSectors: 0, sectors: 4096, seed: 6, operations: 1000,
        startsCompressed: true),
]

/// The disk as it must read, by sectors: one number fills a sector.
private struct Model {
    var sectors: [UInt64]
    /// Besides `sectors`, what a sector may hold after a crash: everything since the last flush.
    var older: [Int: Set<UInt64>] = [:]

    mutating func set(_ range: Range<Int>, _ value: UInt64) {
        for sector in range {
            older[sector, default: []].insert(sectors[sector])
            sectors[sector] = value
        }
    }
    func bytes(_ range: Range<Int>) -> [UInt8] { Self.bytes(Array(sectors[range])) }
    static func bytes(_ values: [UInt64]) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(values.count * 512)
        for value in values {
            withUnsafeBytes(of: InlineSector(value)) { result.append(contentsOf: $0) }
        }
        return result
    }
    /// What the bytes of sectors are as numbers; nil where one is torn.
    static func values(_ bytes: [UInt8]) -> [UInt64]? {
        var values: [UInt64] = []
        let isWhole = bytes.withUnsafeBytes { memory -> Bool in
            for start in stride(from: 0, to: memory.count, by: 512) {
                // All words are the first one: the sector equals itself eight bytes on.
                guard let base = memory.baseAddress, memcmp(base + start, base + start + 8, 504) == 0 else {
                    return false
                }
                values.append(memory.loadUnaligned(fromByteOffset: start, as: UInt64.self))
            }
            return true
        }
        return isWhole ? values : nil
    }
}

/// 512 bytes of one number.
private struct InlineSector {
    var words: InlineArray<64, UInt64>
    init(_ value: UInt64) { words = InlineArray(repeating: value) }
}

@Suite struct QCOW2CrashTests {
    @Test(arguments: cases) func randomOperationsWithCrashesLoseOnlyWhatWasNotFlushed(this: CrashCase) throws {
        var numbers = SeededNumbers(seed: this.seed)
        let directory = try TemporaryDirectory()
        let path = directory["image.qcow2"]
        var backing: RawImage?
        var model = Model(sectors: Array(repeating: 0, count: this.sectors))
        var creation = QCOW2Creation(byteCount: UInt64(this.sectors) * 512)
        creation.clusterBits = this.clusterBits
        creation.refcountOrder = this.refcountOrder
        creation.version = this.version
        if this.backingSectors > 0 {
            let base = (0..<this.backingSectors).map { 1 << 40 + UInt64($0) }
            model.sectors.replaceSubrange(0..<min(base.count, this.sectors), with: base.prefix(this.sectors))
            try Data(Model.bytes(base)).write(to: URL(fileURLWithPath: directory["base.raw"]))
            backing = try openRaw(directory["base.raw"])
            creation.backing = (directory["base.raw"], "raw")
        }
        var file = CrashingFile()
        if this.startsCompressed {
            guard Tools.arePresent else { return }
            for sector in 0..<this.sectors where sector % 64 < 48 { model.sectors[sector] = 1 << 41 + UInt64(sector) }
            try Data(model.bytes(0..<this.sectors)).write(to: URL(fileURLWithPath: directory["start.raw"]))
            try Tools.makeImage(
                "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4k", directory["start.raw"], path)
            try Tools.write(path, ["write 0 64k"])
            for sector in 0..<128 { model.sectors[sector] = 0xCDCD_CDCD_CDCD_CDCD }
            try Tools.makeImage("snapshot", "-c", "start", path)
            file = CrashingFile(bytes: Array(try Data(contentsOf: URL(fileURLWithPath: path))))
        } else {
            try creation.create(on: file)
        }
        func open() throws -> QCOW2Image {
            try QCOW2Image(file: file, isReadOnly: false, backing: backing, cacheByteLimit: this.cacheByteLimit)
        }
        var image = try open()
        var crashes = 0

        for operation in 1...this.operations {
            if operation % 40 == 7 { file.crash(after: Int.random(in: 0..<60, using: &numbers)) }
            let start = Int.random(in: 0..<model.sectors.count, using: &numbers)
            let length = [1, 3, 8, 40, 200].randomElement(using: &numbers) ?? 1
            let range = start..<min(model.sectors.count, start + Int.random(in: 1...length, using: &numbers))
            let offset = UInt64(range.lowerBound) * 512
            let byteCount = UInt64(range.count) * 512
            var result: CInt = 0
            switch Int.random(in: 0..<100, using: &numbers) {
            case 0..<50:
                let isDurable = Int.random(in: 0..<12, using: &numbers) == 0
                let memory = ScratchMemory(byteCount: range.count * 512)
                model.set(range, UInt64(operation))
                memory.vectors.fill(from: model.bytes(range), at: 0)
                result = image.perform(
                    BlockRequest(.write(isDurable: isDurable), offset: offset, byteCount: byteCount, tag: 0),
                    vectors: memory.vectors)
                if isDurable, result == 0 { for sector in range { model.older[sector] = nil } }
            case 50..<63:
                model.set(range, 0)
                result = image.perform(
                    BlockRequest(
                        .writeZeroes(mayUnmap: Bool.random(using: &numbers)), offset: offset, byteCount: byteCount,
                        tag: 0),
                    vectors: .none)
            case 63..<75:
                result = image.perform(
                    BlockRequest(.discard, offset: offset, byteCount: byteCount, tag: 0), vectors: .none)
                // Advice: each sector is as before or zero. Which, the image says.
                if result == 0 {
                    let values = try #require(
                        Model.values(try image.read(at: offset, count: Int(byteCount)).array(0..<Int(byteCount))))
                    for (sector, value) in zip(range, values) where value != model.sectors[sector] {
                        #expect(value == 0)
                        model.set(sector..<(sector + 1), value)
                    }
                } else {
                    for sector in range { model.older[sector, default: []].insert(0) }
                }
            case 75..<85:
                result = image.perform(BlockRequest(.flush, tag: 0), vectors: .none)
                if result == 0 { model.older.removeAll() }
            case 85..<97:
                let memory = ScratchMemory(byteCount: Int(byteCount))
                let status = image.perform(
                    BlockRequest(.read, offset: offset, byteCount: byteCount, tag: 0), vectors: memory.vectors)
                if status == 0 {
                    try #require(memory.array(0..<Int(byteCount)) == model.bytes(range), "operation \(operation)")
                }
            case 97..<99:
                do {
                    try image.close()
                    image = try open()
                    model.older.removeAll()
                } catch { result = EIO }
            default:
                if Bool.random(using: &numbers), model.sectors.count < this.sectors + 4000 {
                    let more = Int.random(in: 1..<400, using: &numbers)
                    do {
                        try image.grow(to: image.byteCount + UInt64(more) * 512)
                        model.sectors += [UInt64](repeating: 0, count: more)
                    } catch { result = EIO }
                } else {
                    image.settle()
                }
            }
            if file.isCrashed {
                crashes += 1
                file = CrashingFile(bytes: file.remains(losingSectors: crashes % 3 != 0, &numbers))
                let report = try QCOW2Check(file: file).check()
                try #require(report.isSafe, "operation \(operation): \(report.problems)")
                if Tools.arePresent, crashes % 8 == 1 {
                    try Data(file.bytes).write(to: URL(fileURLWithPath: path))
                    let (status, output) = try Tools.check(path)
                    try #require(status == 0 || status == 3, "operation \(operation): \(output)")
                }
                if crashes % 4 == 0 { _ = try QCOW2Check(file: file).repair() }
                image = try open()
                let values = try #require(Model.values(try image.contents()), "a sector is torn")
                // A crash while growing leaves the old size or the new one.
                try #require(values.count >= model.sectors.count && values.count < model.sectors.count + 400)
                model.sectors += [UInt64](repeating: 0, count: values.count - model.sectors.count)
                for sector in values.indices where values[sector] != model.sectors[sector] {
                    try #require(
                        model.older[sector]?.contains(values[sector]) == true,
                        "operation \(operation), sector \(sector): \(values[sector]) for \(model.sectors[sector])")
                }
                // What was read back may be lost again as long as nobody flushed, so flush.
                model.sectors = values
                model.older.removeAll()
                try image.flush()
            } else {
                try #require(result == 0, "operation \(operation): errno \(result)")
            }
            if Tools.arePresent, operation % 500 == 0 {
                file.crash(after: nil)
                try image.close()
                _ = try QCOW2Check(file: file).repair()
                try Data(file.bytes).write(to: URL(fileURLWithPath: path))
                let (status, output) = try Tools.check(path)
                try #require(status == 0, "operation \(operation): \(output)")
                try Data(Model.bytes(model.sectors)).write(to: URL(fileURLWithPath: directory["model.raw"]))
                let comparison = try Tools.run(
                    Tools.image, ["compare", "-f", "qcow2", "-F", "raw", path, directory["model.raw"]])
                try #require(comparison.status == 0, "operation \(operation): \(comparison.output)")
                // The other implementation goes on with the image, then we with what it left.
                var commands: [String] = []
                for _ in 0..<12 {
                    let start = Int.random(in: 0..<(model.sectors.count - 200), using: &numbers)
                    let count = Int.random(in: 1...200, using: &numbers)
                    let isZero = Bool.random(using: &numbers)
                    let value = isZero ? 0 : UInt64.random(in: 1...255, using: &numbers)
                    model.set(start..<(start + count), value &* 0x0101_0101_0101_0101)
                    commands.append("write \(isZero ? "-z -u" : "-P \(value)") \(start * 512) \(count * 512)")
                }
                model.older.removeAll()
                try Tools.write(path, commands)
                file = CrashingFile(bytes: Array(try Data(contentsOf: URL(fileURLWithPath: path))))
                image = try open()
            }
        }
        #expect(crashes >= this.operations / 100)
        file.crash(after: nil)
        try image.close()
    }
}
