// The IDE function of the PIIX3, 8086:7010 (Intel 82371SB data sheet §2.2, §2.4): two channels at the legacy ports, bus master
// registers in BAR 4.
//
//     let endpoint = try IDEController.makeEndpoint(name: "ide@00:01.1")
//     let ide = try IDEController(endpoint, memory: memory, drives: [[.disk(image, id), nil], [.optical(disc, id), nil]],
//                                 lines: (irq14, irq15), loop: loop)
//     try bus.attach(endpoint, at: PCIAddress(device: 1, function: 1))
//     ports.attach(ide.commandBlock(0), at: 0x1F0, count: 8); ports.attach(ide.controlBlock(0), at: 0x3F6, count: 1)
//     ports.attach(ide.commandBlock(1), at: 0x170, count: 8); ports.attach(ide.controlBlock(1), at: 0x376, count: 1)
//
// Each channel has a lock of its own; its interrupt line is a leaf under it.
package import GuestMemory
package import HostSystem
package import MachineCore
package import PCI
import Synchronization

package final class IDEController: SavableDevice, Sendable {
    fileprivate final class Channel: Sendable {
        let state: Mutex<IDEChannel>
        let line: any InterruptLine
        let counters: [DeviceCounters?]
        /// By drive.
        let completionDescriptors: [CInt?]

        init(memory: GuestMemory, drives: [AttachedDrive?], line: any InterruptLine) throws(HostError) {
            var inside: [IDEChannel.Drive?] = [], counters: [DeviceCounters?] = []
            for index in 0..<2 {
                guard drives.indices.contains(index), let drive = drives[index] else {
                    inside.append(nil)
                    counters.append(nil)
                    continue
                }
                let count = DeviceCounters()
                let transfers = try TransferQueue(backend: drive.backend, depth: 1, memory: memory, counters: count)
                let (device, unit) = drive.makeDevice(isSerial: false)
                inside.append(
                    IDEChannel.Drive(device: device, unit: unit, transfers: transfers, backend: drive.backend))
                counters.append(count)
            }
            completionDescriptors = inside.map { $0?.transfers.completionDescriptor }
            self.counters = counters
            self.line = line
            state = Mutex(IDEChannel(memory: memory, drives: inside))
        }

        func with<Result>(_ body: (inout IDEChannel) -> Result) -> Result {
            state.withLock { channel in
                let before = channel.line
                let result = body(&channel)
                let after = channel.line
                if after != before { if after { line.assert() } else { line.deassert() } }
                return result
            }
        }
    }

    package let endpoint: PCIEndpoint
    package var stateName: String { endpoint.stateName + "/ide" }
    fileprivate let channels: [Channel]
    private let loop: EventLoop

    /// The configuration side. The channels interrupt through the ISA lines 14 and 15, not through INTA.
    package static func makeEndpoint(name: String) throws(AcceleratorError) -> PCIEndpoint {
        var space = PCIConfigurationSpace(PCIIdentity(vendor: 0x8086, device: 0x7010, classCode: 0x01_01_80))
        space.addBAR(BaseAddressRegister(index: 4, kind: .ports, byteCount: 16))
        // IDETIM of both channels: decoding is on, timings have no effect. SIDETIM.
        space.addRegister(at: 0x40, 0x8000_8000, byteCount: 4, writable: 0xFFFF_FFFF)
        space.addRegister(at: 0x44, 0, byteCount: 1, writable: 0xFF)
        return try PCIEndpoint(space, name: name)
    }

    /// - Parameters:
    ///   - drives: by channel, then by drive (0 master, 1 slave); what is missing is not there.
    ///   - lines: of the two channels, ISA 14 and 15.
    ///   - loop: takes the completions.
    package init(
        _ endpoint: PCIEndpoint, memory: GuestMemory, drives: [[AttachedDrive?]],
        lines: (any InterruptLine, any InterruptLine), loop: EventLoop
    ) throws(HostError) {
        self.endpoint = endpoint
        self.loop = loop
        channels = [
            try Channel(memory: memory, drives: drives.first ?? [], line: lines.0),
            try Channel(memory: memory, drives: drives.dropFirst().first ?? [], line: lines.1),
        ]
        for (index, channel) in channels.enumerated() {
            for (number, descriptor) in channel.completionDescriptors.enumerated() {
                guard let descriptor else { continue }
                try loop.add(descriptor, for: .readable) { [weak self] _ in
                    self?.channels[index].with { $0.complete(number) }
                }
            }
        }
        endpoint.setWindow(BusMasterPorts(self), forBAR: 4)
        endpoint.onReset { [weak self] in self?.machineReset() }
        endpoint.onCommand { [weak self] command in
            let isOn = command & PCIConfigurationSpace.Command.busMaster != 0
            for channel in self?.channels ?? [] { channel.with { $0.isBusMaster = isOn } }
        }
    }

    deinit {
        for channel in channels {
            for case let descriptor? in channel.completionDescriptors { loop.remove(descriptor) }
        }
    }

    /// Eight ports: data, error/features, count, LBA, device, status/command.
    package func commandBlock(_ channel: Int) -> any BusDevice { CommandBlockPorts(channels[channel]) }
    /// One port: alternate status and device control.
    package func controlBlock(_ channel: Int) -> any BusDevice { ControlBlockPorts(channels[channel]) }

    package func counters(channel: Int, drive: Int) -> DeviceCounters? {
        channels.indices.contains(channel) && (0..<2).contains(drive) ? channels[channel].counters[drive] : nil
    }

    // MARK: Life

    private var isIdle: Bool { channels.allSatisfy { $0.state.withLock { $0.isIdle } } }

    private func machineReset() {
        for channel in channels { channel.with { $0.isBusMaster = false } }
        _ = waitUntilIdle { isIdle }
        for channel in channels { channel.with { if $0.isIdle { $0.reset() } } }
    }

    /// Waits for requests in flight. False where one did not end in 30 seconds. Not on the loop's thread.
    package func pause() -> Bool {
        for channel in channels { channel.with { $0.isPaused = true } }
        return waitUntilIdle { isIdle }
    }

    /// Goes on after `pause`, or after `restoreState`.
    package func resume() {
        let isBusMaster = endpoint.isBusMaster
        for channel in channels { channel.with { $0.resume(isBusMaster: isBusMaster) } }
    }

    // MARK: Saved state

    package static var stateVersion: UInt32 { 1 }

    /// Call `pause` first. The endpoint is saved on its own.
    package func saveState(into writer: inout StateWriter) {
        for channel in channels { channel.state.withLock { $0.save(into: &writer) } }
    }

    /// On a fresh, paused controller.
    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        for channel in channels {
            var restored = channel.state.withLock { $0 }
            try restored.restore(from: &reader)
            channel.with { [restored] in $0 = restored }
        }
    }
}

private final class CommandBlockPorts: BusDevice {
    private let channel: IDEController.Channel
    init(_ channel: IDEController.Channel) { self.channel = channel }

    func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        channel.with { channel in
            if offset == 0 { return channel.readData(width) }
            return width == .byte ? UInt64(channel.read(offset)) : width.allOnes
        }
    }

    /// A sector by `rep insw`: the lock once.
    func readString(offset: UInt64, width: AccessWidth, count: Int, _ body: (Int, UInt64) -> Void) {
        channel.with { channel in
            for index in 0..<max(count, 0) {
                body(index, offset == 0 ? channel.readData(width) : width == .byte ? UInt64(channel.read(offset)) : width.allOnes)
            }
        }
    }

    func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        channel.with { channel in
            if offset == 0 { return channel.writeData(width, value) }
            if width == .byte { channel.write(offset, UInt8(truncatingIfNeeded: value)) }
        }
    }
}

private final class ControlBlockPorts: BusDevice {
    private let channel: IDEController.Channel
    init(_ channel: IDEController.Channel) { self.channel = channel }

    func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        offset == 0 ? channel.with { UInt64($0.alternateStatus) } : width.allOnes
    }

    func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        if offset == 0 { channel.with { $0.writeControl(UInt8(truncatingIfNeeded: value)) } }
    }
}

/// BAR 4: eight ports a channel.
private final class BusMasterPorts: BusDevice {
    private weak let controller: IDEController?
    init(_ controller: IDEController) { self.controller = controller }

    func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard let controller, offset + UInt64(width.byteCount) <= 16 else { return width.allOnes }
        return controller.channels[Int(offset / 8)].with { channel in
            (0..<UInt64(width.byteCount)).reduce(0) { $0 | UInt64(channel.readMaster(offset % 8 + $1)) << (8 * $1) }
        }
    }

    func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard let controller, offset + UInt64(width.byteCount) <= 16 else { return }
        controller.channels[Int(offset / 8)].with { channel in
            for index in 0..<UInt64(width.byteCount) {
                channel.writeMaster(offset % 8 + index, UInt8(truncatingIfNeeded: value >> (8 * index)))
            }
        }
    }
}
