// The bytes of the battery-backed memory that firmware reads where fw_cfg does not tell it (SeaBIOS, src/hw/rtc.h).
import Firmware
import MachineConfiguration

extension Board {
    static func batteryMemory(_ configuration: GuestConfiguration, lowMemoryEnd: UInt64, floppyTypes: UInt8) -> [(index: UInt8, value: UInt8)] {
        let all = UInt64(configuration.memoryMiB) << 20, low = min(all, lowMemoryEnd), high = all - low
        let extendedKiB = min((low >> 10) - 1024, 0xFFFF), above16 = low > 16 << 20 ? min((low - 16 << 20) >> 16, 0xFFFF) : 0
        func bytes(_ index: UInt8, _ value: UInt64, _ count: UInt8) -> [(index: UInt8, value: UInt8)] {
            (0..<count).map { (index + $0, UInt8(truncatingIfNeeded: value >> UInt64(8 * $0))) }
        }
        // Equipment: a mathematics coprocessor, a PS/2 mouse port; a floppy drive, and in the high bits how many more.
        let equipment: UInt64 = floppyTypes == 0 ? 0x06 : floppyTypes & 0x0F == 0 ? 0x07 : 0x47
        return bytes(0x10, UInt64(floppyTypes), 1) + bytes(0x14, equipment, 1) + bytes(0x15, 640, 2) + bytes(0x17, extendedKiB, 2) + bytes(0x30, extendedKiB, 2) + bytes(0x34, above16, 2)
            + bytes(0x5B, high >> 16, 3) + bytes(0x5F, UInt64(configuration.cpu.count - 1), 1)
            // Boot from disk, then CD, then the network.
            + bytes(0x3D, 0x32, 1) + bytes(0x38, 0x40, 1)
    }
}
