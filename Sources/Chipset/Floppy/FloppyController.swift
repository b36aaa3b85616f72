// The floppy controller on the bus, between its DMA channel, IRQ 6 and the images of its drives.
//
//     let floppy = FloppyController(line: irq6, dma: dma, images: [image])
//     ports.attach(floppy, at: 0x3F0, count: 6)                    // 0x3F6 is the disk controller's
//     ports.attach(floppy.digitalInput, at: 0x3F7, count: 1)
//
// Firmware finds the drives' types in CMOS byte 0x10: 4 is 1.44 MB, drive A in the high four bits.
package import MachineCore
import Synchronization

/// A disk's sectors of 512 bytes. Called with no lock of this folder held; the completion may be called at once or
/// later, on any thread, once.
package protocol FloppyImage: AnyObject, Sendable {
    /// 2880 for 1.44 MB; see `I82077.Geometry` for the others.
    var sectorCount: Int { get }
    var isReadOnly: Bool { get }
    /// 512 bytes, or nil where they cannot be read.
    func read(sector: Int, completion: @escaping @Sendable ([UInt8]?) -> Void)
    /// False where they cannot be written.
    func write(sector: Int, _ bytes: [UInt8], completion: @escaping @Sendable (Bool) -> Void)
}

package final class FloppyController: BusDevice, SavableDevice {
    package static let stateVersion = I82077.stateVersion
    package static let dmaChannel = 2
    package var stateName: String { "floppy" }

    private struct Wiring: Sendable {
        var chip: I82077
        var images: [(any FloppyImage)?]
        var isAsserted = false
    }
    private let wiring: Mutex<Wiring>
    private let line: any InterruptLine
    private let dma: DMAController
    private let drivesPresent: Int

    /// One or two drives, each with an image or empty. An image of a size that no disk has leaves its drive empty.
    package init(line: any InterruptLine, dma: DMAController, images: [(any FloppyImage)?]) {
        self.line = line
        self.dma = dma
        let images = Array(images.prefix(I82077.driveCount))
        drivesPresent = images.count
        let padded = images + [(any FloppyImage)?](repeating: nil, count: I82077.driveCount - images.count)
        wiring = Mutex(Wiring(chip: Self.chip(padded, drivesPresent: images.count), images: padded))
    }

    private static func chip(_ images: [(any FloppyImage)?], drivesPresent: Int) -> I82077 {
        var chip = I82077(drivesPresent: drivesPresent)
        for (drive, image) in images.enumerated() { chip.setDisk(image.flatMap(disk), drive: drive) }
        return chip
    }

    private static func disk(_ image: any FloppyImage) -> I82077.Disk? {
        I82077.Geometry(sectorCount: image.sectorCount).map { I82077.Disk(geometry: $0, isReadOnly: image.isReadOnly) }
    }

    private func withChip<Result: Sendable>(_ body: (inout Wiring) -> Result) -> Result {
        wiring.withLock { wiring in
            let result = body(&wiring)
            if wiring.chip.isInterrupting != wiring.isAsserted {
                wiring.isAsserted.toggle()
                if wiring.isAsserted { line.assert() } else { line.deassert() }
            }
            return result
        }
    }

    // MARK: The machine's side

    /// Puts `image` into `drive` (0 or 1), or takes the disk out with nil. False, and nothing happens, where there is
    /// no such drive or no disk of that size.
    @discardableResult
    package func insert(_ image: (any FloppyImage)?, drive: Int) -> Bool {
        guard (0..<drivesPresent).contains(drive) else { return false }
        let disk = image.flatMap(Self.disk)
        guard image == nil || disk != nil else { return false }
        withChip { wiring in
            wiring.images[drive] = image
            wiring.chip.setDisk(disk, drive: drive)
        }
        return true
    }

    /// Sectors are under way.
    package var isExecuting: Bool { wiring.withLock { $0.chip.isExecuting } }

    package func reset() {
        withChip { wiring in
            var chip = Self.chip(wiring.images, drivesPresent: drivesPresent)
            // Operations under way are of the machine before.
            chip.serial = wiring.chip.serial &+ 1
            wiring.chip = chip
        }
    }

    package func saveState(into writer: inout StateWriter) { wiring.withLock { $0.chip }.save(into: &writer) }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        var chip = wiring.withLock { $0.chip }
        try chip.restore(from: &reader, version: version)
        withChip { [chip] in $0.chip = chip }
    }

    // MARK: Transfers, one sector after the other

    private func begin(_ operation: I82077.Operation) {
        guard let image = wiring.withLock({ $0.images[operation.drive & 1] }) else { return finish(operation, .failed) }
        switch operation.kind {
        case .read:
            image.read(sector: operation.sector) { [weak self] bytes in self?.deliver(bytes, of: operation) }
        case .write:
            let (bytes, isTerminal) = dma.read(channel: Self.dmaChannel, byteCount: I82077.sectorByteCount)
            guard !bytes.isEmpty else { return finish(operation, .overrun) }
            // A count that ends within a sector has its rest filled with zeros.
            let rest = [UInt8](repeating: 0, count: I82077.sectorByteCount - bytes.count)
            write(bytes + rest, to: image, isTerminal: isTerminal, operation)
        case .format:
            // Cylinder, head, sector and size of each mark come from memory; an image has no marks to keep them in.
            let (mark, isTerminal) = dma.read(channel: Self.dmaChannel, byteCount: 4)
            guard mark.count == 4 else { return finish(operation, .overrun) }
            let filler = [UInt8](repeating: operation.filler, count: I82077.sectorByteCount)
            write(filler, to: image, isTerminal: isTerminal, operation)
        }
    }

    private func deliver(_ bytes: [UInt8]?, of operation: I82077.Operation) {
        guard let bytes, bytes.count == I82077.sectorByteCount else { return finish(operation, .failed) }
        // Not into the memory of a guest whose driver has reset the controller meanwhile.
        guard wiring.withLock({ $0.chip.isExecuting && $0.chip.serial == operation.serial }) else { return }
        let (byteCount, isTerminal) = dma.write(channel: Self.dmaChannel, bytes)
        finish(
            operation,
            byteCount == 0 || byteCount < bytes.count && !isTerminal ? .overrun : .done(isTerminal: isTerminal))
    }

    private func write(_ bytes: [UInt8], to image: any FloppyImage, isTerminal: Bool, _ operation: I82077.Operation) {
        image.write(sector: operation.sector, bytes) { [weak self] isWritten in
            self?.finish(operation, isWritten ? .done(isTerminal: isTerminal) : .failed)
        }
    }

    private func finish(_ operation: I82077.Operation, _ outcome: I82077.Outcome) {
        if let next = withChip({ $0.chip.finish(operation, outcome) }) { begin(next) }
    }

    // MARK: The guest's side

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard width == .byte else { return width.allOnes }
        return UInt64(withChip { $0.chip.read(offset) })
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard width == .byte else { return }
        if let operation = withChip({ $0.chip.write(offset, UInt8(truncatingIfNeeded: value)) }) { begin(operation) }
    }

    /// Port 0x3F7: the disk change line, and the data rate.
    package var digitalInput: any BusDevice { DigitalInput(self) }

    private final class DigitalInput: BusDevice {
        private let controller: FloppyController
        init(_ controller: FloppyController) { self.controller = controller }
        func read(offset: UInt64, width: AccessWidth) -> UInt64 {
            controller.read(offset: I82077.Register.digitalInput &+ offset, width: width)
        }
        func write(offset: UInt64, width: AccessWidth, value: UInt64) {
            controller.write(offset: I82077.Register.digitalInput &+ offset, width: width, value: value)
        }
    }
}
