// fw_cfg, with its DMA: commands that lie in RAM where the input put them.
import Firmware
import Glibc
import GuestMemory
import HostSystem
import MachineCore

let firmwareConfigurationTarget = FuzzTarget("fw-cfg", 1024) { input in
    drive(&input) {
        let rig = Rig()
        var items = FirmwareItems()
        items.add(FirmwareItems.Key.processorCount, UInt16(2))
        let file = must { try ImageFile(descriptor: kernel.rawValue, named: "kernel") }
        items.add(FirmwareItems.Key.kernelData, .file(file, offset: 512, byteCount: 3000))
        // One that says more than its file has.
        items.add(FirmwareItems.Key.initrdData, .file(file, offset: 4000, byteCount: 1 << 20))
        items.addFile("etc/system-states", .bytes([1, 2, 3, 4, 5, 6]))
        items.addFiles(["etc/acpi/rsdp", "etc/acpi/tables"]) { ["etc/acpi/rsdp": [1, 2], "etc/acpi/tables": [UInt8](repeating: 3, count: 300)] }
        let ports = FirmwarePorts(items, memory: Bench.memory)
        rig.add(ports, byteCount: 12)
        rig.sections = [ports]
        rig.reset = { ports.reset() }
        rig.actions = [
            {
                // A DMA command: control, length, address, and its place.
                let place = UInt64($0.number(UInt16.self)) << UInt64($0.byte() & 7)
                try? Bench.memory.write($0.take(16), at: GuestAddress(place))
                ports.write(offset: 4, width: .doubleWord, value: 0)
                ports.write(offset: 8, width: .doubleWord, value: UInt64(UInt32(truncatingIfNeeded: place).byteSwapped))
            },
            { Bench.writeMemory(&$0) },
            { ports.write(offset: 0, width: .word, value: UInt64($0.byte() & 0x3F)) },
        ]
        return rig
    }
}

private let kernel = must { try makeMemoryFile(named: "kernel", byteCount: 4096) }
