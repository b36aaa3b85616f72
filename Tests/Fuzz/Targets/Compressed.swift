// Compressed clusters: zlib and Zstandard streams, as the only cluster of a sound qcow2 image.
import DiskImage

let compressedTarget = FuzzTarget("compressed", 4096) { input in
    let isZstandard = input.byte() & 1 != 0
    let data = input.rest()
    let file = MemoryFile(soundImage(isZstandard: isZstandard) + data + [UInt8](repeating: 0, count: 512))
    guard let image = try? QCOW2Image(file: file, isReadOnly: true, backing: nil) else { finding("the image around the data is refused") }
    let memory = ScratchMemory(byteCount: clusterByteCount)
    _ = image.perform(BlockRequest(.read, offset: 0, byteCount: UInt64(clusterByteCount), tag: 0), vectors: memory.vectors)
}

private let clusterByteCount = 4096

/// Header, L1 and L2 table of an image of one cluster, which is compressed and follows.
private func soundImage(isZstandard: Bool) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 3 * clusterByteCount)
    func put(_ value: UInt64, _ count: Int, _ offset: Int) {
        for index in 0..<count { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - index))) }
    }
    put(0x5146_49FB, 4, 0)
    put(3, 4, 4)
    put(12, 4, 20)
    put(UInt64(clusterByteCount), 8, 24)
    put(1, 4, 36)
    put(UInt64(clusterByteCount), 8, 40)
    // The refcount table is not read of an image that is not written to; it lies where zeroes are.
    put(UInt64(2 * clusterByteCount), 8, 48)
    put(1, 4, 56)
    put(isZstandard ? 8 : 0, 8, 72)
    put(4, 4, 96)
    put(112, 4, 100)
    put(isZstandard ? 1 : 0, 1, 104)
    put(UInt64(2 * clusterByteCount) | 1 << 63, 8, clusterByteCount)
    // Offset in the low 62 - (12 - 8) bits, sectors less one above: all that the entry can say.
    put(1 << 62 | 7 << 58 | UInt64(3 * clusterByteCount), 8, 2 * clusterByteCount)
    return bytes
}
