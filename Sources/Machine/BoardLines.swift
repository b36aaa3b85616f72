// The board's interrupt lines, on the accelerator's interrupt controllers, and guest RAM as the DMA controllers reach it.
import Chipset
import GuestMemory
import HostSystem
import MachineCore

/// One global system interrupt as a line.
final class GSILine: InterruptLine {
    private let machine: any VirtualMachine
    private let gsi: UInt32

    init(_ machine: any VirtualMachine, gsi: UInt32) {
        self.machine = machine
        self.gsi = gsi
    }

    func assert() { machine.setLine(gsi: gsi, isAsserted: true) }
    func deassert() { machine.setLine(gsi: gsi, isAsserted: false) }
}

/// Guest RAM as the DMA controllers reach it.
final class ISAMemory: DMAMemory {
    private let memory: GuestMemory

    init(_ memory: GuestMemory) { self.memory = memory }

    func read(_ address: UInt64, byteCount: Int) -> [UInt8]? { try? memory.bytes(at: GuestAddress(address), count: byteCount) }

    func write(_ address: UInt64, _ bytes: ArraySlice<UInt8>) -> Bool {
        (try? memory.write(Array(bytes), at: GuestAddress(address))) != nil
    }
}
