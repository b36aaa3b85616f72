// virtio-scsi with a disk and a CD, control and event queues.
import Storage
import VirtIO

let virtioSCSITarget = FuzzTarget("virtio-scsi") { input in
    drive(&input) {
        let device = must {
            try VirtIOSCSI(
                targets: [
                    0: SCSITarget(disk: FuzzDisk.disk, identity: DriveIdentity(serial: "disk")),
                    3: SCSITarget(optical: FuzzDisk.disc, identity: DriveIdentity(serial: "disc")),
                ], memory: Bench.memory, queueCount: 1, loops: [Bench.loop])
        }
        return virtioRig(
            device, requestSize: 51,
            more: [{ FuzzDisk.disk.nextError = CInt($0.byte()) }, { device.capacityChanged(target: $0.byte() & 3) }])
    }
}
