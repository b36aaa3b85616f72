// Commands of the admin queue (NVM Express 1.4 §5). All but a flush of the write cache and the deletion of a busy queue end at once.
import GuestMemory
package import MachineCore
import PCI
import Synchronization

extension NVMeController {
    /// Feature identifiers (§5.21.1).
    private enum Feature {
        static let rangeType: UInt8 = 0x03
        static let temperatureThreshold: UInt8 = 0x04
        static let volatileWriteCache: UInt8 = 0x06
        static let queueCount: UInt8 = 0x07
        static let vectorConfiguration: UInt8 = 0x09
        static let known: ClosedRange<UInt8> = 0x01...0x0B
    }

    /// Takes a command of the admin queue, whose lock is held.
    func beginAdmin(_ command: NVMeCommand, _ tag: Int, _ submission: inout Submission) -> Outcome {
        guard !command.usesUnofferedForm else { return .ended(.invalidField) }
        switch command.operation {
        case NVMeAdmin.identify: return identify(command, tag, &submission)
        case NVMeAdmin.createCompletionQueue: return .ended(createCompletionQueue(command))
        case NVMeAdmin.createSubmissionQueue: return .ended(createSubmissionQueue(command))
        case NVMeAdmin.deleteCompletionQueue: return .ended(deleteCompletionQueue(command))
        case NVMeAdmin.deleteSubmissionQueue: return deleteSubmissionQueue(command)
        case NVMeAdmin.setFeatures: return setFeatures(command, tag, &submission)
        case NVMeAdmin.getFeatures: return getFeatures(command, tag, &submission)
        case NVMeAdmin.getLogPage: return getLogPage(command, tag, &submission)
        // §5.1: the controller may not find the command; bit 0 says that it was not aborted.
        case NVMeAdmin.abort: return .ended(.success, 1)
        case NVMeAdmin.asynchronousEventRequest:
            return registers.withLock { registers in
                guard registers.events.count < Self.eventRequestLimit else { return .ended(.eventRequestLimitExceeded) }
                registers.events.append(command.identifier)
                return .kept
            }
        default: return .ended(.invalidOpcode)
        }
    }

    /// Copies `bytes` out to the command's pages.
    private func answer(_ bytes: [UInt8], _ command: NVMeCommand, _ tag: Int, _ submission: inout Submission) -> Outcome
    {
        let status = gather(command, bytes.count, tag, &submission)
        guard status == .success else { return .ended(status) }
        submission.transfers.list(tag).write(bytes, memory: memory)
        return .ended(.success)
    }

    private func identify(_ command: NVMeCommand, _ tag: Int, _ submission: inout Submission) -> Outcome {
        switch command.word10 & 0xFF {
        case 0x00:
            guard command.namespaceID == 1 else { return .ended(.invalidNamespace) }
            return answer(identity.namespace(blockCount: blockCount), command, tag, &submission)
        case 0x01: return answer(identity.controller, command, tag, &submission)
        case 0x02:
            guard command.namespaceID < 0xFFFF_FFFE else { return .ended(.invalidNamespace) }
            return answer(identity.activeNamespaces(above: command.namespaceID), command, tag, &submission)
        case 0x03:
            guard command.namespaceID == 1 else { return .ended(.invalidNamespace) }
            return answer(identity.namespaceDescriptors, command, tag, &submission)
        default: return .ended(.invalidField)
        }
    }

    // MARK: Queues

    /// An I/O queue's number, or nil.
    private func ioQueue(_ identifier: UInt32) -> Int? {
        let index = Int(identifier & 0xFFFF)
        return index > 0 && index < queues.count ? index : nil
    }

    private func createCompletionQueue(_ command: NVMeCommand) -> NVMeStatus {
        let size = (command.word10 >> 16) + 1, vector = UInt16(command.word11 >> 16)
        guard let index = ioQueue(command.word10), queues[index].completion.withLock({ $0 == nil }) else {
            return .invalidQueueIdentifier
        }
        guard size >= 2, size <= UInt32(NVMeRegister.queueEntryLimit) else { return .invalidQueueSize }
        // §5.3: PRP1 has no offset, the queue is contiguous, and CC.IOCQES was set.
        guard command.region1 % NVMeRegions.pageByteCount == 0 else { return .invalidRegionOffset }
        guard command.word11 & 1 != 0, registers.withLock({ $0.configuration >> 20 & 0xF }) == 4 else {
            return .invalidField
        }
        guard Int(vector) < max(1, endpoint.msix?.vectorCount ?? 1) else { return .invalidInterruptVector }
        queues[index].completion.withLock {
            $0 = NVMeCompletionQueue(
                base: command.region1, size: size, vector: vector, interruptsEnabled: command.word11 & 2 != 0)
        }
        return .success
    }

    private func createSubmissionQueue(_ command: NVMeCommand) -> NVMeStatus {
        let size = (command.word10 >> 16) + 1
        guard let target = ioQueue(command.word11 >> 16), queues[target].completion.withLock({ $0 != nil }) else {
            return .completionQueueInvalid
        }
        guard let index = ioQueue(command.word10),
            queues[index].submission.withLock({ $0.ring == nil && $0.transfers.busyCount == 0 })
        else {
            return .invalidQueueIdentifier
        }
        guard size >= 2, size <= UInt32(NVMeRegister.queueEntryLimit) else { return .invalidQueueSize }
        guard command.region1 % NVMeRegions.pageByteCount == 0 else { return .invalidRegionOffset }
        guard command.word11 & 1 != 0, registers.withLock({ $0.configuration >> 16 & 0xF }) == 6 else {
            return .invalidField
        }
        queues[index].submission.withLock {
            $0.ring = NVMeSubmissionQueue(base: command.region1, size: size, completionQueue: UInt16(target))
        }
        return .success
    }

    private func deleteCompletionQueue(_ command: NVMeCommand) -> NVMeStatus {
        guard let index = ioQueue(command.word10), queues[index].completion.withLock({ $0 != nil }) else {
            return .invalidQueueIdentifier
        }
        for number in 1..<queues.count {
            let isUsed = queues[number].submission.withLock {
                $0.ring.map { Int($0.completionQueue) == index } ?? false
            }
            if isUsed { return .invalidQueueDeletion }
        }
        queues[index].completion.withLock { $0 = nil }
        dropPin(index)
        return .success
    }

    /// Commands in flight end first, with entries of their own (§5.6): the completion then comes from `complete`.
    private func deleteSubmissionQueue(_ command: NVMeCommand) -> Outcome {
        guard let index = ioQueue(command.word10) else { return .ended(.invalidQueueIdentifier) }
        return queues[index].submission.withLock { submission in
            guard submission.ring != nil, submission.deletion == nil else { return .ended(.invalidQueueIdentifier) }
            guard submission.transfers.busyCount > 0 else {
                submission.ring = nil
                return .ended(.success)
            }
            submission.deletion = command.identifier
            return .deferred
        }
    }

    // MARK: Features

    private func setFeatures(_ command: NVMeCommand, _ tag: Int, _ submission: inout Submission) -> Outcome {
        let feature = UInt8(command.word10 & 0xFF), value = command.word11
        guard Feature.known.contains(feature) else { return .ended(.invalidField) }
        guard command.word10 & 1 << 31 == 0 else { return .ended(.featureNotSaveable) }
        switch feature {
        case Feature.rangeType: return .ended(.featureNotChangeable)
        case Feature.volatileWriteCache:
            let isEnabled = value & 1 != 0
            registers.withLock { $0.isWriteCacheEnabled = isEnabled }
            // What the cache holds must not be less durable than the writes that follow.
            return isEnabled ? .ended(.success) : start(.flush, tag, &submission)
        case Feature.queueCount:
            guard value & 0xFFFF != 0xFFFF, value >> 16 != 0xFFFF else { return .ended(.invalidField) }
            return .ended(.success, allocatedQueues)
        case Feature.vectorConfiguration:
            guard Int(value & 0xFFFF) < max(1, endpoint.msix?.vectorCount ?? 1) else { return .ended(.invalidField) }
            return .ended(.success)
        default:
            registers.withLock { $0.features[Int(feature)] = value }
            return .ended(.success)
        }
    }

    /// Both counts less one.
    private var allocatedQueues: UInt32 { UInt32(ioQueueCount - 1) | UInt32(ioQueueCount - 1) << 16 }

    private func getFeatures(_ command: NVMeCommand, _ tag: Int, _ submission: inout Submission) -> Outcome {
        let feature = UInt8(command.word10 & 0xFF)
        guard Feature.known.contains(feature) else { return .ended(.invalidField) }
        if command.word10 >> 8 & 7 == 3 {  // capabilities: changeable, not saveable
            return .ended(.success, feature == Feature.rangeType || feature == Feature.queueCount ? 0 : 4)
        }
        switch feature {
        case Feature.rangeType:
            guard command.namespaceID == 1 else { return .ended(.invalidNamespace) }
            // One range of no type in the list of 64.
            return answer([UInt8](repeating: 0, count: 4096), command, tag, &submission)
        case Feature.temperatureThreshold:
            let value = registers.withLock { $0.features[Int(feature)] }
            return .ended(.success, value != 0 ? value : 343)
        case Feature.volatileWriteCache: return .ended(.success, registers.withLock { $0.isWriteCacheEnabled } ? 1 : 0)
        case Feature.queueCount: return .ended(.success, allocatedQueues)
        // Coalescing is always off for a vector.
        case Feature.vectorConfiguration: return .ended(.success, command.word11 & 0xFFFF | 1 << 16)
        default: return .ended(.success, registers.withLock { $0.features[Int(feature)] })
        }
    }

    private func getLogPage(_ command: NVMeCommand, _ tag: Int, _ submission: inout Submission) -> Outcome {
        let identifier = UInt8(command.word10 & 0xFF)
        let known =
            identifier == 0x04
            ? changedNamespaces(keeps: command.word10 & 1 << 15 != 0)
            : identity.log(identifier, counters: counters.values)
        guard let page = known else { return .ended(.invalidLogPage) }
        // NUMD counts words from 0; LPO, of 64 bits, is where to begin.
        let words = UInt64(command.word10 >> 16) | UInt64(command.word11 & 0xFFFF) << 16
        let offset = UInt64(command.word12) | UInt64(command.word13) << 32
        guard offset & 3 == 0, offset <= UInt64(page.count) else { return .ended(.invalidField) }
        let rest = page.dropFirst(Int(offset))
        let count = Int(min((words + 1) * 4, UInt64(NVMeRegions.pageByteCount)))
        let bytes = Array(rest.prefix(count))
        guard !bytes.isEmpty else { return .ended(.success) }
        return answer(bytes, command, tag, &submission)
    }

    /// Log page 04h, which clears what it tells but for Retain Asynchronous Event.
    private func changedNamespaces(keeps: Bool) -> [UInt8] {
        let hasChanged = registers.withLock { registers in
            defer {
                if !keeps {
                    registers.hasChanged = false
                    registers.isChangeTold = false
                }
            }
            return registers.hasChanged
        }
        return [hasChanged ? 1 : 0] + [UInt8](repeating: 0, count: 4095)
    }

    // MARK: Saved state

    package static var stateVersion: UInt32 { 1 }

    /// Call `pause` first. The endpoint is saved on its own.
    package func saveState(into writer: inout StateWriter) {
        let registers = registers.withLock { $0 }
        for word in [registers.configuration, registers.status, registers.adminAttributes] { writer.write(word) }
        writer.write(registers.adminSubmissionBase)
        writer.write(registers.adminCompletionBase)
        writer.write(registers.isWriteCacheEnabled)
        for feature in registers.features { writer.write(feature) }
        writer.write(UInt8(registers.events.count))
        for event in registers.events { writer.write(event) }
        writer.write(registers.hasChanged)
        writer.write(registers.isChangeTold)
        let pin = savedPin
        writer.write(pin.pending)
        writer.write(pin.mask)
        writer.write(UInt8(truncatingIfNeeded: queues.count))
        for queue in queues {
            let ring = queue.submission.withLock { $0.ring }, completion = queue.completion.withLock { $0 }
            writer.write(ring != nil)
            ring?.save(into: &writer)
            writer.write(completion != nil)
            completion?.save(into: &writer)
        }
    }

    /// On a fresh, paused controller; `resume` goes on where the queues stood.
    package func restoreState(from reader: inout StateReader, version: UInt32) throws(DeviceStateError) {
        var restored = Registers()
        restored.configuration = try reader.read(UInt32.self) & NVMeRegister.Configuration.writable
        restored.status = try reader.read()
        restored.adminAttributes = try reader.read()
        restored.adminSubmissionBase = try reader.read()
        restored.adminCompletionBase = try reader.read()
        restored.isWriteCacheEnabled = try reader.readBool()
        for index in restored.features.indices { restored.features[index] = try reader.read() }
        let eventCount = try reader.read(UInt8.self)
        guard eventCount <= Self.eventRequestLimit else {
            throw DeviceStateError(section: stateName, reason: "has \(eventCount) event requests")
        }
        for _ in 0..<eventCount { restored.events.append(try reader.read()) }
        restored.hasChanged = try reader.readBool()
        restored.isChangeTold = try reader.readBool()
        let pending = try reader.read(UInt64.self), mask = try reader.read(UInt32.self)
        let count = Int(try reader.read(UInt8.self))
        guard count == queues.count else {
            throw DeviceStateError(section: stateName, reason: "has \(count) queues for \(queues.count)")
        }
        var rings: [NVMeSubmissionQueue?] = [], completions: [NVMeCompletionQueue?] = []
        for _ in queues {
            rings.append(try reader.readBool() ? try NVMeSubmissionQueue(from: &reader) : nil)
            completions.append(try reader.readBool() ? try NVMeCompletionQueue(from: &reader) : nil)
        }
        for ring in rings {
            guard let ring else { continue }
            let target = Int(ring.completionQueue)
            guard completions.indices.contains(target), completions[target] != nil else {
                throw DeviceStateError(section: stateName, reason: "has a submission queue without a completion queue")
            }
        }
        for (index, queue) in queues.enumerated() {
            queue.submission.withLock { [rings] in $0.ring = rings[index] }
            queue.completion.withLock { [completions] in $0 = completions[index] }
        }
        registers.withLock { [restored] in $0 = restored }
        restorePin(pending: pending, mask: mask)
    }
}
