// The DMA controllers, and a floppy controller that transfers through them: a disk in drive A, whose medium changes.
import Chipset
import MachineCore
import GuestMemory

final class FuzzDMAMemory: DMAMemory {
    func read(_ address: UInt64, byteCount: Int) -> [UInt8]? { try? Bench.memory.bytes(at: GuestAddress(address), count: byteCount) }
    func write(_ address: UInt64, _ bytes: ArraySlice<UInt8>) -> Bool {
        (try? Bench.memory.write(Array(bytes), at: GuestAddress(address))) != nil
    }
}

private final class FuzzFloppy: FloppyImage {
    let sectorCount: Int
    let isReadOnly: Bool
    init(sectorCount: Int, isReadOnly: Bool) {
        self.sectorCount = sectorCount
        self.isReadOnly = isReadOnly
    }
    func read(sector: Int, completion: @escaping @Sendable ([UInt8]?) -> Void) {
        if !(0..<sectorCount).contains(sector) { finding("sector \(sector) of \(sectorCount)") }
        // One bad sector.
        completion(sector == 100 ? nil : [UInt8](repeating: UInt8(truncatingIfNeeded: sector), count: 512))
    }
    func write(sector: Int, _ bytes: [UInt8], completion: @escaping @Sendable (Bool) -> Void) {
        if !(0..<sectorCount).contains(sector) || bytes.count != 512 { finding("\(bytes.count) bytes to sector \(sector) of \(sectorCount)") }
        completion(sector != 100)
    }
}

let floppyTarget = FuzzTarget("floppy") { input in
    // What is in the drives: configuration, which a restored machine shares with the saved one.
    var disks: [(any FloppyImage)?] = [FuzzFloppy(sectorCount: 2880, isReadOnly: false), nil]
    drive(&input) {
        let rig = Rig()
        let dma = DMAController(memory: FuzzDMAMemory())
        let floppy = FloppyController(line: Bench.line, dma: dma, images: disks)
        rig.add(floppy, byteCount: 6)
        rig.add(floppy.digitalInput, byteCount: 1)
        for window in dma.ports { rig.add(window.device, byteCount: Int(window.count)) }
        rig.sections = [dma, floppy]
        rig.reset = {
            dma.reset()
            floppy.reset()
        }
        rig.actions = [
            {
                let sectors = [2880, 1440, 720, 5760, 17][$0.below(5)], drive = $0.below(3)
                let disk = $0.byte() & 1 != 0 ? FuzzFloppy(sectorCount: sectors, isReadOnly: $0.byte() & 1 != 0) : nil
                if floppy.insert(disk, drive: drive) { disks[drive] = disk }
            },
            {
                // A command as drivers write it: nine bytes to the data port, the result taken.
                for byte in $0.take(9) { floppy.write(offset: 5, width: .byte, value: UInt64(byte)) }
                for _ in 0..<7 { _ = floppy.read(offset: 5, width: .byte) }
            },
            {
                // Channel 2 as firmware sets it up: mode, address, length, unmasked.
                let ports = dma.ports[0].device, mode = $0.byte() & 0x3C | 2
                for (offset, value) in [(0x0C, 0), (0x0B, mode), (4, $0.byte()), (4, $0.byte()), (5, $0.byte()), (5, $0.byte()), (0x0A, 2)] {
                    ports.write(offset: UInt64(offset), width: .byte, value: UInt64(value))
                }
            },
        ]
        return rig
    }
}

let dmaTarget = FuzzTarget("dma", 1024) { input in
    drive(&input) {
        let rig = Rig()
        let dma = DMAController(memory: FuzzDMAMemory())
        for window in dma.ports { rig.add(window.device, byteCount: Int(window.count)) }
        rig.sections = [dma]
        rig.reset = { dma.reset() }
        rig.actions = [
            {
                let bytes = [UInt8](repeating: 0x5A, count: Int($0.number(UInt16.self)))
                let done = dma.write(channel: $0.below(8), bytes).byteCount
                if done > bytes.count { finding("\(done) bytes of \(bytes.count) moved") }
            },
            {
                let limit = Int($0.number(UInt16.self)), bytes = dma.read(channel: $0.below(8), byteCount: limit).bytes
                if bytes.count > limit { finding("\(bytes.count) bytes moved, \(limit) were asked for") }
            },
        ]
        return rig
    }
}
