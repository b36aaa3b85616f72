// Stable device rescue: where the rescue image says what its disk is to be attached as (hw_rescue_device, hw_rescue_bus), the server keeps
// its board and every disk its place, and the rescue disk comes behind them and is booted from.
import ComputeDriver
import MachineConfiguration

struct RescueDevice: Sendable, Equatable {
    var bus: DiskBus
    /// A CD drive.
    var isOptical: Bool

    /// Nil: the image asks for no stable device, and takes the root disk's place.
    /// - Parameter machine: the one to be rescued.
    /// - Throws: UnsupportedRescueDevice or UnsupportedRescueBus, in words.
    init?(_ image: ImageFields, for machine: SavedMachine) throws(DriverError) {
        let device = image.text("hw_rescue_device"), name = image.text("hw_rescue_bus")
        guard device != nil || name != nil else { return nil }
        guard ["disk", "cdrom"].contains(device ?? "disk") else {
            throw DriverError(
                novaClass: "UnsupportedRescueDevice",
                tenantMessage: "Requested rescue device '\((device ?? "").prefix(32))' is not supported by this compute host; it has disk and cdrom.", fault: .caller)
        }
        guard machine.firmware != nil, image.text("kernel_id") == nil else {
            throw DriverError(
                novaClass: "UnsupportedRescueDevice",
                tenantMessage: "A rescue device of its own needs a server and an image that boot by firmware, without a kernel beside the image.", fault: .caller)
        }
        isOptical = device == "cdrom"
        let isPC = machine.machineType.hasPrefix("pc")
        guard let bus = DiskBus(rawValue: name ?? (isOptical ? (isPC ? "ide" : "sata") : "virtio")), bus != .fdc, bus != .ide || isPC,
            !isOptical || [.sata, .ide, .scsi].contains(bus)
        else {
            throw DriverError(
                novaClass: "UnsupportedRescueBus",
                tenantMessage: "Requested rescue bus '\((name ?? "").prefix(32))' is not supported by this compute host for a \(isOptical ? "CD drive" : "disk") of this server.", fault: .caller)
        }
        self.bus = bus
    }
}

extension MachinePlan {
    func forRescue(on device: RescueDevice?) -> MachinePlan {
        var plan = self
        // As large as its image: nobody keeps anything on it.
        plan.rootByteCount = 0
        // What a server whose disks stay where they are has in its config drive stays, too.
        if device != nil { plan.configDrive = nil }
        return plan
    }
}

extension SavedMachine {
    /// This machine with the rescue disk behind its own ones, booted first.
    func rescued(on device: RescueDevice, image imageID: String) -> SavedMachine {
        var machine = self
        machine.imageIDs.append(imageID)
        var disk = Disk(id: "", file: "disk" + Self.rescueSuffix, isReadOnly: device.isOptical, bus: device.bus.rawValue)
        disk.isOptical = device.isOptical
        disk.isBootedFirst = true
        machine.disks = Disk.numbered(disks + [disk])
        return machine
    }
}
