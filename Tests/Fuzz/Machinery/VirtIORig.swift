// A virtio function: the transport's registers, and rings whose descriptors the input writes.
import GuestMemory
import MachineCore
import VirtIO

/// Rings of queue n: the table at 0x1_0000 + n * 0x2000, 16 entries in use.
private enum Ring {
    static let size: UInt64 = 16
    static func table(_ queue: Int) -> UInt64 { 0x1_0000 + UInt64(queue) * 0x2000 }
    static func available(_ queue: Int) -> UInt64 { table(queue) + 0x800 }
    static func used(_ queue: Int) -> UInt64 { table(queue) + 0x1000 }
}

func virtioRig(_ device: any VirtIODevice, requestSize: Int, more: [(inout Input) -> Void] = []) -> Rig {
    let rig = Rig(), memory = Bench.memory
    let function = must {
        try VirtIOPCIFunction(
            device, name: "virtio", memory: memory, interrupts: FuzzInterrupts(), doorbells: nil, line: (Bench.line, 5))
    }
    function.connect(to: FuzzAddressSpace())
    let queues = device.queueSizes.count
    rig.add(function, byteCount: 0x40)
    rig.add(function, first: 0x2000, byteCount: 0x60)
    rig.add(function, first: 0x3000, byteCount: 0x20)
    rig.add(function, first: 0x4000, byteCount: 0x40)
    rig.add(function, byteCount: 0x8000)
    rig.functions = [function]
    rig.sections = [function]
    rig.pause = {
        Bench.serve()
        if !function.pause() { finding("requests do not end") }
    }
    rig.resume = { function.resume() }
    rig.reset = { function.reset() }
    rig.dispose = { function.reset() }
    rig.actions = [
        { virtioStart(&$0, function, queues) },
        { virtioOffer(&$0, function, queues, requestSize) }, { virtioOffer(&$0, function, queues, requestSize) },
        { virtioOffer(&$0, function, queues, requestSize) },
        { _ in Bench.serve() },
        { Bench.writeMemory(&$0) },
        {
            // The driver's indices and flags, to any value.
            let queue = $0.below(queues), offset = UInt64($0.byte())
            try? memory.store($0.number(UInt16.self), at: GuestAddress(Ring.available(queue) + offset & ~1))
            function.write(offset: 0x3000 + UInt64(queue * 4), width: .word, value: UInt64(queue))
        },
    ] + more
    return rig
}

/// Reset to DRIVER_OK with the features that the input leaves on.
private func virtioStart(_ input: inout Input, _ function: VirtIOPCIFunction, _ queues: Int) {
    func set(_ offset: UInt64, _ width: AccessWidth, _ value: UInt64) { function.write(offset: offset, width: width, value: value) }
    let drop = UInt64(input.number(UInt32.self))
    for status: UInt64 in [0, 1, 3] { set(0x14, .byte, status) }
    // A reset ends when what is in flight has ended.
    Bench.serve()
    for status: UInt64 in [1, 3] { set(0x14, .byte, status) }
    set(0, .doubleWord, 0)
    let low = function.read(offset: 4, width: .doubleWord)
    set(8, .doubleWord, 0)
    set(0xC, .doubleWord, low & ~drop)
    set(8, .doubleWord, 1)
    set(0xC, .doubleWord, 1)
    set(0x14, .byte, 11)
    for queue in 0..<queues {
        try? Bench.memory.fill(0, at: GuestAddress(Ring.table(queue)), count: 0x2000)
        set(0x16, .word, UInt64(queue))
        set(0x18, .word, Ring.size)
        set(0x20, .doubleWord, Ring.table(queue))
        set(0x28, .doubleWord, Ring.available(queue))
        set(0x30, .doubleWord, Ring.used(queue))
        set(0x1C, .word, 1)
    }
    set(0x14, .byte, 15)
}

/// A chain of up to eight buffers, the first with a request in it, offered and rung for.
private func virtioOffer(_ input: inout Input, _ function: VirtIOPCIFunction, _ queues: Int, _ requestSize: Int) {
    let memory = Bench.memory
    let queue = input.below(queues), choice = input.byte()
    let head = UInt64(choice & 15), count = 1 + UInt64(choice >> 4 & 7)
    for index in 0..<count {
        let number = (head + index) % Ring.size
        // Bits 0-2: NEXT, WRITE, INDIRECT, NEXT the other way round as it is the rule; bit 3: a place that may not be RAM.
        let flags = input.byte()
        var address = 0x4_0000 + (head + index) << 12
        var length = UInt32(input.number(UInt16.self))
        if index == 0, flags & 0x10 == 0 {
            let request = input.take(requestSize)
            try? memory.write(request, at: GuestAddress(address))
            length = UInt32(request.count)
        } else if flags & 8 != 0 {
            address = UInt64(input.number(UInt32.self)) << UInt64(flags >> 5)
        }
        let isLast = index == count - 1
        let descriptor = GuestAddress(Ring.table(queue) + number * 16)
        try? memory.store(address, at: descriptor)
        try? memory.store(length, at: GuestAddress(descriptor.rawValue + 8))
        try? memory.store(UInt16(flags & 6) | UInt16(isLast ? flags & 1 : ~flags & 1), at: GuestAddress(descriptor.rawValue + 12))
        try? memory.store(UInt16((number + 1) % Ring.size), at: GuestAddress(descriptor.rawValue + 14))
    }
    guard let next = try? memory.load(UInt16.self, at: GuestAddress(Ring.available(queue) + 2)) else { return }
    try? memory.store(UInt16(head), at: GuestAddress(Ring.available(queue) + 4 + UInt64(next) % Ring.size * 2))
    try? memory.store(next &+ 1, at: GuestAddress(Ring.available(queue) + 2))
    function.write(offset: 0x3000 + UInt64(queue * 4), width: .word, value: UInt64(queue))
}
