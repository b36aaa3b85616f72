// The configuration side of an ordinary function: header, BARs, INTx, MSI and MSI-X. A device owns one, hands it the register
// windows behind its BARs, and is told what the guest changed.
//
//     let endpoint = try PCIEndpoint(space, name: "ahci@00:1f.2", line: line, message: machine)
//     endpoint.setWindow(registers, forBAR: 5)
//     endpoint.onReset { … }
//     try bus.attach(endpoint, at: PCIAddress(device: 0x1F, function: 2))
//
// Lock order: configuration -> address space; `interrupt` is a leaf, so that `setLevel` may be called under a device's lock.
// Hooks run with no lock of this object held.
package import GuestMemory
package import MachineCore
import Synchronization

package final class PCIEndpoint: PCIFunction, SavableDevice {
    private struct Configuration: Sendable {
        var space: PCIConfigurationSpace
        var windows = BARWindows()
        var devices: [Int: any BusDevice] = [:]
    }
    private struct Interrupt: Sendable {
        /// What the device wants.
        var isAsserted = false
        /// What the line shows.
        var isLineAsserted = false
        var isDisabled = false
        var usesMessage = false
        var usesVectors = false
    }
    private struct Hooks: Sendable {
        var command: (@Sendable (UInt16) -> Void)?
        var write: (@Sendable (Range<Int>) -> Void)?
        var reset: (@Sendable () -> Void)?
    }

    package let stateName: String
    /// Nil where the function has no MSI-X.
    package let msix: MSIXInterrupts?
    private let configuration: Mutex<Configuration>
    private let interrupt = Mutex(Interrupt())
    private let hooks = Mutex(Hooks())
    private let line: (any InterruptLine)?
    private let message: (any MessageInterrupt)?
    private let messageOffset: Int?
    private let vectorOffset: Int?

    /// - Parameters:
    ///   - space: the header with its BARs; MSI and MSI-X capabilities are added here.
    ///   - name: unique in the machine: names the section of saved state.
    ///   - line: INTA of the function; nil where it never interrupts this way.
    ///   - message: makes one MSI, where the function is to have it.
    ///   - msix: vectors, and the 4 KiB BAR (declared here) that is to hold their table and pending bits.
    package init(
        _ space: PCIConfigurationSpace, name: String, line: (any InterruptLine)? = nil, message: (any MessageInterruptFactory)? = nil,
        msix: (interrupts: MSIXInterrupts, bar: Int)? = nil
    ) throws(AcceleratorError) {
        var space = space
        if line != nil { space.setInterrupt(pin: 1, line: 0) }
        messageOffset =
            message == nil
            ? nil : space.addCapability(id: 0x05, body: [0x80, 0] + [UInt8](repeating: 0, count: 10), writable: [1, 0, 0xFC, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])
        self.message = try message?.makeMessageInterrupt()
        if let msix {
            space.addBAR(BaseAddressRegister(index: msix.bar, kind: .memory32, byteCount: 4096))
            vectorOffset = space.addCapability(
                id: 0x11, body: msix.interrupts.table.capabilityBody(bar: UInt8(truncatingIfNeeded: msix.bar), tableOffset: 0, pendingOffset: MSIXWindow.pendingOffset),
                writable: MSIXTable.capabilityMask)
        } else {
            vectorOffset = nil
        }
        self.msix = msix?.interrupts
        self.line = line
        stateName = name
        configuration = Mutex(Configuration(space: space))
        if let msix { setWindow(MSIXWindow(msix.interrupts), forBAR: msix.bar) }
    }

    // MARK: For the device that owns it, before the guest starts

    /// Registers behind a BAR (0-5), or the expansion ROM (`PCIConfigurationSpace.romIndex`).
    package func setWindow(_ device: any BusDevice, forBAR index: Int) { configuration.withLock { $0.devices[index] = device } }
    /// The command register changed.
    package func onCommand(_ body: @escaping @Sendable (UInt16) -> Void) { hooks.withLock { $0.command = body } }
    /// The guest wrote these offsets, or a reset all of them: for chipset registers.
    package func onWrite(_ body: @escaping @Sendable (Range<Int>) -> Void) { hooks.withLock { $0.write = body } }
    package func onReset(_ body: @escaping @Sendable () -> Void) { hooks.withLock { $0.reset = body } }

    // MARK: For the device, at any time

    package var command: UInt16 { configuration.withLock { $0.space.command } }
    /// Whether the function may reach guest memory.
    package var isBusMaster: Bool { command & PCIConfigurationSpace.Command.busMaster != 0 }

    /// A register as the guest reads it.
    package func register(at offset: Int, width: AccessWidth) -> UInt64 { configuration.withLock { $0.space.read(offset: offset, width: width) } }

    package func change(_ body: @Sendable (inout PCIConfigurationSpace) -> Void) {
        configuration.withLock { configuration in
            body(&configuration.space)
            update(&configuration)
        }
    }

    /// The level of the function's interrupt: INTx, or one message at each rise where MSI is on. A leaf.
    package func setLevel(_ isAsserted: Bool) {
        interrupt.withLock { interrupt in
            let rises = isAsserted && !interrupt.isAsserted
            interrupt.isAsserted = isAsserted
            if interrupt.usesMessage, rises { message?.trigger() }
            drive(&interrupt)
        }
    }

    private func drive(_ interrupt: inout Interrupt) {
        let wanted = interrupt.isAsserted && !interrupt.isDisabled && !interrupt.usesMessage && !interrupt.usesVectors
        guard wanted != interrupt.isLineAsserted else { return }
        interrupt.isLineAsserted = wanted
        if wanted { line?.assert() } else { line?.deassert() }
    }

    // MARK: PCIFunction

    package func readConfiguration(offset: Int, width: AccessWidth) -> UInt64 {
        let isAsserted = interrupt.withLock { $0.isAsserted }
        return configuration.withLock { configuration in
            configuration.space.setInterruptStatus(isAsserted)
            return configuration.space.read(offset: offset, width: width)
        }
    }

    package func writeConfiguration(offset: Int, width: AccessWidth, value: UInt64) {
        let (before, after) = configuration.withLock { configuration -> (UInt16, UInt16) in
            let before = configuration.space.command
            if configuration.space.write(offset: offset, width: width, value: value) { update(&configuration) }
            followInterruptControl(configuration.space)
            return (before, configuration.space.command)
        }
        let hooks = hooks.withLock { $0 }
        if before != after { hooks.command?(after) }
        hooks.write?(offset..<(offset + width.byteCount))
    }

    private func update(_ configuration: inout Configuration) {
        let devices = configuration.devices
        configuration.windows.update(to: configuration.space.decodedRanges) { devices[$0] }
    }

    /// Brings MSI, MSI-X and Interrupt Disable in line with the registers. Configuration lock held.
    private func followInterruptControl(_ space: PCIConfigurationSpace) {
        var usesMessage = false, usesVectors = false
        if let offset = messageOffset, let message {
            usesMessage = space.read(offset: offset + 2, width: .word) & 1 != 0
            let address = space.read(offset: offset + 4, width: .doubleWord) | space.read(offset: offset + 8, width: .doubleWord) << 32
            let data = UInt32(truncatingIfNeeded: space.read(offset: offset + 12, width: .word))
            // A route that the accelerator refuses is an interrupt that does not come: the guest chose the address.
            try? message.setMessage(usesMessage ? InterruptMessage(address: address, data: data) : nil)
        }
        if let offset = vectorOffset, let msix {
            let control = UInt16(truncatingIfNeeded: space.read(offset: offset + 2, width: .word))
            msix.setControl(control)
            usesVectors = control & 0x8000 != 0
        }
        interrupt.withLock { interrupt in
            interrupt.isDisabled = space.command & PCIConfigurationSpace.Command.interruptDisable != 0
            interrupt.usesMessage = usesMessage
            interrupt.usesVectors = usesVectors
            drive(&interrupt)
        }
    }

    package var baseAddressRegisters: [BaseAddressRegister] { configuration.withLock { $0.space.bars } }

    package func place(_ bar: BaseAddressRegister, at base: GuestAddress) {
        configuration.withLock { configuration in
            configuration.space.place(bar, at: base)
            update(&configuration)
        }
    }

    package func connect(to addressSpace: any PCIAddressSpace) {
        configuration.withLock { configuration in
            configuration.windows.connect(to: addressSpace)
            update(&configuration)
        }
    }

    package func reset() {
        let hooks = hooks.withLock { $0 }
        hooks.reset?()
        configuration.withLock { configuration in
            configuration.space.reset()
            if let messageOffset { _ = configuration.space.write(offset: messageOffset + 2, width: .word, value: 0) }
            if let vectorOffset { _ = configuration.space.write(offset: vectorOffset + 2, width: .word, value: 0) }
            update(&configuration)
            msix?.reset()
            followInterruptControl(configuration.space)
        }
        setLevel(false)
        // Registers went back to their first values: whoever follows them looks at all.
        hooks.write?(0..<PCIConfigurationSpace.byteCount)
    }

    // MARK: Saved state

    package static var stateVersion: UInt32 { 1 }

    package func saveState(into writer: inout StateWriter) {
        var space = configuration.withLock { $0.space }
        // Worked out anew at each read; the copy in the register is as old as the last one.
        space.setInterruptStatus(false)
        space.save(into: &writer)
        writer.write(interrupt.withLock { $0.isAsserted })
        msix?.save(into: &writer)
    }

    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        var space = configuration.withLock { $0.space }
        try space.restore(from: &reader)
        let isAsserted = try reader.readBool()
        try msix?.restore(from: &reader)
        configuration.withLock { [space] configuration in
            configuration.space = space
            update(&configuration)
            followInterruptControl(space)
        }
        // The message of a rise before the save was sent then.
        interrupt.withLock { interrupt in
            interrupt.isAsserted = isAsserted
            drive(&interrupt)
        }
    }
}

/// MSI-X table and pending bits alone in a BAR of 4 KiB: the table at 0, the bits at 0x800, so that 128 vectors fit.
private final class MSIXWindow: BusDevice {
    static let pendingOffset: UInt32 = 0x800
    private let interrupts: MSIXInterrupts

    init(_ interrupts: MSIXInterrupts) { self.interrupts = interrupts }

    func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        offset < UInt64(Self.pendingOffset)
            ? interrupts.readTable(offset: Int(offset), width: width) : interrupts.readPending(offset: Int(clamping: offset) - Int(Self.pendingOffset), width: width)
    }

    func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard offset < UInt64(Self.pendingOffset) else { return }
        interrupts.writeTable(offset: Int(offset), width: width, value: value)
    }
}
