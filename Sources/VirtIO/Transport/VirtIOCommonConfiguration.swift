// The common configuration structure of virtio-pci (virtio 1.2 §4.1.4.3) with feature negotiation, as registers only.
//
// A value: writes return what the wiring must do. Queue registers are frozen once DRIVER_OK is set, so that a guest cannot
// move rings under a running device; features are frozen by FEATURES_OK.
import GuestMemory
package import MachineCore

/// The registers of one virtio function.
package struct VirtIOCommonConfiguration: Sendable {
    /// What a write asks of the wiring.
    package enum Action: Sendable, Equatable {
        case none
        /// The driver is ready: start the device.
        case activate
        /// Stop the device, then call `finishReset`.
        case reset
        /// The vector of a queue, or of configuration changes (nil), is another.
        case vectorChanged(queue: Int?)
    }

    /// One queue's registers.
    package struct Queue: Sendable, Equatable {
        package var size: UInt16
        package var vector: UInt16 = VirtIOEvents.noVector
        package var isEnabled = false
        var descriptorTable: UInt64 = 0
        var availableRing: UInt64 = 0
        var usedRing: UInt64 = 0

        package var addresses: QueueAddresses {
            QueueAddresses(
                descriptorTable: GuestAddress(descriptorTable), availableRing: GuestAddress(availableRing),
                usedRing: GuestAddress(usedRing))
        }
    }

    package let offered: VirtIOFeatures
    private let maximumSizes: [UInt16]
    private let vectorCount: Int
    package private(set) var status: DeviceStatus = []
    package private(set) var accepted: VirtIOFeatures = []
    package private(set) var queues: [Queue]
    package private(set) var configurationVector = VirtIOEvents.noVector
    /// Between the driver's write of 0 and the last request in flight; status keeps reading non-zero.
    package private(set) var isResetting = false
    private var deviceFeatureSelect: UInt32 = 0
    private var driverFeatureSelect: UInt32 = 0
    private var queueSelect: UInt16 = 0

    package init(offered: VirtIOFeatures, queueSizes: [UInt16], vectorCount: Int) {
        self.offered = offered
        maximumSizes = queueSizes
        self.vectorCount = vectorCount
        queues = queueSizes.map { Queue(size: $0) }
    }

    package var isActive: Bool { status.contains(.driverOK) && !isResetting }

    // MARK: registers

    /// Reads a register; `generation` and `needsReset` are the device's. Narrow reads of wide registers work; other
    /// addresses read zero.
    package func read(offset: Int, width: AccessWidth, generation: UInt8, needsReset: Bool) -> UInt64 {
        var value: UInt64 = 0
        for index in 0..<width.byteCount {
            let byte = byte(at: offset &+ index, generation: generation, needsReset: needsReset)
            value |= UInt64(byte) << UInt64(8 * index)
        }
        return value
    }

    private func byte(at offset: Int, generation: UInt8, needsReset: Bool) -> UInt8 {
        let queue = queues.indices.contains(Int(queueSelect)) ? queues[Int(queueSelect)] : nil
        func part(_ value: UInt64, _ base: Int) -> UInt8 {
            UInt8(truncatingIfNeeded: value >> UInt64(8 * (offset - base)))
        }
        switch offset {
        case 0x00..<0x04: return part(UInt64(deviceFeatureSelect), 0x00)
        case 0x04..<0x08: return part(window(offered, deviceFeatureSelect), 0x04)
        case 0x08..<0x0C: return part(UInt64(driverFeatureSelect), 0x08)
        case 0x0C..<0x10: return part(window(accepted, driverFeatureSelect), 0x0C)
        case 0x10..<0x12: return part(UInt64(configurationVector), 0x10)
        case 0x12..<0x14: return part(UInt64(queues.count), 0x12)
        case 0x14: return status.rawValue | (needsReset ? DeviceStatus.needsReset.rawValue : 0)
        case 0x15: return generation
        case 0x16..<0x18: return part(UInt64(queueSelect), 0x16)
        case 0x18..<0x1A: return part(UInt64(queue?.size ?? 0), 0x18)
        case 0x1A..<0x1C: return part(UInt64(queue?.vector ?? VirtIOEvents.noVector), 0x1A)
        case 0x1C..<0x1E: return part(queue?.isEnabled == true ? 1 : 0, 0x1C)
        case 0x1E..<0x20: return part(UInt64(queueSelect), 0x1E)
        case 0x20..<0x28: return part(queue?.descriptorTable ?? 0, 0x20)
        case 0x28..<0x30: return part(queue?.availableRing ?? 0, 0x28)
        case 0x30..<0x38: return part(queue?.usedRing ?? 0, 0x30)
        default: return 0
        }
    }

    private func window(_ features: VirtIOFeatures, _ select: UInt32) -> UInt64 {
        switch select {
        case 0: features.rawValue & 0xFFFF_FFFF
        case 1: features.rawValue >> 32
        default: 0
        }
    }

    /// Writes a register in its own width, or a 64-bit one in halves; anything else is ignored.
    package mutating func write(offset: Int, width: AccessWidth, value: UInt64) -> Action {
        if width == .quadWord {
            guard offset >= 0x20, offset < 0x38, offset & 7 == 0 else { return .none }
            _ = write(offset: offset, width: .doubleWord, value: value & 0xFFFF_FFFF)
            return write(offset: offset + 4, width: .doubleWord, value: value >> 32)
        }
        // A reset waits for requests in flight; a driver that does not wait for it is not heard.
        guard !isResetting else { return .none }
        let word = UInt16(truncatingIfNeeded: value)
        let long = UInt32(truncatingIfNeeded: value)
        switch (offset, width) {
        case (0x00, .doubleWord): deviceFeatureSelect = long
        case (0x08, .doubleWord): driverFeatureSelect = long
        case (0x0C, .doubleWord): setDriverFeatures(long)
        case (0x10, .word):
            configurationVector = valid(vector: word)
            return .vectorChanged(queue: nil)
        case (0x14, .byte): return setStatus(DeviceStatus(rawValue: UInt8(truncatingIfNeeded: value)))
        case (0x16, .word): queueSelect = word
        case (0x1A, .word):
            guard queues.indices.contains(Int(queueSelect)) else { return .none }
            queues[Int(queueSelect)].vector = valid(vector: word)
            return .vectorChanged(queue: Int(queueSelect))
        case (0x18, .word), (0x1C, .word), (0x20..<0x38, .doubleWord):
            setQueueRegister(offset: offset, value: long)
        default: break
        }
        return .none
    }

    private func valid(vector: UInt16) -> UInt16 {
        Int(vector) < vectorCount ? vector : VirtIOEvents.noVector
    }

    private mutating func setDriverFeatures(_ value: UInt32) {
        guard !status.contains(.featuresOK), driverFeatureSelect < 2 else { return }
        let shift = UInt64(driverFeatureSelect) * 32
        let kept = accepted.rawValue & ~(0xFFFF_FFFF << shift)
        accepted = VirtIOFeatures(rawValue: kept | UInt64(value) << shift)
    }

    private mutating func setQueueRegister(offset: Int, value: UInt32) {
        guard queues.indices.contains(Int(queueSelect)), !status.contains(.driverOK) else { return }
        let index = Int(queueSelect)
        guard !queues[index].isEnabled else { return }
        func replacing(_ old: UInt64, _ half: Int) -> UInt64 {
            half == 0 ? (old & ~0xFFFF_FFFF) | UInt64(value) : (old & 0xFFFF_FFFF) | UInt64(value) << 32
        }
        switch offset {
        case 0x18:
            let size = UInt16(truncatingIfNeeded: value)
            if size > 0, size <= maximumSizes[index], size & (size - 1) == 0 { queues[index].size = size }
        // Only 1 may be written (§4.1.4.3.2); a ring is disabled by a reset.
        case 0x1C: if value == 1 { queues[index].isEnabled = true }
        case 0x20, 0x24: queues[index].descriptorTable = replacing(queues[index].descriptorTable, offset - 0x20)
        case 0x28, 0x2C: queues[index].availableRing = replacing(queues[index].availableRing, offset - 0x28)
        case 0x30, 0x34: queues[index].usedRing = replacing(queues[index].usedRing, offset - 0x30)
        default: break
        }
    }

    private mutating func setStatus(_ new: DeviceStatus) -> Action {
        if new.isEmpty {
            guard !status.isEmpty else {
                finishReset()
                return .none
            }
            isResetting = true
            return .reset
        }
        var next = new.subtracting(.needsReset)
        guard status.mayBecome(next) else { return .none }
        if next.contains(.featuresOK), !status.contains(.featuresOK) {
            // Refused features show as FEATURES_OK reading back clear.
            if !offered.isSuperset(of: accepted) || !accepted.contains(.version1) { next.remove(.featuresOK) }
        }
        let starts = next.contains(.driverOK) && !status.contains(.driverOK)
        status = next
        return starts ? .activate : .none
    }

    /// All registers as after power on.
    package mutating func finishReset() {
        self = VirtIOCommonConfiguration(offered: offered, queueSizes: maximumSizes, vectorCount: vectorCount)
    }

    // MARK: saved state

    package func save(into writer: inout StateWriter) {
        writer.write(status.rawValue)
        writer.write(accepted.rawValue)
        writer.write(configurationVector)
        writer.write(deviceFeatureSelect)
        writer.write(driverFeatureSelect)
        writer.write(queueSelect)
        writer.write(UInt16(queues.count))
        for queue in queues {
            writer.write(queue.size)
            writer.write(queue.vector)
            writer.write(queue.isEnabled)
            writer.write(queue.descriptorTable)
            writer.write(queue.availableRing)
            writer.write(queue.usedRing)
        }
    }

    /// Reads what `save` wrote. A state with features or queues this device does not have is refused.
    package mutating func restore(from reader: inout StateReader) throws(DeviceStateError) {
        finishReset()
        status = DeviceStatus(rawValue: try reader.read())
        accepted = VirtIOFeatures(rawValue: try reader.read())
        if status.contains(.featuresOK), !offered.isSuperset(of: accepted) {
            let missing = String(accepted.subtracting(offered).rawValue, radix: 16)
            throw DeviceStateError(section: reader.section, reason: "uses features 0x\(missing) not offered here")
        }
        configurationVector = valid(vector: try reader.read())
        deviceFeatureSelect = try reader.read()
        driverFeatureSelect = try reader.read()
        queueSelect = try reader.read()
        let count = Int(try reader.read(UInt16.self))
        guard count == queues.count else {
            throw DeviceStateError(section: reader.section, reason: "has \(count) queues, this device \(queues.count)")
        }
        for index in queues.indices {
            let size = try reader.read(UInt16.self)
            guard size > 0, size <= maximumSizes[index], size & (size - 1) == 0 else {
                throw DeviceStateError(section: reader.section, reason: "queue \(index) has size \(size)")
            }
            queues[index].size = size
            queues[index].vector = valid(vector: try reader.read())
            queues[index].isEnabled = try reader.readBool()
            queues[index].descriptorTable = try reader.read()
            queues[index].availableRing = try reader.read()
            queues[index].usedRing = try reader.read()
        }
    }
}
