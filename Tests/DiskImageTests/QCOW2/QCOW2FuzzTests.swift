// Seeded damage to sound images and streams: errors, never a trap, never more memory than the parser's bounds.
import DiskImage
import Foundation
import Testing

private func residentBytes() -> Int {
    let fields = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8))?.split(separator: " ") ?? []
    return (fields.count > 1 ? Int(fields[1]) ?? 0 : 0) * 4096
}

@Suite struct QCOW2FuzzTests {
    /// An image with data, zeroes and a second L1 entry, in a file of some dozen clusters of 4 KiB.
    private func soundImage() throws -> [UInt8] {
        let file = CrashingFile()
        var creation = QCOW2Creation(byteCount: 4 << 20)
        creation.clusterBits = 12
        try creation.create(on: file)
        let image = try QCOW2Image(file: file, isReadOnly: false, backing: nil)
        try image.write(pattern(byteCount: 20_480, seed: 1), at: 0)
        try image.write(pattern(byteCount: 8192, seed: 1), at: 3 << 20)
        try image.carryOut(BlockRequest(.writeZeroes(mayUnmap: false), offset: 4096, byteCount: 4096, tag: 0))
        try image.close()
        return file.bytes
    }

    @Test func damagedImageIsReadWrittenCheckedAndRepairedWithoutATrap() throws {
        let sound = try soundImage()
        var numbers = SeededNumbers(seed: 21)
        let before = residentBytes()
        let end = Date().addingTimeInterval(4)
        var counts = (rounds: 0, opened: 0, failed: 0)
        while Date() < end {
            counts.rounds += 1
            var bytes = sound
            for _ in 0..<Int.random(in: 1...5, using: &numbers) {
                // The header, or any word of the tables in the next clusters.
                let place =
                    Bool.random(using: &numbers)
                    ? Int.random(in: 0..<160, using: &numbers)
                    : Int.random(in: 4096..<min(bytes.count, 6 * 4096), using: &numbers) & ~7
                        + Int.random(in: 0..<8, using: &numbers)
                bytes[place] = [0, 1, 2, 0x10, 0x40, 0x7F, 0x80, 0xC0, 0xFF].randomElement(using: &numbers) ?? 0
            }
            if Int.random(in: 0..<12, using: &numbers) == 0 {
                bytes.removeLast(Int.random(in: 0..<bytes.count, using: &numbers))
            }
            let file = CrashingFile(bytes: bytes)
            do {
                if Bool.random(using: &numbers) { _ = try QCOW2Check(file: file, clusterLimit: 1 << 20).repair() }
                let image = try QCOW2Image(file: file, isReadOnly: Bool.random(using: &numbers), backing: nil)
                counts.opened += 1
                let memory = ScratchMemory(byteCount: 8192)
                for offset in [0, 4096, 3 << 20, 2 << 20, image.byteCount &- 8192] where image.byteCount >= 16384 {
                    let start = min(offset, image.byteCount - 8192)
                    for operation in [
                        BlockRequest.Operation.read, .write(isDurable: true), .discard, .writeZeroes(mayUnmap: false),
                        .flush,
                    ] {
                        let request = BlockRequest(operation, offset: start, byteCount: 8192, tag: 0)
                        if image.perform(
                            request,
                            vectors: operation == .read || operation == .write(isDurable: true) ? memory.vectors : .none
                        ) != 0 {
                            counts.failed += 1
                        }
                    }
                }
                if !image.isReadOnly, image.byteCount < 1 << 32 { try image.grow(to: image.byteCount & ~511 + 1 << 20) }
                try image.close()
            } catch {
                counts.failed += 1
            }
        }
        #expect(counts.rounds > 50 && counts.opened > 10 && counts.failed > 10, "\(counts)")
        #expect(residentBytes() - before < 256 << 20)
    }

    @Test(.enabled(if: Tools.arePresent), arguments: ["zlib", "zstd"])
    func damagedCompressedDataIsAnErrorOrOtherBytes(compression: String) throws {
        let directory = try TemporaryDirectory()
        try Data(pattern(byteCount: 256 << 10, seed: 3)).write(to: URL(fileURLWithPath: directory["a.raw"]))
        try Tools.makeImage(
            "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4k,compression_type=\(compression)",
            directory["a.raw"],
            directory["a.qcow2"])
        let sound = Array(try Data(contentsOf: URL(fileURLWithPath: directory["a.qcow2"])))
        var numbers = SeededNumbers(seed: 31)
        let end = Date().addingTimeInterval(2)
        var counts = (rounds: 0, failed: 0)
        while Date() < end {
            var bytes = sound
            // Behind the tables, which fill the first five clusters.
            for _ in 0..<20 {
                bytes[Int.random(in: (5 * 4096)..<bytes.count, using: &numbers)] = UInt8.random(
                    in: 0...255, using: &numbers)
            }
            let image = try QCOW2Image(file: CrashingFile(bytes: bytes), isReadOnly: true, backing: nil)
            let memory = ScratchMemory(byteCount: 4096)
            for cluster in 0..<UInt64(64) {
                counts.rounds += 1
                let request = BlockRequest(.read, offset: cluster * 4096, byteCount: 4096, tag: 0)
                if image.perform(request, vectors: memory.vectors) != 0 { counts.failed += 1 }
            }
        }
        #expect(counts.rounds > 50 && counts.failed > 0, "\(counts)")
    }
}
