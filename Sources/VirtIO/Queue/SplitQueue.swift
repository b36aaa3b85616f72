// The split virtqueue of virtio 1.2 §2.7, device side: take chains from the available ring, give them back through the
// used ring, and say when the other side must be told (§2.7.7, §2.7.10, event indices).
//
// A value; its owner serialises access. Everything it reads the guest may change at any time, so each field is read once
// and checked. Indices wrap at 16 bits by the specification: &+ and &- below are that arithmetic.
package import GuestMemory

/// Where the guest put a queue's rings.
package struct QueueAddresses: Sendable, Equatable {
    package var descriptorTable: GuestAddress
    package var availableRing: GuestAddress
    package var usedRing: GuestAddress

    package init(descriptorTable: GuestAddress, availableRing: GuestAddress, usedRing: GuestAddress) {
        self.descriptorTable = descriptorTable
        self.availableRing = availableRing
        self.usedRing = usedRing
    }
}

/// How far a queue has come: all that a saved state needs of it.
package struct RingPosition: Sendable, Equatable {
    package var nextAvailable: UInt16
    package var nextUsed: UInt16

    package init(nextAvailable: UInt16 = 0, nextUsed: UInt16 = 0) {
        self.nextAvailable = nextAvailable
        self.nextUsed = nextUsed
    }
}

/// A descriptor as it lies in guest memory.
private struct Descriptor: BitwiseCopyable {
    static let hasNext: UInt16 = 1
    static let isWritable: UInt16 = 2
    static let isIndirect: UInt16 = 4
    var address: UInt64
    var byteCount: UInt32
    var flags: UInt16
    var next: UInt16
}

/// An element of the used ring.
private struct UsedElement: BitwiseCopyable {
    var head: UInt32
    var byteCount: UInt32
}

/// The device's end of a split virtqueue.
package struct SplitQueue: Sendable {
    /// The longest chain we follow, the kernel's limit of I/O vectors.
    package static let maximumSegments = 1024

    package let index: Int
    package let memory: GuestMemory
    package let size: UInt16
    package let addresses: QueueAddresses
    private let hasEventIndex: Bool
    private let hasIndirect: Bool
    package private(set) var position: RingPosition
    /// The used index at the last decision about an interrupt.
    private var lastSignalled: UInt16

    /// Checks that the rings are aligned and in RAM.
    package init(
        index: Int, memory: GuestMemory, size: UInt16, addresses: QueueAddresses, features: VirtIOFeatures,
        position: RingPosition = RingPosition()
    ) throws(QueueFault) {
        guard size > 0, size <= 32768, size & (size - 1) == 0 else {
            throw QueueFault(queue: index, reason: .sizeInvalid)
        }
        guard addresses.descriptorTable.rawValue & 15 == 0, addresses.availableRing.rawValue & 1 == 0,
            addresses.usedRing.rawValue & 3 == 0
        else { throw QueueFault(queue: index, reason: .ringMisaligned) }
        let count = UInt64(size)
        let parts = [
            (addresses.descriptorTable, 16 * count), (addresses.availableRing, 6 + 2 * count),
            (addresses.usedRing, 6 + 8 * count),
        ]
        do {
            for (address, byteCount) in parts {
                // Only the check is wanted here.
                _ = unsafe try memory.hostRange(at: address, byteCount: byteCount)
            }
        } catch {
            throw QueueFault(queue: index, reason: .ringOutsideMemory)
        }
        self.index = index
        self.memory = memory
        self.size = size
        self.addresses = addresses
        hasEventIndex = features.contains(.ringEventIndex)
        hasIndirect = features.contains(.ringIndirectDescriptors)
        self.position = position
        lastSignalled = position.nextUsed
    }

    // MARK: available ring

    /// Takes the next chain into `chain`. False where the driver has offered none.
    package mutating func pop(into chain: inout DescriptorChain) throws(QueueFault) -> Bool {
        let available = try availableIndex()
        let waiting = available &- position.nextAvailable
        if waiting == 0 { return false }
        guard waiting <= size else { throw fault(.indexJumped) }
        let head: UInt16 = try load(at: slot(addresses.availableRing, 4, position.nextAvailable, 2))
        try collect(head: head, into: &chain)
        position.nextAvailable &+= 1
        return true
    }

    /// Gives the last `count` chains back to the driver's side untouched, as if they had not been popped.
    package mutating func rewind(_ count: Int) {
        position.nextAvailable &-= UInt16(truncatingIfNeeded: count)
    }

    /// Asks the driver not to ring: we are looking already.
    package mutating func suppressNotifications() throws(QueueFault) {
        if !hasEventIndex { try store(UInt16(1), at: addresses.usedRing) }
    }

    /// Asks the driver to ring again. True where it added something meanwhile and will not ring for it.
    package mutating func allowNotifications() throws(QueueFault) -> Bool {
        if hasEventIndex {
            try store(position.nextAvailable, at: slot(addresses.usedRing, 4, size, 8, wraps: false))
        } else {
            try store(UInt16(0), at: addresses.usedRing)
        }
        GuestMemory.fence()
        return try availableIndex() != position.nextAvailable
    }

    private func collect(head: UInt16, into chain: inout DescriptorChain) throws(QueueFault) {
        chain.removeAll()
        guard head < size else { throw fault(.headOutsideTable) }
        chain.head = head
        var table = addresses.descriptorTable
        var tableCount = UInt32(size)
        var isIndirect = false
        var visited: UInt32 = 0
        var index = UInt32(head)
        while true {
            guard index < tableCount else { throw fault(.nextOutsideTable) }
            guard visited < tableCount, chain.segmentCount < Self.maximumSegments else { throw fault(.chainTooLong) }
            visited += 1
            // Copied once: the checks below and the use see the same values.
            let descriptor = try descriptor(index, of: table)
            if descriptor.flags & Descriptor.isIndirect != 0 {
                guard hasIndirect else { throw fault(.indirectNotNegotiated) }
                guard !isIndirect else { throw fault(.indirectNested) }
                guard descriptor.flags & Descriptor.hasNext == 0 else { throw fault(.indirectChained) }
                let count = descriptor.byteCount / 16
                guard descriptor.byteCount % 16 == 0, count > 0, count <= UInt32(Self.maximumSegments) else {
                    throw fault(.indirectLengthInvalid)
                }
                isIndirect = true
                table = GuestAddress(descriptor.address)
                tableCount = count
                visited = 0
                index = 0
                continue
            }
            let reason = chain.append(
                address: GuestAddress(descriptor.address), byteCount: Int(descriptor.byteCount),
                isWritable: descriptor.flags & Descriptor.isWritable != 0, memory: memory)
            if let reason { throw fault(reason) }
            guard descriptor.flags & Descriptor.hasNext != 0 else { return }
            index = UInt32(descriptor.next)
        }
    }

    private func descriptor(_ index: UInt32, of table: GuestAddress) throws(QueueFault) -> Descriptor {
        guard let address = table.advanced(by: UInt64(index) * 16) else { throw fault(.bufferOutsideMemory) }
        do {
            return try memory.load(Descriptor.self, at: address)
        } catch {
            throw fault(.bufferOutsideMemory)
        }
    }

    // MARK: used ring

    /// Puts a finished chain into the used ring; `publish` shows it to the driver.
    package mutating func push(head: UInt16, byteCount: UInt32) throws(QueueFault) {
        try store(
            UsedElement(head: UInt32(head), byteCount: byteCount), at: slot(addresses.usedRing, 4, position.nextUsed, 8))
        position.nextUsed &+= 1
    }

    /// Shows all pushed chains to the driver. True where it wants an interrupt for them.
    package mutating func publish() throws(QueueFault) -> Bool {
        let new = position.nextUsed
        let old = lastSignalled
        guard new != old else { return false }
        do {
            try memory.storeRelease(new, at: slot(addresses.usedRing, 2, 0, 0))
        } catch {
            throw fault(.ringOutsideMemory)
        }
        GuestMemory.fence()
        lastSignalled = new
        if hasEventIndex {
            let event: UInt16 = try load(at: slot(addresses.availableRing, 4, size, 2, wraps: false))
            return new &- event &- 1 < new &- old
        }
        let flags: UInt16 = try load(at: addresses.availableRing)
        return flags & 1 == 0
    }

    // MARK: access

    private func availableIndex() throws(QueueFault) -> UInt16 {
        do {
            return try memory.loadAcquire(at: slot(addresses.availableRing, 2, 0, 0))
        } catch {
            throw fault(.ringOutsideMemory)
        }
    }

    /// The address of element `number` (modulo the size, unless it is the field after the ring). The rings were checked
    /// in init, so the sum stays in RAM.
    private func slot(
        _ ring: GuestAddress, _ offset: UInt64, _ number: UInt16, _ width: UInt64, wraps: Bool = true
    ) -> GuestAddress {
        let element = wraps ? number & (size &- 1) : number
        return GuestAddress(ring.rawValue &+ offset &+ UInt64(element) &* width)
    }

    private func load<Value: BitwiseCopyable>(at address: GuestAddress) throws(QueueFault) -> Value {
        do { return try memory.load(Value.self, at: address) } catch { throw fault(.ringOutsideMemory) }
    }

    private func store<Value: BitwiseCopyable>(_ value: Value, at address: GuestAddress) throws(QueueFault) {
        do { try memory.store(value, at: address) } catch { throw fault(.ringOutsideMemory) }
    }

    private func fault(_ reason: QueueFault.Reason) -> QueueFault {
        QueueFault(queue: index, reason: reason)
    }
}
