// The AHCI controller with a disk on port 0 and a CD on port 1: registers, command lists, FISes and PRD tables from the input.
import GuestMemory
import MachineCore
import PCI
import Storage

let ahciTarget = FuzzTarget("ahci") { input in
    drive(&input) {
        let rig = Rig()
        let endpoint = must { try AHCIController.makeEndpoint(name: "ahci", line: Bench.line, message: FuzzInterrupts()) }
        let ahci = must {
            try AHCIController(
                endpoint, memory: Bench.memory,
                drives: [
                    0: .disk(FuzzDisk.disk, DriveIdentity(serial: "disk")), 1: .optical(FuzzDisk.disc, DriveIdentity(serial: "disc")),
                ], loop: Bench.loop)
        }
        endpoint.connect(to: FuzzAddressSpace())
        rig.add(ahci, byteCount: 0x200)
        rig.functions = [endpoint]
        rig.sections = [endpoint, ahci]
        rig.reset = { endpoint.reset() }
        rig.dispose = { endpoint.unplug() }
        rig.pause = {
            Bench.serve()
            if !ahci.pause() { finding("requests do not end") }
        }
        rig.resume = { ahci.resume() }
        rig.actions = [
            { ahciStart($0.below(2), endpoint, ahci) },
            { ahciCommand(&$0, ahci) }, { ahciCommand(&$0, ahci) }, { ahciCommand(&$0, ahci) },
            { _ in Bench.serve() },
            { Bench.writeMemory(&$0) },
            { FuzzDisk.disk.nextError = CInt($0.byte()) },
        ]
        return rig
    }
}

private func ahciList(_ port: Int) -> UInt64 { 0x1_0000 + UInt64(port) * 0x1000 }

/// A port as drivers start it.
private func ahciStart(_ port: Int, _ endpoint: PCIEndpoint, _ ahci: AHCIController) {
    endpoint.writeConfiguration(offset: 4, width: .word, value: 6)
    let base = 0x100 + UInt64(port) * 0x80
    let write = { (offset: UInt64, value: UInt64) in ahci.write(offset: base + offset, width: .doubleWord, value: value) }
    ahci.write(offset: 4, width: .doubleWord, value: 1 << 31 | 2)
    write(0, ahciList(port))
    write(8, 0x1_8000 + UInt64(port) * 0x1000)
    write(0x18, 1 << 4)
    write(0x30, 0xFFFF_FFFF)
    write(0x14, 0x7DC0_00FF)
    write(0x18, 1 << 4 | 1)
}

/// A command with up to three regions in a slot, issued.
private func ahciCommand(_ input: inout Input, _ ahci: AHCIController) {
    let choice = input.byte()
    let port = Int(choice & 1), slot = UInt64(choice >> 1 & 31), isQueued = choice & 0x40 != 0
    let table = 0x2_0000 + slot * 0x400, header = ahciList(port) + slot * 32
    let flags = input.number(UInt16.self), regionCount = UInt32(input.byte() & 3)
    let command = input.byte()
    let fis = input.take(12), packet = input.take(port == 1 ? 16 : 0)
    var writer = StateWriter()
    writer.write(5 | UInt32(flags & 0xFFE0) | regionCount << 16)
    writer.write(UInt32(0))
    writer.write(table)
    let memory = Bench.memory
    try? memory.write(writer.bytes, at: GuestAddress(header))
    try? memory.write([0x27, 0x80, command] + fis, at: GuestAddress(table))
    try? memory.write(packet, at: GuestAddress(table + 0x40))
    for index in 0..<UInt64(regionCount) {
        let address = UInt64(input.number(UInt16.self)) << 4, length = UInt32(input.number(UInt16.self)) | UInt32(choice >> 7) << 31
        try? memory.store(address, at: GuestAddress(table + 0x80 + index * 16))
        try? memory.store(length, at: GuestAddress(table + 0x8C + index * 16))
    }
    let base = 0x100 + UInt64(port) * 0x80
    if isQueued { ahci.write(offset: base + 0x34, width: .doubleWord, value: 1 << slot) }
    ahci.write(offset: base + 0x38, width: .doubleWord, value: 1 << slot)
}
