// The ICH9 AHCI controller, 8086:2922 (Intel ICH9 data sheet §14, AHCI 1.3.1): six ports, ABAR in BAR 5, index/data pair in BAR 4.
//
//     let endpoint = try AHCIController.makeEndpoint(name: "ahci@00:1f.2", line: line, message: machine)
//     let ahci = try AHCIController(endpoint, memory: memory, drives: [0: .disk(image, identity)], loop: loop)
//     try bus.attach(endpoint, at: PCIAddress(device: 0x1F, function: 2))
//
// Lock order: port -> host. The host lock is a leaf but for the interrupt.
package import GuestMemory
package import HostSystem
package import MachineCore
package import PCI
import Synchronization

package final class AHCIController: BusDevice, SavableDevice {
    package static let portCount = 6

    private final class Port: Sendable {
        let state: Mutex<AHCIPort>
        let counters: DeviceCounters
        let completionDescriptor: CInt?

        init(memory: GuestMemory, drive: AttachedDrive?) throws(HostError) {
            let counters = DeviceCounters()
            self.counters = counters
            let inside = try drive.map { (drive) throws(HostError) in
                try AHCIPort.Drive(drive, memory: memory, counters: counters)
            }
            completionDescriptor = inside?.transfers.completionDescriptor
            state = Mutex(AHCIPort(memory: memory, drive: inside))
        }
    }
    private struct Host: Sendable {
        var control = AHCIRegister.HostControl.ahciEnable
        var interruptStatus: UInt32 = 0
        /// Ports with PxIS & PxIE.
        var levels: UInt32 = 0
        var isAsserted = false
        var isResetting = false
    }

    package let endpoint: PCIEndpoint
    package var stateName: String { endpoint.stateName + "/ahci" }
    private let ports: [Port]
    private let host = Mutex(Host())
    private let loop: EventLoop

    /// The configuration side: header, BARs, MSI where `message` is given, and the SATA capability (AHCI §2.1.10).
    package static func makeEndpoint(
        name: String, line: (any InterruptLine)?, message: (any MessageInterruptFactory)?
    ) throws(AcceleratorError) -> PCIEndpoint {
        var space = PCIConfigurationSpace(
            PCIIdentity(vendor: 0x8086, device: 0x2922, revision: 2, classCode: 0x01_06_01), firstCapability: 0xA8)
        space.addBAR(BaseAddressRegister(index: 4, kind: .ports, byteCount: 32))
        space.addBAR(BaseAddressRegister(index: 5, kind: .memory32, byteCount: 4096))
        space.addRegister(at: 0x90, 0x40, byteCount: 1, writable: 0)  // MAP: AHCI mode, six ports
        space.addRegister(at: 0x92, 0x3F, byteCount: 2, writable: 0x3F)  // PCS: port enable bits
        _ = space.addCapability(id: 0x12, body: [0x10, 0, 0x48, 0, 0, 0])  // SATA 1.0: index/data pair in BAR 4 at 10h
        return try PCIEndpoint(space, name: name, line: line, message: message)
    }

    /// - Parameters:
    ///   - drives: by port, 0-5; others are empty.
    ///   - loop: takes the completions.
    package init(_ endpoint: PCIEndpoint, memory: GuestMemory, drives: [Int: AttachedDrive], loop: EventLoop)
        throws(HostError)
    {
        self.endpoint = endpoint
        self.loop = loop
        var ports: [Port] = []
        for index in 0..<Self.portCount { ports.append(try Port(memory: memory, drive: drives[index])) }
        self.ports = ports
        for (index, port) in ports.enumerated() {
            guard let descriptor = port.completionDescriptor else { continue }
            try loop.add(descriptor, for: .readable) { [weak self] _ in self?.complete(index) }
        }
        endpoint.setWindow(self, forBAR: 5)
        endpoint.setWindow(IndexDataPair(self), forBAR: 4)
        endpoint.onReset { [weak self] in self?.machineReset() }
        endpoint.onCommand { [weak self] command in
            self?.setBusMaster(command & PCIConfigurationSpace.Command.busMaster != 0)
        }
    }

    deinit {
        for port in ports { if let descriptor = port.completionDescriptor { loop.remove(descriptor) } }
    }

    /// What the drive on a port did; nil where there is none.
    package func counters(port: Int) -> DeviceCounters? {
        ports.indices.contains(port) && ports[port].completionDescriptor != nil ? ports[port].counters : nil
    }

    // MARK: BusDevice

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        if width == .quadWord, offset & 7 == 0 {
            return UInt64(readWord(offset)) | UInt64(readWord(offset + 4)) << 32
        }
        guard offset & 3 <= UInt64(4 - min(4, width.byteCount)) else { return width.allOnes }
        return UInt64(readWord(offset & ~3)) >> (8 * (offset & 3)) & width.allOnes
    }

    /// The specification has words of 32 bits written whole (§3); a pair of them is two.
    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard offset & 3 == 0, width.byteCount >= 4 else { return }
        writeWord(offset, UInt32(truncatingIfNeeded: value))
        if width == .quadWord { writeWord(offset &+ 4, UInt32(truncatingIfNeeded: value >> 32)) }
    }

    private func readWord(_ offset: UInt64) -> UInt32 {
        if offset >= AHCIRegister.firstPort {
            let index = Int((offset - AHCIRegister.firstPort) / AHCIRegister.portByteCount)
            guard ports.indices.contains(index),
                let register = AHCIPortRegister(
                    rawValue: (offset - AHCIRegister.firstPort) % AHCIRegister.portByteCount)
            else { return 0 }
            return ports[index].state.withLock { $0.read(register) }
        }
        switch offset {
        case AHCIRegister.capabilities: return AHCIRegister.capabilityBits | UInt32(Self.portCount - 1)
        case AHCIRegister.globalHostControl:
            finishHostReset()
            return host.withLock { $0.control }
        case AHCIRegister.interruptStatus: return host.withLock { $0.interruptStatus }
        case AHCIRegister.portsImplemented: return 1 << UInt32(Self.portCount) - 1
        case AHCIRegister.version: return AHCIRegister.versionNumber
        default: return 0
        }
    }

    private func writeWord(_ offset: UInt64, _ value: UInt32) {
        if offset >= AHCIRegister.firstPort {
            let index = Int((offset - AHCIRegister.firstPort) / AHCIRegister.portByteCount)
            guard ports.indices.contains(index),
                let register = AHCIPortRegister(
                    rawValue: (offset - AHCIRegister.firstPort) % AHCIRegister.portByteCount)
            else { return }
            return withPort(index) { port in
                port.write(register, value)
                if register == .commandIssue || register == .command || register == .sataControl { port.serve() }
            }
        }
        switch offset {
        case AHCIRegister.globalHostControl:
            if value & AHCIRegister.HostControl.reset != 0 { return startHostReset() }
            host.withLock { host in
                host.control =
                    value & AHCIRegister.HostControl.interruptEnable | AHCIRegister.HostControl.ahciEnable | host
                    .control & AHCIRegister.HostControl.reset
                drive(&host, isNew: false)
            }
        case AHCIRegister.interruptStatus:
            host.withLock { host in
                host.interruptStatus = host.interruptStatus & ~value | host.levels
                // What is still pending, or came meanwhile, is worth a message of its own (§10.7.2.1).
                drive(&host, isNew: host.interruptStatus != 0)
            }
        default: break
        }
    }

    // MARK: Ports

    private func withPort(_ index: Int, _ body: (inout AHCIPort) -> Void) {
        ports[index].state.withLock { port in
            body(&port)
            let isNew = port.hasNews, isInterrupting = port.isInterrupting
            port.hasNews = false
            let bit = UInt32(1) << UInt32(index)
            host.withLock { host in
                let rises = isInterrupting && (isNew || host.levels & bit == 0)
                host.levels = isInterrupting ? host.levels | bit : host.levels & ~bit
                if rises { host.interruptStatus |= bit }
                drive(&host, isNew: rises)
            }
        }
    }

    /// The line's level, and with `isNew` a message more.
    private func drive(_ host: inout Host, isNew: Bool) {
        let wanted = host.control & AHCIRegister.HostControl.interruptEnable != 0 && host.interruptStatus != 0
        if wanted, isNew, host.isAsserted { endpoint.setLevel(false) }
        if wanted != host.isAsserted || (wanted && isNew) { endpoint.setLevel(wanted) }
        host.isAsserted = wanted
    }

    private func complete(_ index: Int) {
        withPort(index) { $0.complete() }
        finishHostReset()
    }

    private func setBusMaster(_ isOn: Bool) {
        for index in ports.indices {
            withPort(index) { port in
                port.isBusMaster = isOn
                port.serve()
            }
        }
    }

    // MARK: Reset

    /// GHC.HR reads one until nothing is in flight and every port is as after power on (§10.4.3).
    private func startHostReset() {
        host.withLock { host in
            host.control |= AHCIRegister.HostControl.reset
            host.isResetting = true
        }
        for index in ports.indices { withPort(index) { $0.write(.command, 0) } }
        finishHostReset()
    }

    private func finishHostReset() {
        guard host.withLock({ $0.isResetting }), isIdle else { return }
        let isFirst = host.withLock { host in
            defer { host.isResetting = false }
            return host.isResetting
        }
        // HR still reads one: the driver does not touch the ports.
        guard isFirst else { return }
        resetPorts()
        host.withLock { host in
            host.control = AHCIRegister.HostControl.ahciEnable
            host.interruptStatus = 0
            host.levels = 0
            drive(&host, isNew: false)
        }
    }

    private func resetPorts() {
        for index in ports.indices { withPort(index) { if $0.isIdle { $0.reset() } } }
    }

    private func machineReset() {
        setBusMaster(false)
        startHostReset()
        _ = waitUntilIdle { isIdle }
        finishHostReset()
    }

    // MARK: Life

    private var isIdle: Bool { ports.allSatisfy { $0.state.withLock { $0.isIdle } } }

    /// Takes no more commands and waits for those in flight. False where one did not end in 30 seconds. Not on the loop's thread.
    package func pause() -> Bool {
        for port in ports { port.state.withLock { $0.isPaused = true } }
        return waitUntilIdle { isIdle }
    }

    /// Goes on after `pause`, or after `restoreState`: what was issued meanwhile is fetched.
    package func resume() {
        for port in ports { port.state.withLock { $0.isPaused = false } }
        setBusMaster(endpoint.isBusMaster)
    }

    // MARK: Saved state

    package static var stateVersion: UInt32 { 1 }

    /// Call `pause` first. The endpoint is saved on its own.
    package func saveState(into writer: inout StateWriter) {
        let host = host.withLock { $0 }
        writer.write(host.control & ~AHCIRegister.HostControl.reset)
        writer.write(host.interruptStatus)
        for port in ports { port.state.withLock { $0.save(into: &writer) } }
    }

    /// On a fresh, paused controller.
    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        let control = try reader.read(UInt32.self), status = try reader.read(UInt32.self)
        var levels: UInt32 = 0
        for (index, port) in ports.enumerated() {
            var restored = port.state.withLock { $0 }
            try restored.restore(from: &reader)
            if restored.isInterrupting { levels |= 1 << UInt32(index) }
            port.state.withLock { [restored] in $0 = restored }
        }
        host.withLock { [levels] host in
            host.control = control & AHCIRegister.HostControl.interruptEnable | AHCIRegister.HostControl.ahciEnable
            host.interruptStatus = status & (1 << UInt32(Self.portCount) - 1)
            host.levels = levels
            // The endpoint restores its level itself.
            host.isAsserted = control & AHCIRegister.HostControl.interruptEnable != 0 && host.interruptStatus != 0
        }
    }
}

extension AHCIPort.Drive {
    init(_ drive: AttachedDrive, memory: GuestMemory, counters: DeviceCounters) throws(HostError) {
        backend = drive.backend
        transfers = try TransferQueue(backend: backend, depth: AHCIPort.slotCount, memory: memory, counters: counters)
        (device, unit) = drive.makeDevice(isSerial: true)
    }
}

/// BAR 4: an index register at 10h and the word of the ABAR that it names at 14h (§1.8.5), for real-mode firmware.
private final class IndexDataPair: BusDevice {
    private weak let controller: AHCIController?
    private let index = Atomic<UInt32>(0)

    init(_ controller: AHCIController) { self.controller = controller }

    func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        switch offset {
        case 0x10: UInt64(index.load(ordering: .relaxed)) & width.allOnes
        case 0x14: controller?.read(offset: UInt64(index.load(ordering: .relaxed)), width: width) ?? width.allOnes
        default: 0
        }
    }

    func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        switch offset {
        case 0x10: index.store(UInt32(truncatingIfNeeded: value) & 0xFFC, ordering: .relaxed)
        case 0x14: controller?.write(offset: UInt64(index.load(ordering: .relaxed)), width: width, value: value)
        default: break
        }
    }
}
