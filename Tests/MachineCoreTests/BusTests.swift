import GuestMemory
import MachineCore
import Synchronization
import Testing

private final class Register: BusDevice {
    let seen = Mutex<[UInt64]>([])
    func read(offset: UInt64, width: AccessWidth) -> UInt64 { 0xAABB_CCDD_0000_0000 | offset }
    func write(offset: UInt64, width: AccessWidth, value: UInt64) { seen.withLock { $0 += [offset, value] } }
}

struct BusTests {
    @Test func portsReachTheirDeviceAndOthersReadAllOnes() {
        var bus = PortBus()
        let device = Register()
        bus.attach(device, at: 0x3F8, count: 8)
        #expect(bus.read(0x3FD, width: .byte) == 5)
        #expect(bus.read(0x400, width: .word) == 0xFFFF && bus.read(0x3F7, width: .doubleWord) == 0xFFFF_FFFF)
        bus.write(0x3F8, width: .byte, value: 0x1FF)
        bus.write(0x400, width: .byte, value: 1)
        #expect(device.seen.withLock { $0 } == [0, 0xFF])
    }

    @Test func memoryWindowsDoNotOverlapAndCanMove() {
        let bus = MemoryBus()
        let device = Register()
        #expect(bus.attach(device, at: GuestAddress(0x1000), byteCount: 0x1000))
        #expect(!bus.attach(Register(), at: GuestAddress(0x1FFF), byteCount: 1))
        #expect(!bus.attach(Register(), at: GuestAddress(.max), byteCount: 2))
        #expect(bus.read(GuestAddress(0x1FFC), byteCount: 4) == 0xFFC)
        bus.detach(device, at: GuestAddress(0x1000))
        #expect(bus.read(GuestAddress(0x1FFC), byteCount: 4) == 0xFFFF_FFFF)
    }

    @Test func stateReaderRefusesALengthBeyondTheEnd() {
        var reader = StateReader(section: "x", bytes: [0xFF, 0xFF, 0xFF, 0xFF, 1])
        #expect(throws: DeviceStateError.self) { try reader.readBytes() }
    }
}
