// The DMA controllers on the bus, and between a device and guest memory.
//
//     let dma = DMAController(memory: guestMemory)
//     for window in dma.ports { ports.attach(window.device, at: window.first, count: window.count) }
//
// The windows leave out port 0x80, which is the `DiagnosticPort`'s.
package import MachineCore
import Synchronization

/// Guest memory, as ISA devices reach it. Called on a device's thread, with no lock of this folder held.
package protocol DMAMemory: AnyObject, Sendable {
    /// `byteCount` bytes from `address`; nil where they are not all RAM.
    func read(_ address: UInt64, byteCount: Int) -> [UInt8]?
    /// False, and nothing is written, where the bytes do not all go to RAM.
    func write(_ address: UInt64, _ bytes: ArraySlice<UInt8>) -> Bool
}

package final class DMAController: SavableDevice, Sendable {
    package static let stateVersion = I8237Pair.stateVersion
    package var stateName: String { "dma" }

    private let chips = Mutex(I8237Pair())
    private let memory: any DMAMemory

    package init(memory: any DMAMemory) { self.memory = memory }

    package struct Window: Sendable {
        package let first: UInt16, count: UInt16
        package let device: any BusDevice
    }

    package var ports: [Window] {
        [(UInt16(0x00), UInt16(0x10)), (0x81, 0x0F), (0xC0, 0x20)].map {
            Window(first: $0, count: $1, device: Ports(self, first: $0))
        }
    }

    // MARK: A device's side

    /// Sends `bytes` to memory by `channel`: how many went, and whether terminal count was reached. Memory that is not
    /// RAM swallows them, as on a PC.
    package func write(channel: Int, _ bytes: [UInt8]) -> (byteCount: Int, isTerminal: Bool) {
        let transfer = chips.withLock { $0.request(channel, writesMemory: true, byteCount: bytes.count) }
        var done = 0
        for segment in transfer.segments {
            _ = memory.write(segment.address, bytes[done..<(done + segment.byteCount)])
            done += segment.byteCount
        }
        return (transfer.byteCount, transfer.isTerminal)
    }

    /// At most `byteCount` bytes from memory by `channel`, and whether terminal count was reached. What is not RAM
    /// reads as ones, what a verify transfer counts as zeros.
    package func read(channel: Int, byteCount: Int) -> (bytes: [UInt8], isTerminal: Bool) {
        let transfer = chips.withLock { $0.request(channel, writesMemory: false, byteCount: byteCount) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(transfer.byteCount)
        for segment in transfer.segments {
            let part = memory.read(segment.address, byteCount: segment.byteCount)
            bytes += part ?? [UInt8](repeating: 0xFF, count: segment.byteCount)
        }
        if bytes.count < transfer.byteCount { bytes += [UInt8](repeating: 0, count: transfer.byteCount - bytes.count) }
        return (bytes, transfer.isTerminal)
    }

    package func reset() { chips.withLock { $0 = I8237Pair() } }

    package func saveState(into writer: inout StateWriter) { chips.withLock { $0 }.save(into: &writer) }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        var copy = I8237Pair()
        try copy.restore(from: &reader, version: version)
        chips.withLock { [copy] in $0 = copy }
    }

    // MARK: The guest's side

    private final class Ports: BusDevice {
        private let controller: DMAController
        private let first: UInt16

        init(_ controller: DMAController, first: UInt16) {
            self.controller = controller
            self.first = first
        }

        func read(offset: UInt64, width: AccessWidth) -> UInt64 {
            let port = first &+ UInt16(truncatingIfNeeded: offset)
            guard width == .byte, let value = controller.chips.withLock({ $0.read(port) }) else { return width.allOnes }
            return UInt64(value)
        }

        func write(offset: UInt64, width: AccessWidth, value: UInt64) {
            let port = first &+ UInt16(truncatingIfNeeded: offset)
            guard width == .byte else { return }
            controller.chips.withLock { $0.write(port, UInt8(truncatingIfNeeded: value)) }
        }
    }
}

/// Port 0x80: firmware shows how far it got, and old software waits by a write to it. Nothing else is done with it.
package final class DiagnosticPort: BusDevice {
    private let latch = Atomic<UInt8>(0)

    package init() {}

    /// The last code the firmware wrote.
    package var code: UInt8 { latch.load(ordering: .relaxed) }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 { UInt64(code) }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        latch.store(UInt8(truncatingIfNeeded: value), ordering: .relaxed)
    }
}
