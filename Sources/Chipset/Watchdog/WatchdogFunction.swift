// The watchdog's PCI function, 8086:25AB (Intel 6300ESB data sheet 300641 §16.4): registers 0x60 and 0x68 of configuration space
// are the chip's, BAR 0 has the rest.
//
//     let endpoint = try WatchdogTimer.makeEndpoint(name: "i6300esb", line: intx)
//     let watchdog = WatchdogTimer(clock: clock, timer: timer, line: WatchdogTimer.line(of: endpoint)) { … }
//     watchdog.connect(to: endpoint)
package import MachineCore
package import PCI

extension WatchdogTimer {
    private typealias Offset = I6300ESB.ConfigurationOffset
    private static let ownOffsets = [Offset.configuration, Offset.configuration + 1, Offset.lock]

    package static func makeEndpoint(name: String, line: (any InterruptLine)?) throws(AcceleratorError) -> PCIEndpoint {
        var space = PCIConfigurationSpace(PCIIdentity(vendor: I6300ESB.vendorID, device: I6300ESB.deviceID, classCode: 0x08_80_00), firstCapability: 0x80)
        space.addBAR(BaseAddressRegister(index: 0, kind: .memory32, byteCount: I6300ESB.byteCount))
        // What is written goes to the chip, and what the chip makes of it is shown.
        space.addRegister(at: Offset.configuration, 0, byteCount: 2, writable: 0xFFFF)
        space.addRegister(at: Offset.lock, 0, byteCount: 1, writable: 0xFF)
        return try PCIEndpoint(space, name: name, line: line)
    }

    /// The function's interrupt as a line.
    package static func line(of endpoint: PCIEndpoint) -> any InterruptLine { EndpointLine(endpoint) }

    /// Before the guest starts.
    package func connect(to endpoint: PCIEndpoint) {
        endpoint.setWindow(self, forBAR: 0)
        endpoint.onReset { [weak self] in self?.reset() }
        endpoint.onWrite { [weak self, weak endpoint] range in
            guard let self, let endpoint, Self.ownOffsets.contains(where: range.contains) else { return }
            for offset in Self.ownOffsets where range.contains(offset) {
                writeConfiguration(offset, UInt8(truncatingIfNeeded: endpoint.register(at: offset, width: .byte)))
            }
            endpoint.change { space in
                for offset in Self.ownOffsets { if let byte = self.readConfiguration(offset) { space.setByte(byte, at: offset) } }
            }
        }
    }
}

/// Weak: the endpoint holds the device that drives the line.
private final class EndpointLine: InterruptLine {
    private weak let endpoint: PCIEndpoint?

    init(_ endpoint: PCIEndpoint) { self.endpoint = endpoint }

    func assert() { endpoint?.setLevel(true) }
    func deassert() { endpoint?.setLevel(false) }
}
