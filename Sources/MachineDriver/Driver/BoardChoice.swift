// Which board, firmware and disk bus an image asks for: Nova's hw_machine_type, hw_firmware_type, os_secure_boot and hw_disk_bus.
import ComputeDriver
import MachineConfiguration

struct BoardChoice: Sendable, Equatable {
    var machineType: MachineType
    var firmware: SavedMachine.Firmware?
    /// The root disk's, by the monitor's name.
    var diskBus: String

    /// An image with a kernel of its own boots it without firmware; every other one gets a PC.
    init(_ properties: ImageFields, _ specs: [String: String] = [:], hasKernel: Bool) throws(DriverError) {
        let secureBoot = specs["os:secure_boot"] ?? properties.text("os_secure_boot") ?? "disabled"
        guard !hasKernel else {
            guard secureBoot != "required" else { throw Self.insecure("the image has a kernel of its own, which no firmware looks at") }
            (machineType, firmware, diskBus) = (.direct, nil, DiskBus.virtio.rawValue)
            return
        }
        let wanted = properties.text("hw_machine_type") ?? "q35"
        guard let type = MachineType(named: wanted), type != .direct else {
            throw Self.refusal("Machine type \(wanted.prefix(64)) is not supported by this compute host; it has pc and q35.")
        }
        let kind = properties.text("hw_firmware_type") ?? "bios"
        guard let firmware = SavedMachine.Firmware(rawValue: kind), firmware != .secureUEFI else {
            throw Self.refusal("Firmware type \(kind.prefix(64)) is not supported by this compute host; it has bios and uefi.")
        }
        // Nova's words; where it is optional, it is there wherever it can be.
        guard ["required", "optional", "disabled"].contains(secureBoot) else {
            throw Self.refusal("Secure boot \(secureBoot.prefix(64)) is not known; it is required, optional or disabled.")
        }
        let canBeSecure = type == .q35 && firmware == .uefi
        guard canBeSecure || secureBoot != "required" else {
            throw Self.insecure("it needs hw_firmware_type=uefi and machine type q35")
        }
        let name = properties.text("hw_disk_bus") ?? "virtio"
        guard let bus = DiskBus(rawValue: name), bus != .fdc else {  // Nova's names are the monitor's
            throw Self.refusal("Requested hardware '\(name.prefix(64))' is not supported by this compute host; disk buses are virtio, scsi, sata, ide and nvme.")
        }
        guard bus != .ide || type == .pc else {
            throw Self.refusal("Disk bus ide is not supported by machine type q35; take sata, or machine type pc.")
        }
        (machineType, diskBus) = (type, bus.rawValue)
        self.firmware = canBeSecure && secureBoot != "disabled" ? .secureUEFI : firmware
    }

    private static func insecure(_ reason: String) -> DriverError {
        DriverError(novaClass: "SecureBootNotSupported", tenantMessage: "Secure Boot is not supported by host: \(reason).", fault: .caller)
    }

    private static func refusal(_ reason: String) -> DriverError {
        DriverError(novaClass: "UnsupportedHardware", tenantMessage: reason, fault: .caller)
    }
}
