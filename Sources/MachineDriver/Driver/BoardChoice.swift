// Which board, firmware and disk bus an image asks for: Nova's hw_machine_type, hw_firmware_type and hw_disk_bus.
import ComputeDriver
import MachineConfiguration

struct BoardChoice: Sendable, Equatable {
    var machineType: MachineType
    var firmware: SavedMachine.Firmware?
    /// The root disk's, by the monitor's name.
    var diskBus: String

    /// An image with a kernel of its own boots it without firmware; every other one gets a PC.
    init(_ properties: ImageFields, hasKernel: Bool) throws(DriverError) {
        guard !hasKernel else {
            (machineType, firmware, diskBus) = (.direct, nil, DiskBus.virtio.rawValue)
            return
        }
        let wanted = properties.text("hw_machine_type") ?? "q35"
        guard let type = MachineType(named: wanted), type != .direct else {
            throw Self.refusal("Machine type \(wanted.prefix(64)) is not supported by this compute host; it has pc and q35.")
        }
        let kind = properties.text("hw_firmware_type") ?? "bios"
        guard let firmware = SavedMachine.Firmware(rawValue: kind) else {
            throw Self.refusal("Firmware type \(kind.prefix(64)) is not supported by this compute host; it has bios and uefi.")
        }
        if properties.text("os_secure_boot") == "required" {
            throw Self.refusal("Secure boot is required by the image and not supported by this compute host.")
        }
        let name = properties.text("hw_disk_bus") ?? "virtio"
        guard let bus = DiskBus(rawValue: name), bus != .fdc else {  // Nova's names are the monitor's
            throw Self.refusal("Requested hardware '\(name.prefix(64))' is not supported by this compute host; disk buses are virtio, scsi, sata, ide and nvme.")
        }
        guard bus != .ide || type == .pc else {
            throw Self.refusal("Disk bus ide is not supported by machine type q35; take sata, or machine type pc.")
        }
        (machineType, self.firmware, diskBus) = (type, firmware, bus.rawValue)
    }

    private static func refusal(_ reason: String) -> DriverError {
        DriverError(novaClass: "UnsupportedHardware", tenantMessage: reason, fault: .caller)
    }
}
