// Integers in the byte order of a file format, in tables that are kept as the bytes they have on disk.

extension Array where Element == UInt8 {
    /// The integer of type `T` at `offset`, most significant byte first. 0 where the bytes end before it: a parser that
    /// trusts a length has compared it with `count` before.
    func bigEndian<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type = T.self, at offset: Int) -> T {
        guard offset >= 0, offset <= count &- MemoryLayout<T>.size else { return 0 }
        // SAFETY: within the array by the line above; any bits make an integer.
        return unsafe withUnsafeBytes { unsafe T(bigEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
    }

    /// As `bigEndian`, least significant byte first.
    func littleEndian<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type = T.self, at offset: Int) -> T {
        guard offset >= 0, offset <= count &- MemoryLayout<T>.size else { return 0 }
        // SAFETY: within the array by the line above; any bits make an integer.
        return unsafe withUnsafeBytes { unsafe T(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
    }

    /// Stores `value` at `offset`, most significant byte first. The caller made the array long enough.
    mutating func setBigEndian<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, at offset: Int) {
        precondition(offset >= 0 && offset <= count - MemoryLayout<T>.size, "a table is as long as its entries")
        // SAFETY: within the array by the line above.
        unsafe withUnsafeMutableBytes { unsafe $0.storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self) }
    }

    /// The text of the bytes `range`, up to the first zero byte; what is not printable ASCII becomes a question mark, so
    /// that a hostile name cannot talk to the reader's terminal.
    func printableText(_ range: Range<Int>) -> String {
        let bytes = self[range.clamped(to: 0..<count)].prefix { $0 != 0 }
        return String(decoding: bytes.map { (0x20...0x7E).contains($0) ? $0 : 0x3F }, as: UTF8.self)
    }
}

extension UInt64 {
    /// Rounded up to a multiple of `unit`, a power of two; nil where that does not fit.
    func roundedUp(to unit: UInt64) -> UInt64? {
        let (sum, overflow) = addingReportingOverflow(unit &- 1)
        return overflow ? nil : sum & ~(unit &- 1)
    }
}
