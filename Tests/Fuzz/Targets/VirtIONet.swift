// virtio-net on a tap whose other end sends frames. Tests/Lab/fuzz runs it in a network of its own, as root, where it can.
import CFuzzer
import Glibc
import HostSystem
import NetworkBackend
import VirtIO

/// The tap lives as long as the process; each device has queues of it for itself.
private let frames: CInt = {
    _ = must { try openTap(named: "fuzz0", isMultiQueue: true).release() }
    let number = fuzzer_frame_socket("fuzz0")
    guard number >= 0 else { fatalError("the fuzzer's own machine: cannot send frames: errno \(errno)") }
    return number
}()

let virtioNetTarget = FuzzTarget("virtio-net") { input in
    _ = frames
    drive(&input) {
        let taps = (0..<2).map { _ in
            must { try TapQueue(owning: openTap(named: "fuzz0", isMultiQueue: true), named: "fuzz0") }
        }
        let net = must { try VirtIONet(taps: taps, mac: [0x52, 0x54, 0, 1, 2, 3], mtu: 1500, loops: [Bench.loop]) }
        return virtioRig(
            net, requestSize: 26,
            more: [
                {
                    let frame = [0x52, 0x54, 0, 1, 2, 3, 2, 0, 0, 0, 0, 1, 8, 0] + $0.take(Int($0.byte()))
                    _ = unsafe send(frames, frame, frame.count, 0)
                }, { net.setLink(isUp: $0.byte() & 1 != 0) },
            ])
    }
}
