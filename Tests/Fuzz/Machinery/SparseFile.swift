// A read-only image file of up to 32 MiB in few bytes: runs of bytes at their sectors, zeroes between them.
import DiskImage
import Glibc

final class SparseFile: ImageFile {
    let name = "input"
    let canGrow = false
    let byteCount: UInt64
    private let runs: [(offset: Int, bytes: [UInt8])]

    /// The length in sectors; then runs: first sector, number of bytes, bytes.
    init(_ input: inout Input) {
        byteCount = UInt64(input.number(UInt16.self)) * 512
        var runs: [(offset: Int, bytes: [UInt8])] = []
        while !input.isEmpty, runs.count < 64 {
            let offset = Int(input.number(UInt16.self)) * 512, count = Int(input.number(UInt16.self))
            runs.append((offset, input.take(count)))
        }
        self.runs = runs
    }

    func read(into vectors: TransferVectors, at offset: UInt64) throws(ImageError) {
        var result = [UInt8](repeating: 0, count: vectors.byteCount)
        let wanted = Int(clamping: offset)..<Int(clamping: offset &+ UInt64(vectors.byteCount))
        for run in runs {
            let both = wanted.clamped(to: run.offset..<(run.offset + run.bytes.count))
            if both.isEmpty { continue }
            result.replaceSubrange(
                (both.lowerBound - wanted.lowerBound)..<(both.upperBound - wanted.lowerBound),
                with: run.bytes[(both.lowerBound - run.offset)..<(both.upperBound - run.offset)])
        }
        vectors.fill(from: result, at: 0)
    }

    func write(_ vectors: TransferVectors, at offset: UInt64) throws(ImageError) { throw refusal }
    func synchronise() throws(ImageError) {}
    func setByteCount(_ byteCount: UInt64) throws(ImageError) { throw refusal }
    func giveBack(offset: UInt64, byteCount: UInt64) {}

    private var refusal: ImageError { ImageError(.host(errno: EROFS), "write", subject: name, reason: "it is only read") }
}
