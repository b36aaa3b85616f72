// Rings in guest memory: a submission queue that the controller takes commands from, a completion queue that it posts to (NVM
// Express 1.4 §4.1). Values under the lock of what owns them.
import DiskImage
import GuestMemory
import MachineCore

/// A completion queue. Room is reserved when a command is taken, so that posting cannot fail.
struct NVMeCompletionQueue: Sendable {
    var base: UInt64
    var size: UInt32
    var vector: UInt16
    var interruptsEnabled: Bool
    private var tail: UInt32 = 0
    private var head: UInt32 = 0
    private var phase: UInt16 = 1
    private var reserved: UInt32 = 0

    init(base: UInt64, size: UInt32, vector: UInt16, interruptsEnabled: Bool) {
        self.base = base
        self.size = size
        self.vector = vector
        self.interruptsEnabled = interruptsEnabled
    }

    /// Entries that the driver has not taken.
    var pending: UInt32 { (tail &+ size &- head) % size }
    mutating func reserve() -> Bool {
        guard pending + reserved < size - 1 else { return false }
        reserved += 1
        return true
    }
    mutating func giveBack() { reserved -= reserved > 0 ? 1 : 0 }

    /// CQyHDBL. False for a value that is no entry: the write is ignored.
    mutating func setHead(_ value: UInt32) -> Bool {
        guard value < size else { return false }
        head = value
        return true
    }

    mutating func post(
        identifier: UInt16, status: NVMeStatus, result: UInt32, queue: UInt16, head submissionHead: UInt16,
        memory: GuestMemory
    ) {
        giveBack()
        let entry = base &+ UInt64(tail) * 16
        let last = UInt32(identifier) | UInt32(status.rawValue << 1 | phase) << 16
        // The phase bit is in the last word: it is written after the rest is seen. A queue outside RAM loses its entries.
        try? memory.store(UInt64(result), at: GuestAddress(entry))
        try? memory.store(UInt32(submissionHead) | UInt32(queue) << 16, at: GuestAddress(entry &+ 8))
        try? memory.store(UInt16(truncatingIfNeeded: last), at: GuestAddress(entry &+ 12))
        try? memory.storeRelease(UInt16(truncatingIfNeeded: last >> 16), at: GuestAddress(entry &+ 14))
        tail += 1
        if tail == size {
            tail = 0
            phase ^= 1
        }
    }

    func save(into writer: inout StateWriter) {
        writer.write(base)
        writer.write(size)
        writer.write(vector)
        writer.write(interruptsEnabled)
        writer.write(tail)
        writer.write(head)
        writer.write(phase)
    }

    init(from reader: inout StateReader) throws(DeviceStateError) {
        base = try reader.read()
        size = try reader.read()
        vector = try reader.read()
        interruptsEnabled = try reader.readBool()
        tail = try reader.read()
        head = try reader.read()
        phase = try reader.read(UInt16.self) & 1
        guard size >= 2, size <= UInt32(NVMeRegister.queueEntryLimit) * 4, tail < size, head < size else {
            throw DeviceStateError(section: reader.section, reason: "has a completion queue that no command can make")
        }
    }
}

/// A submission queue as the driver made it.
struct NVMeSubmissionQueue: Sendable {
    var base: UInt64
    var size: UInt32
    var completionQueue: UInt16
    private(set) var head: UInt32 = 0
    private var tail: UInt32 = 0

    init(base: UInt64, size: UInt32, completionQueue: UInt16) {
        self.base = base
        self.size = size
        self.completionQueue = completionQueue
    }

    /// SQyTDBL. False for a value that is no entry: the write is ignored.
    mutating func setTail(_ value: UInt32) -> Bool {
        guard value < size else { return false }
        tail = value
        return true
    }

    var isEmpty: Bool { head == tail }

    /// The next command, copied once; nil where the queue is not in RAM.
    mutating func pop(memory: GuestMemory) -> NVMeCommand? {
        let entry = base &+ UInt64(head) * NVMeCommand.byteCount
        head = (head + 1) % size
        return try? memory.load(NVMeCommand.self, at: GuestAddress(entry))
    }

    func save(into writer: inout StateWriter) {
        writer.write(base)
        writer.write(size)
        writer.write(completionQueue)
        writer.write(head)
        writer.write(tail)
    }

    init(from reader: inout StateReader) throws(DeviceStateError) {
        base = try reader.read()
        size = try reader.read()
        completionQueue = try reader.read()
        head = try reader.read()
        tail = try reader.read()
        guard size >= 2, size <= UInt32(NVMeRegister.queueEntryLimit) * 4, tail < size, head < size else {
            throw DeviceStateError(section: reader.section, reason: "has a submission queue that no command can make")
        }
    }
}

/// The memory of a command, page by page (§4.3).
enum NVMeRegions {
    static let pageByteCount: UInt64 = 4096
    /// MDTS: two to the power of this many pages.
    static let transferLimitExponent: UInt8 = 7
    static let transferLimit = Int(pageByteCount) << Int(transferLimitExponent)

    /// Collects the pages of `byteCount` bytes, at most `transferLimit`, that PRP1 and PRP2 name.
    static func gather(_ command: NVMeCommand, byteCount: Int, into list: inout ScatterList, memory: GuestMemory)
        -> NVMeStatus
    {
        guard byteCount <= transferLimit else { return .invalidField }
        // Words of four bytes: PRP1 may begin inside a page.
        guard command.region1 & 3 == 0 else { return .invalidRegionOffset }
        let first = min(byteCount, Int(pageByteCount - command.region1 % pageByteCount))
        guard list.append(GuestAddress(command.region1), first, memory: memory) else { return .dataTransferError }
        var rest = byteCount - first
        guard rest > 0 else { return .success }
        if rest <= Int(pageByteCount) {
            guard command.region2 % pageByteCount == 0 else { return .invalidRegionOffset }
            return list.append(GuestAddress(command.region2), rest, memory: memory) ? .success : .dataTransferError
        }
        // PRP2 points at a list, which may begin inside a page; the last entry of a page may point at the next one.
        guard command.region2 & 7 == 0 else { return .invalidRegionOffset }
        var position = command.region2
        while rest > 0 {
            guard let entry = try? memory.load(UInt64.self, at: GuestAddress(position)) else {
                return .dataTransferError
            }
            guard entry % pageByteCount == 0 else { return .invalidRegionOffset }
            if position % pageByteCount == pageByteCount - 8, rest > Int(pageByteCount) {
                // On an aligned page 511 pages of data come before the next such entry: the loop ends.
                position = entry
                continue
            }
            let count = min(rest, Int(pageByteCount))
            guard list.append(GuestAddress(entry), count, memory: memory) else { return .dataTransferError }
            rest -= count
            position &+= 8
        }
        return .success
    }
}
