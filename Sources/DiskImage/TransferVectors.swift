// The memory of one transfer, in pieces: what a guest's request points at, cut to the part that one host cluster serves.
import CLinux
import Glibc

/// Memory of our own for padding, tables and decompressed data. It does not move.
@safe package final class ScratchMemory: @unchecked Sendable {
    // @unchecked: whoever holds it serialises; a transfer uses it in one thread.
    @unsafe package let bytes: UnsafeMutableRawBufferPointer

    /// `byteCount` zero bytes.
    package init(byteCount: Int) {
        unsafe bytes = .allocate(byteCount: byteCount, alignment: 4096)
        unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0)
    }

    deinit {
        // SAFETY: allocated in init.
        unsafe bytes.deallocate()
    }

    package var byteCount: Int { unsafe bytes.count }

    /// All of it as one piece.
    package var vectors: TransferVectors { vectors(0..<byteCount) }

    func vectors(_ range: Range<Int>) -> TransferVectors {
        // SAFETY: rebasing checks the range. The pieces are valid while this object lives.
        unsafe TransferVectors([
            iovec(iov_base: UnsafeMutableRawBufferPointer(rebasing: bytes[range]).baseAddress, iov_len: range.count)
        ])
    }

    package func array(_ range: Range<Int>) -> [UInt8] {
        // SAFETY: the slice checks the range; the bytes are copied.
        unsafe Array(UnsafeRawBufferPointer(rebasing: bytes[range]))
    }
}

/// Pieces of memory in order. They stay the owner's: guest memory, or scratch memory that is kept alive beside them.
@safe package struct TransferVectors: @unchecked Sendable {
    // @unchecked: plain addresses; the owner of the memory keeps it until the transfer has ended.
    private var pieces: [iovec]
    package private(set) var byteCount: Int
    /// Scratch memory that some of the pieces lie in.
    private var kept: [ScratchMemory] = []

    /// - Parameter pieces: valid memory for as long as the value is used.
    @unsafe init(_ pieces: [iovec]) {
        unsafe self.pieces = pieces
        var sum = 0
        for index in unsafe pieces.indices {
            sum += unsafe pieces[index].iov_len
        }
        byteCount = sum
    }

    @unsafe init(_ pieces: UnsafeMutableBufferPointer<iovec>) {
        unsafe self.init(Array(pieces))
    }

    /// One piece of memory.
    @unsafe package init(_ memory: UnsafeMutableRawBufferPointer) {
        unsafe self.init([iovec(iov_base: memory.baseAddress, iov_len: memory.count)])
    }

    /// Appends the pieces of `other`.
    mutating func append(_ other: TransferVectors) {
        unsafe pieces.append(contentsOf: other.pieces)
        kept += other.kept
        byteCount += other.byteCount
    }

    /// The part from byte `start`, `count` bytes long; shorter where the memory ends before.
    func slice(from start: Int, count: Int) -> TransferVectors {
        if start == 0, count >= byteCount { return self }
        var result: [iovec] = unsafe []
        var skip = start
        var rest = count
        for index in unsafe pieces.indices {
            let piece = unsafe pieces[index]
            if rest <= 0 { break }
            let length = unsafe piece.iov_len
            if skip >= length {
                skip -= length
                continue
            }
            let part = min(length - skip, rest)
            // SAFETY: skip + part is at most the piece's length.
            unsafe result.append(iovec(iov_base: piece.iov_base.map { unsafe $0 + skip }, iov_len: part))
            rest -= part
            skip = 0
        }
        var part = unsafe TransferVectors(result)
        part.kept = kept
        return part
    }

    /// The memory lives at least as long as this value.
    mutating func keepAlive(_ memory: ScratchMemory) { kept.append(memory) }

    /// Makes all of it zero.
    func clear() {
        // SAFETY: each piece is valid memory of its length.
        for index in unsafe pieces.indices {
            let piece = unsafe pieces[index]
            // A piece without memory has no length either.
            unsafe _ = piece.iov_base.map { unsafe memset($0, 0, piece.iov_len) }
        }
    }

    /// Fills it from the bytes of `source` from `start` on, as far as both go.
    package func fill(from source: [UInt8], at start: Int) {
        var position = start
        // SAFETY: count is within the piece and within the array.
        unsafe source.withUnsafeBytes { bytes in
            for index in unsafe pieces.indices {
                let piece = unsafe pieces[index]
                let count = unsafe min(piece.iov_len, bytes.count - position)
                guard count > 0, let base = bytes.baseAddress else { return }
                unsafe _ = memcpy(piece.iov_base, base + position, count)
                position += count
            }
        }
    }

    /// A copy of all of it.
    package var bytes: [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(byteCount)
        // SAFETY: each piece is valid memory of its length.
        for index in unsafe pieces.indices {
            let piece = unsafe pieces[index]
            unsafe result.append(contentsOf: UnsafeRawBufferPointer(start: piece.iov_base, count: piece.iov_len))
        }
        return result
    }

    /// Calls `body` with at most 1,024 pieces (UIO_MAXIOV), from byte `start` on.
    func withPieces<R>(from start: Int, _ body: (UnsafePointer<iovec>?, CInt) -> R) -> R {
        let rest = start == 0 ? self : slice(from: start, count: byteCount - start)
        // SAFETY: the array lives through the call.
        return unsafe rest.pieces.withUnsafeBufferPointer { unsafe body($0.baseAddress, CInt(min($0.count, 1024))) }
    }
}

/// Zeroes that writes without memory of their own take.
private let zeroMemory = ScratchMemory(byteCount: 64 << 10)

extension TransferVectors {
    /// `count` zero bytes, only to be written from.
    static func zeroes(_ count: Int) -> TransferVectors {
        var result = TransferVectors.none
        var rest = count
        while rest > 0 {
            result.append(zeroMemory.vectors(0..<min(rest, zeroMemory.byteCount)))
            rest -= zeroMemory.byteCount
        }
        return result
    }
}
