// Rescue: the machine boots from another image, and its own root disk is a further one of its disks (or every disk stays where it is:
// RescueDevice). Everything a rescue adds to the instance's directory has a name of its own, so that forgetting the rescue is removing files:
//
//   unrescue.json   what the machine was      disk.rescue kernel.rescue ramdisk.rescue uefi-variables.rescue disk.config.rescue
package import ComputeDriver
import Glibc
package import NovaObjects

extension MachineDriver {
    package func rescue(_ request: SpawnRequest) async throws {
        let wanted = try MachinePlan(request, options: options), uuid = wanted.machine.uuid
        try await locks.withLock(uuid) {
            try await translatingErrors(while: "rescue instance \(uuid)") {
                let directory = directory(uuid)
                let known = try await blocking { try (directory.machineBeforeRescue(), directory.machine()) }
                guard let before = known.0 ?? known.1 else { throw DriverError.instanceNotFound(uuid) }
                let device = try RescueDevice(ImageFields(request.image), for: before), plan = wanted.forRescue(on: device)
                if let session = session(uuid) { try await session.end() }
                let images = try await bootImages(of: plan, fetch: request.fetchImage)
                let rescued =
                    device.map { before.rescued(on: $0, image: plan.imageID) }
                    ?? before.rescued(by: plan.machine, hasConfigDrive: plan.configDrive != nil)
                do {
                    try await blockingCancellably { [self] isCancelled in
                        // What an earlier try left.
                        try directory.removeRescue()
                        try directory.saveBeforeRescue(before)
                        try fill(directory, plan, images, suffix: SavedMachine.rescueSuffix, isCancelled: isCancelled)
                        try directory.save(rescued)
                    }
                    try await start(rescued, isPaused: false)
                } catch {
                    _ = try? await uncancelled { try await blocking { try Self.forgetRescue(in: directory) } }
                    throw error
                }
            }
        }
    }

    package func unrescue(instance: Instance, interfaces: [InterfaceRequest]) async throws {
        let uuid = try checked(instance.uuid)
        try await locks.withLock(uuid) {
            try await translatingErrors(while: "unrescue instance \(uuid)") {
                let directory = directory(uuid)
                guard let rescued = try await blocking({ try directory.machine() }) else {
                    throw DriverError.instanceNotFound(uuid)
                }
                if let session = session(uuid) { try await session.end() }
                await unplug(rescued.interfaces, of: uuid)
                let machine = try await blocking {
                    try Self.forgetRescue(in: directory)
                    var machine = try directory.machine() ?? rescued
                    machine.interfaces = interfaces
                    try directory.save(machine)
                    return machine
                }
                try await start(machine, isPaused: false)
            }
        }
    }

    /// The machine as it was before its rescue. Blocking.
    private static func forgetRescue(in directory: InstanceDirectory) throws {
        guard let before = try directory.machineBeforeRescue() else { return }
        try directory.save(before)
        try directory.removeRescue()
    }
}

extension SavedMachine {
    /// This machine, booting what `other` boots: its root disk first, then this one's disks, a config drive last.
    func rescued(by other: SavedMachine, hasConfigDrive: Bool) -> SavedMachine {
        var machine = self
        machine.bootSuffix = Self.rescueSuffix
        machine.imageIDs += other.imageIDs
        machine.firmware = other.firmware
        machine.machineType = other.machineType
        machine.commandLine = other.commandLine
        machine.hasRAMDisk = other.hasRAMDisk
        machine.interfaces = other.interfaces
        let bus = other.disks.first?.bus ?? "virtio"
        var disks = [Disk(id: "", file: "disk" + Self.rescueSuffix, isReadOnly: false, bus: bus)]
        // A bus that the other board has not: virtio is on each.
        disks += self.disks.filter { $0.file != "disk.config" }.map { disk in
            var disk = disk
            if other.machineType != machineType { disk.bus = "virtio" }
            return disk
        }
        if hasConfigDrive { disks.append(Disk(id: "", file: "disk.config" + Self.rescueSuffix, isReadOnly: true)) }
        machine.disks = Disk.numbered(disks)
        return machine
    }
}
