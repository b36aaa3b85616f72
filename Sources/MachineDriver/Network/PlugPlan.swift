// What is to be made for a port, or why nothing can be (contract §7.3). Names from the network service are checked here, before
// they are a link's name, a path or a word of a command.
import ComputeDriver
import JSON
import MachineConfiguration

struct PlugPlan: Equatable {
    enum Attachment: Equatable {
        case none
        case bridge(String)
        case `switch`(String)
    }
    let deviceName: String
    let mac: MACAddress
    let attachment: Attachment

    init(_ interface: InterfaceRequest) throws(DriverError) {
        func refusal(_ reason: String, novaClass: String = "VirtualInterfacePlugException") -> DriverError {
            DriverError(
                novaClass: novaClass, tenantMessage: "Could not connect port \(interface.portID): \(reason).",
                fault: .peer)
        }
        guard Self.isLinkName(interface.deviceName) else {
            throw refusal("\"\(interface.deviceName)\" is no name for a network device")
        }
        guard let mac = MACAddress(interface.macAddress) else {
            throw refusal("\"\(interface.macAddress)\" is no MAC address of a station")
        }
        if let mtu = interface.mtu, !(68...65535).contains(mtu) { throw refusal("its MTU \(mtu) is out of range") }
        func bridge() throws(DriverError) -> String {
            guard let name = interface.bridge, Self.isLinkName(name) else {
                throw refusal("\"\(interface.bridge ?? "")\" is no name for a bridge")
            }
            return name
        }
        switch interface.type {
        case "bridge": attachment = .bridge(try bridge())
        case "tap": attachment = .none
        case "ovs":
            guard interface.details["ovs_hybrid_plug"]?.boolValue != true else {
                throw refusal("this host cannot use the hybrid firewall of Open vSwitch yet")
            }
            guard (1...64).contains(interface.portID.utf8.count), interface.portID.utf8.allSatisfy(Self.isPlain) else {
                throw refusal("its id is no identifier")
            }
            attachment = .switch(try bridge())
        case "binding_failed", "unbound":
            throw refusal(
                "the network service could not bind it to this host", novaClass: "VirtualInterfaceCreateException")
        default: throw refusal("this host does not support ports of type \"\(interface.type)\"")
        }
        deviceName = interface.deviceName
        self.mac = mac
    }

    private static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."):
            true
        default: false
        }
    }

    /// What the kernel takes as a link's name (15 bytes), without what a path or an option could be made of.
    static func isLinkName(_ name: String) -> Bool {
        (1...15).contains(name.utf8.count) && name.utf8.allSatisfy(isPlain) && name != "." && name != ".."
            && !name.hasPrefix("-")
    }
}
