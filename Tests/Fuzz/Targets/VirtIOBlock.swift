// virtio-blk with two queues on one disk.
import VirtIO

let virtioBlockTarget = FuzzTarget("virtio-block") { input in
    drive(&input) {
        let device = must { try VirtIOBlock(backend: FuzzDisk.disk, serial: "disk", queueCount: 2, loops: [Bench.loop]) }
        return virtioRig(device, requestSize: 16, more: [{ FuzzDisk.disk.nextError = CInt($0.byte()) }])
    }
}
