// A machine of one virtio function: recorded interrupts, a loop on a thread, and the driver's steps written as register accesses
// from an independent reading of virtio 1.2 §4.1.
import Foundation
import GuestMemory
import HostSystem
import MachineCore
import MachineTesting
import Synchronization

@testable import VirtIO

/// The driver's side of one function.
struct MockDriver {
    let function: VirtIOPCIFunction

    func read(_ offset: UInt64, _ width: AccessWidth) -> UInt64 { function.read(offset: offset, width: width) }
    func write(_ offset: UInt64, _ width: AccessWidth, _ value: UInt64) {
        function.write(offset: offset, width: width, value: value)
    }

    var status: UInt8 {
        get { UInt8(read(0x14, .byte)) }
        nonmutating set { write(0x14, .byte, UInt64(newValue)) }
    }
    var offered: UInt64 {
        write(0, .doubleWord, 0)
        let low = read(4, .doubleWord)
        write(0, .doubleWord, 1)
        return low | read(4, .doubleWord) << 32
    }

    /// Reset to FEATURES_OK. Returns whether the device took the features.
    func negotiate(_ features: UInt64) -> Bool {
        status = 0
        status = 1
        status = 3
        write(8, .doubleWord, 0)
        write(0xC, .doubleWord, features & 0xFFFF_FFFF)
        write(8, .doubleWord, 1)
        write(0xC, .doubleWord, features >> 32)
        status = 11
        return status & 8 != 0
    }

    func enable(_ queue: MockQueue, vector: UInt16) {
        write(0x16, .word, UInt64(queue.index))
        write(0x18, .word, UInt64(queue.size))
        write(0x1A, .word, UInt64(vector))
        for (offset, address) in [(0x20, queue.table), (0x28, queue.available), (0x30, queue.used)] {
            write(UInt64(offset), .doubleWord, address & 0xFFFF_FFFF)
            write(UInt64(offset) + 4, .doubleWord, address >> 32)
        }
        write(0x1C, .word, 1)
    }

    /// MSI-X on, every vector unmasked, vector n sending data n.
    func enableMSIX(vectors: Int) {
        for vector in 0..<vectors {
            let entry = UInt64(0x4000 + 16 * vector)
            write(entry, .doubleWord, 0xFEE0_0000)
            write(entry + 8, .doubleWord, UInt64(vector))
            write(entry + 12, .doubleWord, 0)
        }
        let offset = capability(0x11)
        function.writeConfiguration(offset: offset + 2, width: .word, value: 0x8000)
    }

    func capability(_ id: UInt64) -> Int {
        var offset = Int(function.readConfiguration(offset: 0x34, width: .byte))
        while offset != 0, function.readConfiguration(offset: offset, width: .byte) != id {
            offset = Int(function.readConfiguration(offset: offset + 1, width: .byte))
        }
        return offset
    }

    func notify(_ queue: Int) { write(UInt64(0x3000 + 4 * queue), .word, UInt64(queue)) }
}

/// The driver's end of a ring, laid out at `base`.
final class MockQueue {
    struct Buffer {
        var address: UInt64
        var length: UInt32
        var isWritable: Bool
        init(_ address: UInt64, _ length: UInt32, writable: Bool) {
            self.address = address
            self.length = length
            isWritable = writable
        }
    }

    let memory: GuestMemory
    let index: Int
    let size: UInt16
    let table: UInt64
    var available: UInt64 { table + 16 * UInt64(size) }
    var used: UInt64 { (available + 6 + 2 * UInt64(size) + 3) & ~3 }
    var nextDescriptor: UInt16 = 0
    var availableIndex: UInt16 = 0
    var seenUsed: UInt16 = 0

    init(_ memory: GuestMemory, index: Int, size: UInt16 = 16, base: UInt64) {
        self.memory = memory
        self.index = index
        self.size = size
        table = base
    }

    func setDescriptor(_ number: UInt16, _ address: UInt64, _ length: UInt32, flags: UInt16, next: UInt16, in table: UInt64? = nil) throws {
        let base = (table ?? self.table) + 16 * UInt64(number)
        try memory.store(address, at: GuestAddress(base))
        try memory.store(length, at: GuestAddress(base + 8))
        try memory.store(flags, at: GuestAddress(base + 12))
        try memory.store(next, at: GuestAddress(base + 14))
    }

    /// Lays a chain out and makes it available; returns its head.
    @discardableResult
    func add(_ buffers: [Buffer]) throws -> UInt16 {
        let head = nextDescriptor
        for (offset, buffer) in buffers.enumerated() {
            let number = (head + UInt16(offset)) % size
            let isLast = offset == buffers.count - 1
            try setDescriptor(
                number, buffer.address, buffer.length, flags: (buffer.isWritable ? 2 : 0) | (isLast ? 0 : 1),
                next: isLast ? 0 : (number + 1) % size)
        }
        nextDescriptor = (head + UInt16(buffers.count)) % size
        try offer(head)
        return head
    }

    func offer(_ head: UInt16) throws {
        try memory.store(head, at: GuestAddress(available + 4 + 2 * UInt64(availableIndex % size)))
        availableIndex &+= 1
        try memory.store(availableIndex, at: GuestAddress(available + 2))
    }

    var usedIndex: UInt16 { (try? memory.load(UInt16.self, at: GuestAddress(used + 2))) ?? 0 }

    /// Waits for the next used element.
    func waitForUsed() throws -> (head: UInt32, length: UInt32)? {
        guard eventually({ usedIndex != seenUsed }) else { return nil }
        let base = used + 4 + 8 * UInt64(seenUsed % size)
        seenUsed &+= 1
        return (try memory.load(at: GuestAddress(base)), try memory.load(at: GuestAddress(base + 4)))
    }
}
