// virtio-rng.
import VirtIO

let virtioEntropyTarget = FuzzTarget("virtio-rng", 1024) { input in
    drive(&input) { virtioRig(VirtIOEntropy(loop: Bench.loop), requestSize: 4) }
}
