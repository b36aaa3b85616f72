// Images of the formats that are only read: opened, and read at places that the start of the input names.
import DiskImage

let vmdkTarget = FuzzTarget("vmdk", 8192) { readImported(&$0) { try VMDKMap(file: $0) } }
let vhdTarget = FuzzTarget("vhd", 8192) { readImported(&$0) { try VHDMap(file: $0) } }
let vhdxTarget = FuzzTarget("vhdx", 16384) { readImported(&$0) { try VHDXMap(file: $0) } }
let vdiTarget = FuzzTarget("vdi", 8192) { readImported(&$0) { try VDIMap(file: $0) } }

private func readImported(_ input: inout Input, _ open: (SparseFile) throws -> any ExtentMap) {
    var places = Input(input.take(24))
    let file = SparseFile(&input)
    guard let map = try? open(file) else { return }
    let image = ImportedImage(file: file, map: map), memory = ScratchMemory(byteCount: 8192)
    func read(_ offset: UInt64) {
        _ = image.perform(BlockRequest(.read, offset: offset, byteCount: 8192, tag: 0), vectors: memory.vectors)
    }
    guard image.byteCount >= 8192 else { return }
    for _ in 0..<4 { read((UInt64(places.number(UInt32.self)) << UInt64(places.byte() & 31)) % (image.byteCount - 8191)) }
    // And its last bytes.
    read(image.byteCount - 8192)
}
