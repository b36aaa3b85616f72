// virtio-balloon, with a host that asks for pages and statistics.
import VirtIO

let virtioBalloonTarget = FuzzTarget("virtio-balloon") { input in
    drive(&input) {
        let balloon = VirtIOBalloon(loop: Bench.loop)
        return virtioRig(
            balloon, requestSize: 40,
            more: [{ balloon.setTarget(pages: UInt32($0.number(UInt16.self))) }, { _ in balloon.requestStatistics() }])
    }
}
