// The board's interrupt lines, on the accelerator's interrupt controllers, and guest RAM as the DMA controllers reach it.
import Chipset
import GuestMemory
import HostSystem
import MachineCore
import Synchronization

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

/// An input with several sources: up while any of them is. Made before the guest starts.
final class SharedInput: Sendable {
    private let line: any InterruptLine
    private let levels = Mutex<[Bool]>([])

    init(_ line: any InterruptLine) { self.line = line }

    func makeSource() -> any InterruptLine {
        levels.withLock { levels in
            levels.append(false)
            return Source(self, levels.count - 1)
        }
    }

    private func set(_ source: Int, _ level: Bool) {
        levels.withLock { levels in
            let before = levels.contains(true)
            levels[source] = level
            let after = levels.contains(true)
            guard before != after else { return }
            if after { line.assert() } else { line.deassert() }
        }
    }

    private final class Source: InterruptLine {
        private let input: SharedInput
        private let index: Int

        init(_ input: SharedInput, _ index: Int) { (self.input, self.index) = (input, index) }

        func assert() { input.set(index, true) }
        func deassert() { input.set(index, false) }
    }
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
