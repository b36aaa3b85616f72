// An NVM Express 1.4 controller with one namespace, 1b36:0010: registers, doorbells, queues and interrupts. Admin commands are in
// NVMeController+Admin.swift, I/O commands in NVMeController+IO.swift.
//
//     let endpoint = try NVMeController.makeEndpoint(name: "nvme@00:05.0", queueCount: vcpus, line: line, message: machine)
//     let nvme = try NVMeController(endpoint, memory: memory, image: image, identity: identity, queueCount: vcpus, loop: loop)
//
// Path of a command: the driver rings a submission doorbell on a vCPU thread; `serve` takes entries while there is a free slot and
// room in the completion queue, and starts the image's work; the event loop calls `complete`, which posts and interrupts.
//
// Lock order: submission 0 -> submission n -> completion -> pin. `registers` is a leaf: nothing is locked under it.
package import DiskImage
package import GuestMemory
package import HostSystem
package import MachineCore
package import PCI
import Synchronization

package final class NVMeController: BusDevice, SavableDevice {
    struct Slot: Sendable {
        var identifier: UInt16 = 0
        var work = DiskWork.flush
    }
    struct Submission: Sendable {
        /// Nil where the driver has made none.
        var ring: NVMeSubmissionQueue?
        var transfers: TransferQueue
        var slots: [Slot]
        var free: [Int]
        /// The command that waits for this queue to be deleted.
        var deletion: UInt16?
        var isPaused = false
    }
    struct Registers: Sendable {
        var configuration: UInt32 = 0
        var status: UInt32 = 0
        var adminAttributes: UInt32 = 0
        var adminSubmissionBase: UInt64 = 0
        var adminCompletionBase: UInt64 = 0
        var isResetting = false
        var isWriteCacheEnabled = true
        /// Features without effect on an image, by identifier, for Get Features.
        var features = [UInt32](repeating: 0, count: 16)
        /// Asynchronous Event Requests that wait for something to tell.
        var events: [UInt16] = []
        /// The namespace changed and the host does not know: told when it asks for events, until it reads the log.
        var hasChanged = false
        /// An event told it already.
        var isChangeTold = false
    }
    private struct Pin: Sendable {
        var pending: UInt64 = 0
        /// INTMS.
        var mask: UInt32 = 0
    }
    final class Queue: Sendable {
        let submission: Mutex<Submission>
        let completion = Mutex<NVMeCompletionQueue?>(nil)
        let completionDescriptor: CInt

        init(image: any BlockBackend, depth: Int, tags: Int, memory: GuestMemory, counters: DeviceCounters)
            throws(HostError)
        {
            let transfers = try TransferQueue(backend: image, depth: depth, memory: memory, counters: counters)
            completionDescriptor = transfers.completionDescriptor
            submission = Mutex(
                Submission(
                    transfers: transfers, slots: Array(repeating: Slot(), count: depth),
                    free: Array((0..<tags).reversed())))
        }
    }

    package static let queueLimit = 63
    static let eventRequestLimit = 4
    private static let queueDepth = 256
    static let adminDepth = 4
    /// The flush that a shutdown makes, beyond the slots of commands.
    static let shutdownTag = adminDepth

    package let endpoint: PCIEndpoint
    package let counters = DeviceCounters()
    package var stateName: String { endpoint.stateName + "/nvme" }
    let memory: GuestMemory
    let image: any BlockBackend
    let identity: NVMeIdentity
    /// 0 is the admin queue.
    let queues: [Queue]
    let registers = Mutex(Registers())
    private let pin = Mutex(Pin())
    private let loop: EventLoop
    private let isBusMaster = Atomic<Bool>(false)
    private let usesVectors = Atomic<Bool>(false)

    /// The configuration side: BAR 0, and MSI-X in BAR 4 with a vector for each queue and the admin queue's.
    package static func makeEndpoint(
        name: String, queueCount: Int, line: (any InterruptLine)?, message: (any MessageInterruptFactory)?
    ) throws(AcceleratorError) -> PCIEndpoint {
        var space = PCIConfigurationSpace(
            PCIIdentity(vendor: 0x1B36, device: 0x0010, revision: 2, classCode: 0x01_08_02))
        space.addBAR(BaseAddressRegister(index: 0, kind: .memory64, byteCount: 16 << 10))
        guard let message else { return try PCIEndpoint(space, name: name, line: line) }
        let vectors = try MSIXInterrupts(vectorCount: min(max(1, queueCount), queueLimit) + 1, factory: message)
        return try PCIEndpoint(space, name: name, line: line, msix: (vectors, 4))
    }

    /// - Parameter queueCount: I/O queues, 1-63; one per vCPU is what guests use.
    package init(
        _ endpoint: PCIEndpoint, memory: GuestMemory, image: any BlockBackend, identity: DriveIdentity, queueCount: Int,
        loop: EventLoop
    ) throws(HostError) {
        self.endpoint = endpoint
        self.memory = memory
        self.image = image
        self.loop = loop
        self.identity = NVMeIdentity(identity: identity, isReadOnly: image.isReadOnly)
        var queues = [
            try Queue(
                image: image, depth: Self.adminDepth + 1, tags: Self.adminDepth, memory: memory, counters: counters)
        ]
        for _ in 0..<min(max(1, queueCount), Self.queueLimit) {
            queues.append(
                try Queue(
                    image: image, depth: Self.queueDepth, tags: Self.queueDepth, memory: memory, counters: counters))
        }
        self.queues = queues
        for (index, queue) in queues.enumerated() {
            try loop.add(queue.completionDescriptor, for: .readable) { [weak self] _ in self?.complete(index) }
        }
        endpoint.setWindow(self, forBAR: 0)
        endpoint.onReset { [weak self] in self?.machineReset() }
        endpoint.onCommand { [weak self] command in
            self?.setBusMaster(command & PCIConfigurationSpace.Command.busMaster != 0)
        }
        endpoint.onWrite { [weak self] _ in self?.followVectors() }
    }

    deinit {
        for queue in queues { loop.remove(queue.completionDescriptor) }
    }

    /// Blocks of 512 bytes.
    var blockCount: UInt64 { image.byteCount / 512 }
    var ioQueueCount: Int { queues.count - 1 }

    // MARK: Registers

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard offset < NVMeRegister.firstDoorbell else { return 0 }
        let base = offset & ~7, shift = 8 * (offset & 7)
        guard shift + UInt64(8 * width.byteCount) <= 64 else { return width.allOnes }
        return readPair(base) >> shift & width.allOnes
    }

    /// The eight bytes at a multiple of eight.
    private func readPair(_ offset: UInt64) -> UInt64 {
        if offset == 0x18 { finishReset() }
        let mask = UInt64(pin.withLock { $0.mask })
        return registers.withLock { registers in
            switch offset {
            case 0x00: NVMeRegister.capabilityBits
            case 0x08: UInt64(NVMeRegister.versionNumber) | mask << 32
            case 0x10: mask | UInt64(registers.configuration) << 32
            case 0x18: UInt64(registers.status) << 32
            case 0x20: UInt64(registers.adminAttributes) << 32
            case 0x28: registers.adminSubmissionBase
            case 0x30: registers.adminCompletionBase
            default: 0
            }
        }
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        if offset >= NVMeRegister.firstDoorbell {
            guard offset & 3 == 0, width.byteCount >= 2 else { return }
            return ring(Int((offset - NVMeRegister.firstDoorbell) / 4), UInt32(truncatingIfNeeded: value))
        }
        guard offset & 3 == 0, width.byteCount >= 4 else { return }
        writeWord(offset, UInt32(truncatingIfNeeded: value))
        if width == .quadWord { writeWord(offset + 4, UInt32(truncatingIfNeeded: value >> 32)) }
    }

    private func writeWord(_ offset: UInt64, _ value: UInt32) {
        let low = UInt64(value & ~0xFFF), high = UInt64(value) << 32
        switch offset {
        case NVMeRegister.interruptMaskSet: pin.withLock { drive(&$0) { $0.mask |= value } }
        case NVMeRegister.interruptMaskClear: pin.withLock { drive(&$0) { $0.mask &= ~value } }
        case NVMeRegister.configuration: writeConfiguration(value)
        case NVMeRegister.adminQueueAttributes: registers.withLock { $0.adminAttributes = value & 0x0FFF_0FFF }
        case NVMeRegister.adminSubmissionBase:
            registers.withLock { $0.adminSubmissionBase = $0.adminSubmissionBase & ~0xFFFF_FFFF | low }
        case NVMeRegister.adminSubmissionBase + 4:
            registers.withLock { $0.adminSubmissionBase = $0.adminSubmissionBase & 0xFFFF_FFFF | high }
        case NVMeRegister.adminCompletionBase:
            registers.withLock { $0.adminCompletionBase = $0.adminCompletionBase & ~0xFFFF_FFFF | low }
        case NVMeRegister.adminCompletionBase + 4:
            registers.withLock { $0.adminCompletionBase = $0.adminCompletionBase & 0xFFFF_FFFF | high }
        default: break
        }
    }

    private func writeConfiguration(_ value: UInt32) {
        let (before, after) = registers.withLock { registers -> (UInt32, UInt32) in
            let before = registers.configuration
            registers.configuration = value & NVMeRegister.Configuration.writable
            return (before, registers.configuration)
        }
        let wasEnabled = before & NVMeRegister.Configuration.enable != 0,
            isEnabled = after & NVMeRegister.Configuration.enable != 0
        if wasEnabled, !isEnabled { startReset() }
        if NVMeRegister.Configuration.shutdown(after) != 0, NVMeRegister.Configuration.shutdown(before) == 0 {
            shutDown()
        }
        if isEnabled, !wasEnabled { enable() }
    }

    /// CC.EN was set: the admin queues begin, or the controller says that it cannot (§7.6.1).
    private func enable() {
        let settings = registers.withLock { $0.isResetting ? nil : $0 }
        // Still on its way down: `finishReset` comes back here.
        guard let settings else { return }
        let submissionSize = settings.adminAttributes & 0xFFF, completionSize = settings.adminAttributes >> 16 & 0xFFF
        // Pages of 4 KiB, NVM command set, round robin, queues of two entries at least.
        guard settings.configuration & 0x3FF0 == 0, submissionSize > 0, completionSize > 0 else {
            return registers.withLock { $0.status |= NVMeRegister.Status.fatal }
        }
        queues[0].completion.withLock {
            $0 = NVMeCompletionQueue(
                base: settings.adminCompletionBase, size: completionSize + 1, vector: 0, interruptsEnabled: true)
        }
        queues[0].submission.withLock {
            $0.ring = NVMeSubmissionQueue(
                base: settings.adminSubmissionBase, size: submissionSize + 1, completionQueue: 0)
        }
        registers.withLock { $0.status = NVMeRegister.Status.ready }
    }

    // MARK: Doorbells

    /// Doorbell `number`: a submission queue's tail where even, a completion queue's head where odd (§3.1.24).
    private func ring(_ number: Int, _ value: UInt32) {
        let index = number / 2
        guard queues.indices.contains(index) else { return }
        if number % 2 == 0 {
            guard queues[index].submission.withLock({ $0.ring?.setTail(value & 0xFFFF) ?? false }) else { return }
            serve(index)
        } else {
            let isEmpty = queues[index].completion.withLock { queue -> Bool? in
                guard queue?.setHead(value & 0xFFFF) == true else { return nil }
                return queue?.pending == 0
            }
            guard let isEmpty else { return }
            if isEmpty { pin.withLock { drive(&$0) { $0.pending &= ~(1 << UInt64(index)) } } }
            // There is room again: queues that complete here may have been left waiting.
            for other in queues.indices where usesCompletionQueue(other, index) { serve(other) }
        }
    }

    func usesCompletionQueue(_ index: Int, _ completion: Int) -> Bool {
        queues[index].submission.withLock {
            $0.ring.map { Int($0.completionQueue) == completion && !$0.isEmpty } ?? false
        }
    }

    /// Takes what is in submission queue `index`.
    private func serve(_ index: Int) {
        let completion = queues[index].submission.withLock { submission in
            take(index, &submission)
            return submission.ring?.completionQueue
        }
        if let completion { announce(Int(completion)) }
    }

    private func take(_ index: Int, _ submission: inout Submission) {
        guard !submission.isPaused, submission.deletion == nil, isBusMaster.load(ordering: .acquiring) else { return }
        // One turn of the ring: a driver that refills it while it is read waits for its next doorbell.
        var budget = NVMeRegister.queueEntryLimit * 4
        while let ring = submission.ring, !ring.isEmpty, let tag = submission.free.last, budget > 0 {
            budget -= 1
            guard queues[Int(ring.completionQueue)].completion.withLock({ $0?.reserve() ?? false }) else { break }
            guard let command = submission.ring?.pop(memory: memory) else {
                // Entries that are not in RAM: nothing names a command that could be answered.
                queues[Int(ring.completionQueue)].completion.withLock { $0?.giveBack() }
                registers.withLock { $0.status |= NVMeRegister.Status.fatal }
                break
            }
            submission.slots[tag] = Slot(identifier: command.identifier)
            let outcome = index == 0 ? beginAdmin(command, tag, &submission) : beginIO(command, tag, &submission)
            switch outcome {
            case .started: submission.free.removeLast()
            case .deferred: break
            case .kept: queues[Int(ring.completionQueue)].completion.withLock { $0?.giveBack() }
            case .ended(let status, let result):
                if status != .success { counters.countError() }
                post(index, submission, command.identifier, status, result)
            }
        }
        if index == 0 { tellChange(&submission) }
        submission.transfers.commit()
    }

    /// What a command came to when it was taken.
    enum Outcome {
        case ended(NVMeStatus, UInt32)
        /// The slot is at work.
        case started
        /// It is answered later, by `finishDeletion`; its room in the completion queue stays reserved.
        case deferred
        /// It is not answered as long as nothing happens, and takes no room.
        case kept

        static func ended(_ status: NVMeStatus) -> Outcome { .ended(status, 0) }
    }

    /// Starts `work` in slot `tag`.
    func start(_ work: DiskWork, _ tag: Int, _ submission: inout Submission) -> Outcome {
        submission.slots[tag].work = work
        let errno = submission.transfers.start(work, tag: tag)
        if errno == 0 { return .started }
        return .ended(errno == TransferQueue.finished ? .success : status(of: work, errno: errno))
    }

    private func status(of work: DiskWork, errno: Int32) -> NVMeStatus {
        guard errno != 0 else { return .success }
        switch work {
        case .read: return .unrecoveredReadError
        case .write, .writeZeroes: return .writeFault
        case .flush, .discard: return .internalError
        }
    }

    /// Posts the end of a command of queue `index`, whose lock is held.
    private func post(
        _ index: Int, _ submission: borrowing Submission, _ identifier: UInt16, _ status: NVMeStatus, _ result: UInt32
    ) {
        guard let ring = submission.ring else { return }
        queues[Int(ring.completionQueue)].completion.withLock {
            $0?.post(
                identifier: identifier, status: status, result: result, queue: UInt16(index),
                head: UInt16(truncatingIfNeeded: ring.head),
                memory: memory)
        }
    }

    /// The image finished requests of queue `index`: on the event loop.
    private func complete(_ index: Int) {
        var hasShutDown = false
        let (completion, deletion) = queues[index].submission.withLock { submission -> (UInt16?, UInt16?) in
            var ended: [(Int, Int32)] = []
            submission.transfers.reap { _, tag, errno in ended.append((tag, errno)) }
            for (tag, errno) in ended {
                if index == 0, tag == Self.shutdownTag {
                    hasShutDown = true
                    continue
                }
                let slot = submission.slots[tag]
                submission.free.append(tag)
                post(index, submission, slot.identifier, status(of: slot.work, errno: errno), 0)
            }
            take(index, &submission)
            let completion = submission.ring?.completionQueue
            guard let deletion = submission.deletion, submission.transfers.busyCount == 0 else {
                return (completion, nil)
            }
            submission.deletion = nil
            submission.ring = nil
            return (completion, deletion)
        }
        if hasShutDown { noteShutdown() }
        if let completion { announce(Int(completion)) }
        if let deletion { finishDeletion(deletion) }
        finishReset()
    }

    /// The submission queue is gone: the command that asked for it ends. Its room in the queue was kept.
    private func finishDeletion(_ identifier: UInt16) {
        queues[0].submission.withLock { post(0, $0, identifier, .success, 0) }
        announce(0)
    }

    /// The image was grown: a host that wants such notices (§5.21.1.11) is told.
    package func capacityChanged() {
        registers.withLock { registers in
            registers.hasChanged = true
            registers.isChangeTold = false
        }
        queues[0].submission.withLock { tellChange(&$0) }
        announce(0)
    }

    /// Answers an Asynchronous Event Request with Namespace Attribute Changed, where there is one and something to tell. The admin
    /// queue's lock is held.
    func tellChange(_ submission: inout Submission) {
        guard submission.ring != nil, !submission.isPaused,
            registers.withLock({ $0.hasChanged && !$0.isChangeTold && !$0.events.isEmpty }),
            queues[0].completion.withLock({ $0?.reserve() ?? false })
        else { return }
        let identifier = registers.withLock { registers -> UInt16? in
            let isWanted = registers.features[0x0B] & 1 << 8 != 0
            guard isWanted, registers.hasChanged, !registers.isChangeTold, !registers.events.isEmpty else { return nil }
            registers.isChangeTold = true
            return registers.events.removeFirst()
        }
        // A notice (2), of kind 0, to be cleared by reading log page 04h.
        if let identifier {
            post(0, submission, identifier, .success, 0x04_00_02)
        } else {
            queues[0].completion.withLock { $0?.giveBack() }
        }
    }

    // MARK: Interrupts

    /// Interrupts for completion queue `index` where it has entries.
    private func announce(_ index: Int) {
        let vector = queues[index].completion.withLock { queue -> Int? in
            guard let queue, queue.interruptsEnabled, queue.pending > 0 else { return nil }
            return Int(queue.vector)
        }
        guard let vector else { return }
        if usesVectors.load(ordering: .acquiring) {
            endpoint.msix?.trigger(vector)
        } else {
            pin.withLock { drive(&$0) { $0.pending |= 1 << UInt64(index) } }
        }
    }

    /// INTA is high while a queue has entries and vector 0 is not masked.
    private func drive(_ pin: inout Pin, _ change: (inout Pin) -> Void) {
        change(&pin)
        endpoint.setLevel(pin.pending != 0 && pin.mask & 1 == 0)
    }

    private func followVectors() {
        usesVectors.store(endpoint.msix?.isEnabled ?? false, ordering: .releasing)
    }

    private func setBusMaster(_ isOn: Bool) {
        let wasOn = isBusMaster.exchange(isOn, ordering: .acquiringAndReleasing)
        if isOn, !wasOn { for index in queues.indices { serve(index) } }
    }

    // MARK: Shutdown and reset

    /// CC.SHN: what the image holds is durable before CSTS says that the shutdown is complete (§7.6.2).
    private func shutDown() {
        registers.withLock {
            $0.status = $0.status & ~NVMeRegister.Status.shutdownMask | NVMeRegister.Status.shutdownOccurring
        }
        let errno = queues[0].submission.withLock { submission -> Int32 in
            guard !submission.transfers.isBusy(Self.shutdownTag) else { return 0 }
            let errno = submission.transfers.start(.flush, tag: Self.shutdownTag)
            submission.transfers.commit()
            return errno
        }
        if errno != 0 { noteShutdown() }
    }

    private func noteShutdown() {
        registers.withLock {
            $0.status = $0.status & ~NVMeRegister.Status.shutdownMask | NVMeRegister.Status.shutdownComplete
        }
    }

    /// CC.EN was cleared: the queues are gone at once, CSTS.RDY when nothing is in flight any more.
    private func startReset() {
        registers.withLock { $0.isResetting = true }
        for queue in queues {
            queue.submission.withLock { submission in
                submission.ring = nil
                submission.deletion = nil
            }
            queue.completion.withLock { $0 = nil }
        }
        pin.withLock { drive(&$0) { $0 = Pin() } }
        finishReset()
    }

    private func finishReset() {
        guard registers.withLock({ $0.isResetting }), isIdle else { return }
        let isEnabled = registers.withLock { registers -> Bool in
            // Another thread may have come first.
            guard registers.isResetting else { return false }
            registers.isResetting = false
            registers.status = 0
            registers.isWriteCacheEnabled = true
            registers.features = [UInt32](repeating: 0, count: 16)
            registers.events = []
            registers.hasChanged = false
            registers.isChangeTold = false
            return registers.configuration & NVMeRegister.Configuration.enable != 0
        }
        if isEnabled { enable() }
    }

    private func machineReset() {
        isBusMaster.store(false, ordering: .releasing)
        usesVectors.store(false, ordering: .releasing)
        registers.withLock { $0.configuration = 0 }
        startReset()
        _ = waitUntilIdle { isIdle }
        finishReset()
        registers.withLock { $0 = Registers() }
    }

    // MARK: Life

    private var isIdle: Bool { queues.allSatisfy { $0.submission.withLock { $0.transfers.busyCount == 0 } } }

    /// Takes no more commands and waits for those in flight. False where one did not end in 30 seconds. Not on the loop's thread.
    package func pause() -> Bool {
        for queue in queues { queue.submission.withLock { $0.isPaused = true } }
        return waitUntilIdle { isIdle }
    }

    /// Goes on after `pause`, or after `restoreState`.
    package func resume() {
        isBusMaster.store(endpoint.isBusMaster, ordering: .releasing)
        followVectors()
        for queue in queues { queue.submission.withLock { $0.isPaused = false } }
        for index in queues.indices { serve(index) }
    }

    /// A completion queue was deleted with entries in it.
    func dropPin(_ index: Int) { pin.withLock { drive(&$0) { $0.pending &= ~(1 << UInt64(index)) } } }

    func restorePin(pending: UInt64, mask: UInt32) {
        pin.withLock { $0 = Pin(pending: pending, mask: mask) }
    }
    var savedPin: (pending: UInt64, mask: UInt32) { pin.withLock { ($0.pending, $0.mask) } }
}
