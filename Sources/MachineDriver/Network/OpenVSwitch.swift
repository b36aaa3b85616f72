// Ports of an Open vSwitch, through its own program with an argument vector. The external ids are what makes Neutron's agent
// wire a port (contract §7.3).
import ComputeDriver

struct OpenVSwitch: Sendable {
    /// ovs-vsctl.
    let path: String
    private static let timeoutMilliseconds: CInt = 30_000

    func add(_ interface: InterfaceRequest, to bridge: String, instanceUUID: String) throws {
        try run(Self.addition(interface, to: bridge, instanceUUID: instanceUUID))
    }

    func remove(_ device: String, from bridge: String) throws {
        try run(["--if-exists", "del-port", bridge, device])
    }

    /// The names are checked before: see PlugPlan.
    static func addition(_ interface: InterfaceRequest, to bridge: String, instanceUUID: String) -> [String] {
        let device = interface.deviceName
        var words = [
            "--if-exists", "del-port", device, "--", "add-port", bridge, device, "--", "set", "Interface", device,
        ]
        words += [
            "external_ids:iface-id=\(interface.portID)", "external_ids:iface-status=active",
            "external_ids:attached-mac=\"\(interface.macAddress)\"", "external_ids:vm-uuid=\(instanceUUID)",
        ]
        if let mtu = interface.mtu { words.append("mtu_request=\(mtu)") }
        return words
    }

    private func run(_ words: [String]) throws {
        try MonitorProcess.runToSuccess(
            path, arguments: ["ovs-vsctl", "--timeout=20", "--"] + words, timeoutMilliseconds: Self.timeoutMilliseconds)
    }
}
