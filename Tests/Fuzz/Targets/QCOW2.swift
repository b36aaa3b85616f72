// A qcow2 image: opened, checked, repaired, read, written, grown, at places that the end of the input names.
import DiskImage

let qcow2Target = FuzzTarget("qcow2", 16384) { input in
    let mode = input.byte(), count = 1 + Int(input.byte() & 15)
    var places = Input(input.take(6 * count))
    let file = MemoryFile(input.rest())
    if mode & 1 != 0 { _ = try? QCOW2Check(file: file, clusterLimit: 1 << 16).check() }
    if mode & 2 != 0 { _ = try? QCOW2Check(file: file, clusterLimit: 1 << 16).repair() }
    guard let image = try? QCOW2Image(file: file, isReadOnly: mode & 4 != 0, backing: nil, cacheByteLimit: 256 << 10) else { return }
    if mode & 8 != 0 { try? image.grow(to: image.byteCount & ~511 &+ 1 << 20) }
    let memory = ScratchMemory(byteCount: 8192)
    for _ in 0..<count where image.byteCount >= 8192 {
        let operation: BlockRequest.Operation =
            switch places.byte() % 6 {
            case 0: .write(isDurable: true)
            case 1: .write(isDurable: false)
            case 2: .discard
            case 3: .writeZeroes(mayUnmap: mode & 16 != 0)
            case 4: .flush
            default: .read
            }
        let offset = (UInt64(places.number(UInt32.self)) << UInt64(places.byte() & 31)) % (image.byteCount - 8191)
        let request = BlockRequest(operation, offset: offset, byteCount: 8192, tag: 0)
        let hasData = switch operation { case .read, .write: true; default: false }
        _ = image.perform(request, vectors: hasData ? memory.vectors : .none)
    }
    try? image.close()
}
