// A virtio device as a PCI function: the modern transport (virtio 1.2 §4.1) wired to the memory bus, doorbells, message
// interrupts and event loops.
//
// Usage: let function = try VirtIOPCIFunction(device, name: "virtio-blk@00:03.0", memory: memory, interrupts: vm,
// doorbells: vm); try bus.attach(function, at: PCIAddress(device: 3)). To save: pause(), saveState. To restore into a fresh
// machine: pause(), restoreState, resume().
//
// Lock order: configuration -> chip -> doorbells; device locks come after chip; VirtIOEvents is a leaf. The data path (a
// doorbell in the kernel, the device's queue lock, a message interrupt) takes none of the three.
package import GuestMemory
import HostSystem
package import MachineCore
package import PCI
import Glibc
import Synchronization

/// One virtio function on the bus.
package final class VirtIOPCIFunction: PCIFunction, BusDevice {
    private struct Configuration: Sendable {
        var space: PCIConfigurationSpace
        var windows = BARWindows()
    }
    struct Chip: Sendable {
        var registers: VirtIOCommonConfiguration
        /// The machine is paused: queues stand still whatever the driver writes.
        var isPaused = false
        /// Queues run.
        var isRunning = false
        /// Where queues stand while paused with DRIVER_OK set.
        var positions: [RingPosition?] = []
        /// The state was restored and the queues have not run since.
        var isRestored = false
    }
    private struct Doorbells: Sendable {
        var base: GuestAddress?
        var isActive = false
        var registered: [Int: GuestAddress] = [:]
    }

    package let device: any VirtIODevice
    package let events: VirtIOEvents
    package let stateName: String
    let memory: GuestMemory
    let links: [QueueLink]
    let chip: Mutex<Chip>
    private let configuration: Mutex<Configuration>
    private let doorbells: Mutex<Doorbells>
    private let registrar: (any DoorbellRegistrar)?
    private let rom: OptionROM?
    private let refusedDoorbells = Atomic<UInt64>(0)
    private let windowOffset: Int
    private let msixOffset: Int

    package static let vendorID: UInt16 = 0x1AF4
    package static func deviceID(_ identity: VirtIOIdentity) -> UInt16 { 0x1040 &+ identity.id }

    /// - Parameters:
    ///   - name: unique in the machine: names the section of saved state.
    ///   - interrupts: one message interrupt per queue and one for configuration changes is made here.
    ///   - doorbells: nil where notifications should come as ordinary writes.
    ///   - line: INTx for a guest that does not use MSI-X, with the line number it should see.
    ///   - isExpress: it is behind a PCI Express port.
    ///   - rom: code for firmware, made for this function's identity (`deviceID`).
    package init(
        _ device: any VirtIODevice, name: String, memory: GuestMemory, interrupts: any MessageInterruptFactory,
        doorbells: (any DoorbellRegistrar)?, line: (interrupt: any InterruptLine, number: UInt8)? = nil, rom: OptionROM? = nil,
        isExpress: Bool = false
    ) throws {
        let sizes = device.queueSizes
        let msix = try MSIXInterrupts(vectorCount: sizes.count + 1, factory: interrupts)
        let identity = device.identity
        var space = PCIConfigurationSpace(
            PCIIdentity(
                vendor: Self.vendorID, device: Self.deviceID(identity), revision: 1, classCode: identity.classCode))
        let offsets = VirtIOPCILayout.describe(in: &space, msix: msix.table)
        if isExpress { space.addExpressEndpoint() }
        if let rom { space.addExpansionROM(byteCount: rom.byteCount) }
        if let line { space.setInterrupt(pin: 1, line: line.number) }
        let events = VirtIOEvents(msix: msix, line: line?.interrupt)
        var links: [QueueLink] = []
        for index in sizes.indices { links.append(try QueueLink(index: index, events: events)) }
        self.device = device
        self.events = events
        self.links = links
        self.memory = memory
        stateName = name
        registrar = doorbells
        (windowOffset, msixOffset) = offsets
        self.rom = rom
        chip = Mutex(
            Chip(
                registers: VirtIOCommonConfiguration(
                    offered: device.offeredFeatures.union(.transport), queueSizes: sizes, vectorCount: sizes.count + 1)))
        configuration = Mutex(Configuration(space: space))
        self.doorbells = Mutex(Doorbells())
    }

    /// Doorbells the accelerator did not take: their notifications cost an exit each.
    package var doorbellFailures: UInt64 { refusedDoorbells.load(ordering: .relaxed) }

    // MARK: configuration space

    package func readConfiguration(offset: Int, width: AccessWidth) -> UInt64 {
        configuration.withLock { configuration in
            let data = windowOffset + 16
            if offset >= data, offset < data + 4, let (target, size) = window(configuration.space) {
                let value = read(offset: target, width: size)
                _ = configuration.space.write(offset: data, width: .doubleWord, value: value)
            }
            return configuration.space.read(offset: offset, width: width)
        }
    }

    package func writeConfiguration(offset: Int, width: AccessWidth, value: UInt64) {
        configuration.withLock { configuration in
            let moved = configuration.space.write(offset: offset, width: width, value: value)
            if moved { updateWindows(&configuration) }
            let end = offset + width.byteCount
            if offset < msixOffset + 4, end > msixOffset + 2 {
                let control = configuration.space.read(offset: msixOffset + 2, width: .word)
                setMSIXControl(UInt16(truncatingIfNeeded: control))
            }
            let data = windowOffset + 16
            if offset >= data, offset < data + 4, let (target, size) = window(configuration.space) {
                write(offset: target, width: size, value: configuration.space.read(offset: data, width: .doubleWord))
            }
        }
    }

    private func setMSIXControl(_ control: UInt16) {
        events.msix.setControl(control)
        events.setUsesMessages(control & 0x8000 != 0)
    }

    /// What the PCI configuration access window points at, if it is one of our registers.
    private func window(_ space: PCIConfigurationSpace) -> (offset: UInt64, width: AccessWidth)? {
        let bar = space.read(offset: windowOffset + 4, width: .byte)
        let offset = space.read(offset: windowOffset + 8, width: .doubleWord)
        let length = space.read(offset: windowOffset + 12, width: .doubleWord)
        guard bar == UInt64(VirtIOPCILayout.bar), length <= 4,
            let width = AccessWidth(rawValue: UInt8(truncatingIfNeeded: length)), offset % length == 0
        else { return nil }
        return (offset, width)
    }

    package var baseAddressRegisters: [BaseAddressRegister] {
        configuration.withLock { $0.space.bars }
    }

    package func place(_ bar: BaseAddressRegister, at base: GuestAddress) {
        configuration.withLock { configuration in
            configuration.space.place(bar, at: base)
            updateWindows(&configuration)
        }
    }

    package func connect(to addressSpace: any PCIAddressSpace) {
        configuration.withLock { configuration in
            configuration.windows.connect(to: addressSpace)
            updateWindows(&configuration)
        }
    }

    private func updateWindows(_ configuration: inout Configuration) {
        configuration.windows.update(to: configuration.space.decodedRanges) { index -> (any BusDevice)? in
            index == PCIConfigurationSpace.romIndex ? rom : self
        }
        let base = configuration.windows.base(of: Int(VirtIOPCILayout.bar))
        doorbells.withLock { doorbells in
            doorbells.base = base?.advanced(by: UInt64(VirtIOPCILayout.notify.lowerBound))
            updateDoorbells(&doorbells)
        }
    }

    private func setDoorbells(active: Bool) {
        doorbells.withLock { doorbells in
            doorbells.isActive = active
            updateDoorbells(&doorbells)
        }
    }

    /// Doorbells exist in the kernel only while the BAR is decoded and the driver is ready.
    private func updateDoorbells(_ doorbells: inout Doorbells) {
        guard let registrar else { return }
        for (index, address) in doorbells.registered where !doorbells.isActive || doorbells.base != base(address, index) {
            // Nothing to do about a refusal: the eventfd is ours and stays harmless.
            try? registrar.unregister(
                eventDescriptor: links[index].kickDescriptor, at: .memory(address), width: nil)
            doorbells.registered[index] = nil
        }
        guard doorbells.isActive, let base = doorbells.base else { return }
        for index in links.indices where doorbells.registered[index] == nil {
            guard let address = base.advanced(by: UInt64(index * VirtIOPCILayout.notifyMultiplier)) else { continue }
            do {
                try registrar.register(
                    eventDescriptor: links[index].kickDescriptor, at: .memory(address), width: nil)
                doorbells.registered[index] = address
            } catch {
                refusedDoorbells.wrappingAdd(1, ordering: .relaxed)
            }
        }
    }

    private func base(_ address: GuestAddress, _ index: Int) -> GuestAddress {
        GuestAddress(address.rawValue &- UInt64(index * VirtIOPCILayout.notifyMultiplier))
    }

    // MARK: the BAR

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard offset < VirtIOPCILayout.byteCount else { return width.allOnes }
        let offset = Int(offset)
        switch offset {
        case VirtIOPCILayout.common: return readCommon(offset: offset, width: width)
        case VirtIOPCILayout.isr: return offset == VirtIOPCILayout.isr.lowerBound ? UInt64(events.takeISR()) : 0
        case VirtIOPCILayout.device:
            return device.readConfiguration(offset: offset - VirtIOPCILayout.device.lowerBound, width: width)
        case VirtIOPCILayout.table:
            return events.msix.readTable(offset: offset - VirtIOPCILayout.table.lowerBound, width: width)
        case VirtIOPCILayout.pending:
            return events.msix.readPending(offset: offset - VirtIOPCILayout.pending.lowerBound, width: width)
        default: return 0
        }
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard offset < VirtIOPCILayout.byteCount else { return }
        let offset = Int(offset)
        switch offset {
        case VirtIOPCILayout.common: writeCommon(offset: offset, width: width, value: value)
        case VirtIOPCILayout.device:
            device.writeConfiguration(
                offset: offset - VirtIOPCILayout.device.lowerBound, width: width, value: value)
        case VirtIOPCILayout.notify:
            // Comes here only where the doorbell is not in the kernel.
            let index = (offset - VirtIOPCILayout.notify.lowerBound) / VirtIOPCILayout.notifyMultiplier
            if links.indices.contains(index) { links[index].signal() }
        case VirtIOPCILayout.table:
            events.msix.writeTable(offset: offset - VirtIOPCILayout.table.lowerBound, width: width, value: value)
        default: break
        }
    }

    private func readCommon(offset: Int, width: AccessWidth) -> UInt64 {
        chip.withLock { chip in
            finishResetIfIdle(&chip)
            return chip.registers.read(
                offset: offset, width: width, generation: events.generation, needsReset: events.needsReset)
        }
    }

    private func writeCommon(offset: Int, width: AccessWidth, value: UInt64) {
        chip.withLock { chip in
            finishResetIfIdle(&chip)
            switch chip.registers.write(offset: offset, width: width, value: value) {
            case .none: break
            case .activate:
                chip.positions = []
                if !chip.isPaused { start(&chip) }
            case .reset:
                stop(&chip)
                finishResetIfIdle(&chip)
            case .vectorChanged(let queue):
                updateVector(queue, chip.registers)
            }
        }
    }

    func updateVector(_ queue: Int?, _ registers: VirtIOCommonConfiguration) {
        if let queue {
            links[queue].setVector(registers.queues[queue].vector)
        } else {
            events.setConfigurationVector(registers.configurationVector)
        }
    }

    // MARK: life

    /// Starts the queues the driver enabled, at `chip.positions` or from the beginning.
    func start(_ chip: inout Chip) {
        guard !chip.isRunning, !events.needsReset else { return }
        do {
            var queues: [ActiveQueue?] = []
            for (index, queue) in chip.registers.queues.enumerated() {
                guard queue.isEnabled else {
                    queues.append(nil)
                    continue
                }
                let position = chip.positions.indices.contains(index) ? chip.positions[index] : nil
                let ring = try SplitQueue(
                    index: index, memory: memory, size: queue.size, addresses: queue.addresses,
                    features: chip.registers.accepted, position: position ?? RingPosition())
                queues.append(ActiveQueue(ring: ring, link: links[index]))
            }
            try activate(queues, features: chip.registers.accepted)
            chip.isRunning = true
            setDoorbells(active: true)
            // Whatever was offered before the doorbells were there.
            for queue in queues { queue?.link.signal() }
            // A message that was on its way into a local APIC when the state was taken is in no section: one too many is harmless, one
            // too few is a hang.
            if chip.isRestored { for queue in queues { queue?.link.interrupt() } }
            chip.isRestored = false
        } catch let fault as QueueFault {
            events.guestFault(fault)
        } catch let error as HostError {
            events.hostFault(error)
        } catch {
            events.hostFault(HostError("start", subject: "\(stateName): \(error)", errno: EIO))
        }
    }

    private func activate(_ queues: [ActiveQueue?], features: VirtIOFeatures) throws(HostError) {
        let session = VirtIOSession(memory: memory, features: features, queues: queues, events: events)
        try device.activate(session)
        var watched: [Int] = []
        do {
            for index in queues.indices where queues[index] != nil && device.isServedHere(queue: index) {
                let device = device, link = links[index]
                try device.eventLoop(forQueue: index).add(link.kickDescriptor, for: .readable) { _ in
                    // Here and not in the device: a queue that it does not serve, after a fault or because of the features that
                    // were chosen, would keep the loop spinning.
                    link.drain()
                    device.service(queue: index)
                }
                watched.append(index)
            }
        } catch {
            for index in watched { device.eventLoop(forQueue: index).remove(links[index].kickDescriptor) }
            device.stop()
            throw error
        }
    }

    func stop(_ chip: inout Chip) {
        guard chip.isRunning else { return }
        setDoorbells(active: false)
        for index in links.indices where chip.registers.queues[index].isEnabled {
            device.eventLoop(forQueue: index).remove(links[index].kickDescriptor)
        }
        device.stop()
        chip.isRunning = false
    }

    private func finishResetIfIdle(_ chip: inout Chip) {
        guard chip.registers.isResetting, device.isIdle else { return }
        device.reset()
        for link in links {
            link.drain()
            link.setVector(VirtIOEvents.noVector)
        }
        events.reset()
        chip.registers.finishReset()
        chip.positions = []
    }

    package func reset() {
        chip.withLock { chip in
            _ = chip.registers.write(offset: 0x14, width: .byte, value: 0)
            stop(&chip)
        }
        // With a request that never ends, status keeps reading non-zero and the driver waits: no memory is reused early.
        _ = waitUntilIdle()
        chip.withLock { finishResetIfIdle(&$0) }
        configuration.withLock { configuration in
            configuration.space.reset()
            _ = configuration.space.write(offset: msixOffset + 2, width: .word, value: 0)
            updateWindows(&configuration)
        }
        events.msix.reset()
        events.setUsesMessages(false)
    }

    /// Waits for requests in flight, at most 30 seconds: longer than a disk that still answers takes.
    private func waitUntilIdle() -> Bool {
        for _ in 0..<30_000 {
            if device.isIdle { return true }
            usleep(1000)
        }
        return false
    }

    /// Stops the queues and waits for requests in flight. False where one did not finish in 30 seconds.
    package func pause() -> Bool {
        chip.withLock { chip in
            chip.isPaused = true
            stop(&chip)
        }
        guard waitUntilIdle() else { return false }
        chip.withLock { chip in
            finishResetIfIdle(&chip)
            if chip.registers.isActive { chip.positions = device.positions }
        }
        return true
    }

    /// Goes on after `pause`, or after `restoreState`.
    package func resume() {
        chip.withLock { chip in
            guard chip.isPaused else { return }
            chip.isPaused = false
            if chip.registers.isActive { start(&chip) }
        }
    }

    // MARK: saved state, configuration side

    func saveConfiguration(into writer: inout StateWriter) {
        let space = configuration.withLock { $0.space }
        space.save(into: &writer)
        events.msix.save(into: &writer)
    }

    func restoreConfiguration(from reader: inout StateReader) throws(DeviceStateError) {
        var space = configuration.withLock { $0.space }
        try space.restore(from: &reader)
        try events.msix.restore(from: &reader)
        configuration.withLock { [space] configuration in
            configuration.space = space
            updateWindows(&configuration)
            setMSIXControl(UInt16(truncatingIfNeeded: space.read(offset: msixOffset + 2, width: .word)))
        }
    }
}
