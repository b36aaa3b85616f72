// The flash chip behind the firmware's variables, four blocks of it.
import Chipset
import HostSystem
import MachineCore

private let byteCount = 4 * CFIFlash.blockByteCount

let flashTarget = FuzzTarget("flash", 1024) { input in
    drive(&input) {
        let rig = Rig()
        let file = must { try makeMemoryFile(named: "variables", byteCount: byteCount) }
        let flash = must { try FlashDevice(sharing: file.rawValue, below: 1 << 32, machine: FuzzMachine(), addresses: MemoryBus()) }
        rig.add(flash, byteCount: byteCount)
        rig.sections = [flash]
        rig.reset = { flash.reset() }
        rig.actions = [
            {
                // A program or an erase as drivers write it.
                let place = UInt64($0.number(UInt16.self)) % UInt64(byteCount)
                for byte in $0.take(4) { flash.write(offset: place, width: .byte, value: UInt64(byte)) }
            }
        ]
        return rig
    }
}
