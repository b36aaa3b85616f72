// The NVMe controller with an admin and two I/O queues: registers, doorbells, submissions from the input.
import GuestMemory
import MachineCore
import PCI
import Storage

/// Where the queues of pair n lie, eight entries each.
private func submission(_ queue: Int) -> UInt64 { 0x1_0000 + UInt64(queue) * 0x2000 }
private func completion(_ queue: Int) -> UInt64 { submission(queue) + 0x1000 }

let nvmeTarget = FuzzTarget("nvme") { input in
    drive(&input) {
        let rig = Rig()
        let endpoint = must { try NVMeController.makeEndpoint(name: "nvme", queueCount: 2, line: Bench.line, message: FuzzInterrupts()) }
        let nvme = must {
            try NVMeController(
                endpoint, memory: Bench.memory, image: FuzzDisk.disk, identity: DriveIdentity(serial: "nvme", worldWideName: 5),
                queueCount: 2, loop: Bench.loop)
        }
        endpoint.connect(to: FuzzAddressSpace())
        rig.add(nvme, byteCount: 0x40)
        rig.add(nvme, first: 0x1000, byteCount: 0x20)
        rig.functions = [endpoint]
        rig.sections = [endpoint, nvme]
        rig.reset = { endpoint.reset() }
        rig.dispose = { endpoint.unplug() }
        rig.pause = {
            Bench.serve()
            if !nvme.pause() { finding("requests do not end") }
        }
        rig.resume = { nvme.resume() }
        rig.actions = [
            { _ in nvmeStart(endpoint, nvme) },
            { nvmeSubmit(&$0, nvme) }, { nvmeSubmit(&$0, nvme) }, { nvmeSubmit(&$0, nvme) },
            { _ in nvmeMakeQueues(nvme) },
            {
                // What a driver has taken.
                nvme.write(offset: 0x1004 + UInt64($0.below(3)) * 8, width: .doubleWord, value: UInt64($0.byte() & 7))
            },
            { _ in Bench.serve() },
            { Bench.writeMemory(&$0) },
            { FuzzDisk.disk.nextError = CInt($0.byte()) },
        ]
        return rig
    }
}

private func nvmeStart(_ endpoint: PCIEndpoint, _ nvme: NVMeController) {
    func set(_ offset: UInt64, _ value: UInt64) { nvme.write(offset: offset, width: .doubleWord, value: value) }
    endpoint.writeConfiguration(offset: 4, width: .word, value: 6)
    set(0x14, 0)
    Bench.serve()
    set(0x24, 7 | 7 << 16)
    set(0x28, submission(0))
    set(0x2C, 0)
    set(0x30, completion(0))
    set(0x34, 0)
    set(0x14, 0x0046_0001)
}

/// Both I/O pairs, as drivers make them.
private func nvmeMakeQueues(_ nvme: NVMeController) {
    for queue in 1...2 {
        nvmePut(0, operation: 5, region: completion(queue), words: [UInt32(queue) | 7 << 16, 3 | UInt32(queue) << 16], nvme)
        nvmePut(0, operation: 1, region: submission(queue), words: [UInt32(queue) | 7 << 16, 1 | UInt32(queue) << 16], nvme)
    }
    Bench.serve()
}

/// One entry at the place that the submissions so far would have.
private func nvmePut(_ queue: Int, operation: UInt8, region: UInt64, words: [UInt32], _ nvme: NVMeController) {
    // The tail is kept beside the ring, so that clearing RAM clears it.
    let place = GuestAddress(0x800 + UInt64(queue) * 4)
    guard let tail = try? Bench.memory.load(UInt32.self, at: place) else { return }
    var writer = StateWriter()
    writer.write(UInt32(operation) | tail << 16)
    writer.write(UInt32(operation == 5 || operation == 1 ? 0 : 1))
    for _ in 0..<2 { writer.write(UInt64(0)) }
    writer.write(region)
    writer.write(region &+ 0x1000)
    for index in 0..<6 { writer.write(index < words.count ? words[index] : 0) }
    try? Bench.memory.write(writer.bytes, at: GuestAddress(submission(queue) + UInt64(tail & 7) * 64))
    try? Bench.memory.store(tail &+ 1, at: place)
    nvme.write(offset: 0x1000 + UInt64(queue) * 8, width: .doubleWord, value: UInt64(tail &+ 1) & 7)
}

/// An entry whose every field is the input's.
private func nvmeSubmit(_ input: inout Input, _ nvme: NVMeController) {
    let queue = input.below(3), operation = input.byte()
    let region = UInt64(input.number(UInt16.self)) << UInt64(input.byte() & 7)
    let words = (0..<Int(input.byte() & 7)).map { _ in input.number(UInt32.self) }
    nvmePut(queue, operation: operation, region: region, words: words, nvme)
}
