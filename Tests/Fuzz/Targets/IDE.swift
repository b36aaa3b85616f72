// The PIIX IDE controller: two disks on channel 0, a CD on channel 1, driven through ports, bus master and PRD tables.
import GuestMemory
import MachineCore
import PCI
import Storage
import Synchronization

/// Takes the ports that BAR 4 is mapped at.
private final class PortSpace: PCIAddressSpace {
    let device = Mutex<(any BusDevice)?>(nil)
    func map(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) {}
    func unmap(_ window: any BusDevice, at base: GuestAddress, byteCount: UInt64) {}
    func mapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16) { device.withLock { $0 = window } }
    func unmapPorts(_ window: any BusDevice, at base: UInt16, count: UInt16) {}
}

let ideTarget = FuzzTarget("ide") { input in
    drive(&input) {
        let rig = Rig(), space = PortSpace()
        let endpoint = must { try IDEController.makeEndpoint(name: "ide") }
        let identity = DriveIdentity(serial: "ide")
        let ide = must {
            try IDEController(
                endpoint, memory: Bench.memory,
                drives: [[.disk(FuzzDisk.disk, identity), .disk(FuzzDisk.disc, identity)], [.optical(FuzzDisk.disc, identity)]],
                lines: (Bench.line, Bench.line), loop: Bench.loop)
        }
        endpoint.connect(to: space)
        endpoint.writeConfiguration(offset: 0x20, width: .doubleWord, value: 0xC000)
        endpoint.writeConfiguration(offset: 4, width: .word, value: 5)
        let blocks = (0..<2).map { ide.commandBlock($0) }
        for channel in 0..<2 {
            rig.add(blocks[channel], byteCount: 8)
            rig.add(ide.controlBlock(channel), byteCount: 1)
        }
        let master = space.device.withLock { $0 }
        if let master { rig.add(master, byteCount: 16) }
        rig.functions = [endpoint]
        rig.sections = [endpoint, ide]
        rig.reset = { endpoint.reset() }
        rig.dispose = { endpoint.unplug() }
        rig.pause = {
            Bench.serve()
            if !ide.pause() { finding("requests do not end") }
        }
        rig.resume = { ide.resume() }
        rig.actions = [
            {
                // A command: device, four registers, the command itself; for a packet its twelve bytes.
                let choice = $0.byte(), block = blocks[Int(choice & 1)]
                for (register, value) in zip([6, 1, 2, 3, 4, 5], $0.take(6)) { block.write(offset: UInt64(register), width: .byte, value: UInt64(value)) }
                let command = choice & 2 != 0 ? 0xA0 : $0.byte()
                block.write(offset: 7, width: .byte, value: UInt64(command))
                guard command == 0xA0 else { return }
                var packet = Input($0.take(12))
                for _ in 0..<6 { block.write(offset: 0, width: .word, value: UInt64(packet.number(UInt16.self))) }
            },
            { ideTransfer(&$0, master) },
            {
                let block = blocks[$0.below(2)]
                block.readString(offset: 0, width: .word, count: Int($0.byte()) * 2) { _, _ in }
            },
            { input in
                let block = blocks[input.below(2)]
                for _ in 0..<(Int(input.byte()) * 2) { block.write(offset: 0, width: .word, value: 0x1234) }
            },
            { _ in Bench.serve() },
            { Bench.writeMemory(&$0) },
            { FuzzDisk.disk.nextError = CInt($0.byte()) },
        ]
        return rig
    }
}

/// A PRD table of up to three entries, and the bus master started.
private func ideTransfer(_ input: inout Input, _ master: (any BusDevice)?) {
    let choice = input.byte(), channel = UInt64(choice & 1) * 8, count = UInt64(choice >> 1 & 3)
    for index in 0..<count {
        let address = UInt32(input.number(UInt16.self)) << 4, length = UInt32(input.number(UInt16.self))
        try? Bench.memory.store(address, at: GuestAddress(0x1_0000 + index * 8))
        try? Bench.memory.store(length | (index == count - 1 ? 1 << 31 : 0), at: GuestAddress(0x1_0004 + index * 8))
    }
    master?.write(offset: channel + 4, width: .doubleWord, value: 0x1_0000)
    master?.write(offset: channel, width: .byte, value: UInt64(choice >> 3 & 8 | 1))
}
