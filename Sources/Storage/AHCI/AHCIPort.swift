// One port of an AHCI adapter and the drive on it (AHCI 1.3.1 §3.3, §5): registers, command list, FISes. A value under the port's
// lock.
//
// Path of a command: the driver writes PxCI on a vCPU thread; `serve` reads the header, the command FIS and the PRD table, each
// once, and starts the image's work; the event loop calls `complete`, which writes the FIS and the interrupt bits.
//
//     idle --PxCI--> active --image done--> D2H, PIO Setup or Set Device Bits FIS --> idle
//       active --PxCMD.ST = 0, COMRESET, HBA reset, error--> draining --image done--> idle: nothing is shown to the guest, but
//       CR (or BSY, or GHC.HR) stays set until no DMA can come any more
import DiskImage
import Glibc
import GuestMemory
import MachineCore

struct AHCIPort: Sendable {
    typealias Register = AHCIPortRegister
    typealias Interrupt = AHCIPortRegister.Interrupt
    typealias Command = AHCIPortRegister.Command

    struct Slot: Sendable {
        var file = TaskFile()
        var operation = ATAOperation.done
        var packet: PacketWork?
        var isActive = false
        /// Bytes moved when it succeeds: PRDBC.
        var byteCount = 0
        /// The driver went on without it.
        var isAbandoned = false
    }
    struct PacketWork: Sendable {
        var work: DiskWork
    }
    /// The drive and how to reach its image.
    struct Drive: Sendable {
        var device: ATADevice
        var unit: OpticalUnit?
        var transfers: TransferQueue
        var backend: any BlockBackend
    }

    static let slotCount = 32

    let memory: GuestMemory
    var drive: Drive?
    var commandListBase: UInt64 = 0
    var fisBase: UInt64 = 0
    var interruptEnable: UInt32 = 0
    var command: UInt32 = 0
    var sataControl: UInt32 = 0
    var sataError: UInt32 = 0
    var sataActive: UInt32 = 0
    var commandIssue: UInt32 = 0
    var signature: UInt32 = 0xFFFF_FFFF
    /// The registers last shown by the device.
    var shown = TaskFile()
    var slots = [Slot](repeating: Slot(), count: slotCount)
    var nextSlot = 0
    /// A D2H FIS with the signature waits for FRE (§10.1.2).
    var hasPendingSignature = false
    var isSoftReset = false
    /// After an error nothing is fetched until ST is cleared (§6.2.2).
    var isHalted = false
    var isResetPending = false
    var isPaused = false
    /// The function may reach guest memory.
    var isBusMaster = false
    /// Set by everything that sets a bit in `status`; the controller takes it and interrupts.
    var hasNews = false
    var latchedStatus: UInt32 = 0

    init(memory: GuestMemory, drive: Drive?) {
        self.memory = memory
        self.drive = drive
        reset()
    }

    var isIdle: Bool { drive?.transfers.busyCount ?? 0 == 0 }
    /// PxIS, with the bits that only show PxSERR.
    var interruptStatus: UInt32 {
        latchedStatus | (sataError & Register.exchanged != 0 ? Interrupt.portConnectChange : 0)
    }
    /// The port asks for an interrupt.
    var isInterrupting: Bool { interruptStatus & interruptEnable != 0 }

    // MARK: Registers

    func read(_ register: AHCIPortRegister) -> UInt32 {
        switch register {
        case .commandListBase: return UInt32(truncatingIfNeeded: commandListBase)
        case .commandListBaseUpper: return UInt32(truncatingIfNeeded: commandListBase >> 32)
        case .fisBase: return UInt32(truncatingIfNeeded: fisBase)
        case .fisBaseUpper: return UInt32(truncatingIfNeeded: fisBase >> 32)
        case .interruptStatus: return interruptStatus
        case .interruptEnable: return interruptEnable
        case .command:
            var value = command | Command.spinUp | Command.powerOn
            if command & Command.fisReceiveEnable != 0 { value |= Command.fisReceiveRunning }
            // With ST cleared, CR tells when no DMA can come any more.
            if command & Command.start != 0 || !isIdle { value |= Command.listRunning }
            if let slot = slots.firstIndex(where: \.isActive) { value |= UInt32(slot) << 8 }
            return value
        case .taskFileData: return UInt32(shown.status) | UInt32(shown.error) << 8
        case .signature: return signature
        case .sataStatus:
            return drive == nil ? 0 : sataControl & 0x0F == 0 ? 0x123 : sataControl & 0x0F == 4 ? 0x004 : 0x001
        case .sataControl: return sataControl
        case .sataError: return sataError
        case .sataActive: return sataActive
        case .commandIssue: return commandIssue
        }
    }

    mutating func write(_ register: AHCIPortRegister, _ value: UInt32) {
        switch register {
        case .commandListBase: commandListBase = commandListBase & ~0xFFFF_FFFF | UInt64(value & ~0x3FF)
        case .commandListBaseUpper: commandListBase = commandListBase & 0xFFFF_FFFF | UInt64(value) << 32
        case .fisBase: fisBase = fisBase & ~0xFFFF_FFFF | UInt64(value & ~0xFF)
        case .fisBaseUpper: fisBase = fisBase & 0xFFFF_FFFF | UInt64(value) << 32
        case .interruptStatus: latchedStatus &= ~value
        case .interruptEnable:
            interruptEnable = value & Interrupt.known
            hasNews = true
        case .command: writeCommand(value)
        case .sataControl: writeControl(value)
        case .sataError: sataError &= ~value
        // Only ones count (§3.3.13, §3.3.14), and only while the list runs.
        case .sataActive: if command & Command.start != 0 { sataActive |= value }
        case .commandIssue: if command & Command.start != 0 { commandIssue |= value }
        case .taskFileData, .signature, .sataStatus: break
        }
    }

    mutating func writeCommand(_ value: UInt32) {
        let before = command
        command = value & Command.writable
        if value & Command.listOverride != 0, command & Command.start == 0 {
            shown.status &= ~(TaskFile.Status.busy | TaskFile.Status.dataRequest)
        }
        if before & Command.start != 0, command & Command.start == 0 { stopList() }
        if command & Command.fisReceiveEnable != 0 { deliverSignature() }
    }

    /// ST was cleared: the issued commands are gone; those in flight end unseen.
    mutating func stopList() {
        commandIssue = 0
        sataActive = 0
        nextSlot = 0
        isHalted = false
        for index in slots.indices where slots[index].isActive { slots[index].isAbandoned = true }
    }

    mutating func writeControl(_ value: UInt32) {
        let before = sataControl & 0x0F
        sataControl = value & 0xFFF
        let detection = sataControl & 0x0F
        guard drive != nil, before != detection else { return }
        if detection == 1 || detection == 4 {
            // COMRESET is sent, or the interface is off.
            stopList()
            shown = TaskFile()
            shown.status = 0x7F
            signature = 0xFFFF_FFFF
            hasPendingSignature = false
            isSoftReset = false
        } else if detection == 0 {
            isResetPending = true
            finishReset()
        }
    }

    /// The link comes up after COMRESET, once nothing is in flight.
    mutating func finishReset() {
        guard isResetPending, isIdle else { return }
        isResetPending = false
        drive?.device.reset()
        drive?.unit?.reset()
        sataError |= Register.exchanged
        hasNews = true
        hasPendingSignature = true
        deliverSignature()
    }

    /// Power on and HBA reset (§10.4.3). Only when idle.
    mutating func reset() {
        (commandListBase, fisBase) = (0, 0)
        (interruptEnable, latchedStatus, command, sataControl, sataError, sataActive, commandIssue) = (
            0, 0, 0, 0, 0, 0, 0
        )
        signature = 0xFFFF_FFFF
        shown = TaskFile()
        shown.status = 0x7F
        for index in slots.indices { slots[index] = Slot() }
        nextSlot = 0
        (isSoftReset, isHalted, isResetPending) = (false, false, false)
        drive?.device.reset()
        drive?.unit?.reset()
        hasPendingSignature = drive != nil
        hasNews = true
    }

    // MARK: FISes

    mutating func deliverSignature() {
        guard hasPendingSignature, command & Command.fisReceiveEnable != 0, let drive else { return }
        hasPendingSignature = false
        shown = TaskFile()
        shown.setSignature(isPacketDevice: drive.device.kind == .packetDevice)
        signature = shown.signature
        store(shown.registerFIS(type: AHCIFIS.deviceToHost, flags: 0), at: AHCIFIS.deviceToHostOffset)
    }

    func store(_ bytes: [UInt8], at offset: UInt64) {
        guard command & Command.fisReceiveEnable != 0, let address = GuestAddress(fisBase).advanced(by: offset) else {
            return
        }
        // A FIS area that is not RAM loses its FISes: the registers show the same.
        try? memory.write(bytes, at: address)
    }

    mutating func raise(_ bits: UInt32) {
        latchedStatus |= bits
        hasNews = true
    }

    /// Ends slot `index` as its task file says.
    mutating func show(_ index: Int) {
        let slot = slots[index]
        slots[index].isActive = false
        guard !slot.isAbandoned else { return }
        let bit = UInt32(1) << UInt32(index)
        let hasFailed = slot.file.status & TaskFile.Status.error != 0
        var bits: UInt32
        if slot.file.command == ATACommand.readFPDMAQueued || slot.file.command == ATACommand.writeFPDMAQueued {
            shown.status = slot.file.status
            shown.error = slot.file.error
            let active = hasFailed ? 0 : bit
            let bytes: [UInt8] = [AHCIFIS.setDeviceBits, AHCIFIS.interrupt, slot.file.status & 0x77, slot.file.error]
            store(
                bytes + (0..<4).map { UInt8(truncatingIfNeeded: active >> UInt32(8 * $0)) },
                at: AHCIFIS.setDeviceBitsOffset)
            sataActive &= ~active
            bits = Interrupt.setDeviceBits
        } else {
            storeByteCount(index, slot.byteCount)
            shown = slot.file
            if case .dataIn(_, .programmed) = slot.operation, !hasFailed {
                storePIOSetup(slot)
                bits = Interrupt.pioSetup
            } else if case .transfer(.read, .programmed) = slot.operation, !hasFailed {
                storePIOSetup(slot)
                bits = Interrupt.pioSetup
            } else {
                store(
                    slot.file.registerFIS(type: AHCIFIS.deviceToHost, flags: AHCIFIS.interrupt),
                    at: AHCIFIS.deviceToHostOffset)
                bits = Interrupt.deviceToHost
            }
            // §6.2.2.1: the bit of a command that failed stays, so that software sees which it was.
            if !hasFailed { commandIssue &= ~bit }
        }
        if hasFailed {
            bits |= Interrupt.taskFileError
            halt()
        }
        raise(bits)
    }

    /// The last PIO Setup FIS of a transfer to the host: the status before it has DRQ, E_Status is the end's.
    func storePIOSetup(_ slot: Slot, flags: UInt8 = AHCIFIS.interrupt | AHCIFIS.toHost) {
        var before = slot.file
        before.status = TaskFile.Status.idle | TaskFile.Status.dataRequest
        var bytes = before.registerFIS(type: AHCIFIS.pioSetup, flags: flags)
        bytes[15] = slot.file.status
        let count = UInt16(clamping: min(slot.byteCount, 8192))
        bytes[16] = UInt8(truncatingIfNeeded: count)
        bytes[17] = UInt8(truncatingIfNeeded: count >> 8)
        store(bytes, at: AHCIFIS.pioSetupOffset)
    }

    func storeByteCount(_ index: Int, _ count: Int) {
        let offset = UInt64(index) * 32 + AHCICommandHeader.byteCountOffset
        guard let address = GuestAddress(commandListBase).advanced(by: offset) else { return }
        try? memory.store(UInt32(clamping: count), at: address)
    }

    /// The device stops after an error: what else was queued is aborted without a word (SATA 2.6 §13.6.3.2).
    mutating func halt() {
        isHalted = true
        for index in slots.indices where slots[index].isActive { slots[index].isAbandoned = true }
    }

    /// §6.1.2: the host bus did not answer where the driver's structures should be.
    mutating func failHostBus(_ index: Int) {
        slots[index].isActive = false
        halt()
        raise(Interrupt.hostBusFatal)
    }

    // MARK: Commands

    /// Fetches what was issued, as far as the device takes it: several queued commands, or one other.
    mutating func serve() {
        guard isBusMaster, command & Command.start != 0, command & Command.fisReceiveEnable != 0, drive != nil,
            sataControl & 0x0F == 0
        else { return }
        var looked = 0
        while looked < Self.slotCount, commandIssue != 0, !isHalted, !isPaused, !isResetPending {
            // What ST = 0 left in flight ends first.
            if slots.contains(where: { $0.isActive && $0.isAbandoned }) { break }
            let index = nextSlot
            guard commandIssue & 1 << UInt32(index) != 0, !slots[index].isActive else {
                nextSlot = (index + 1) % Self.slotCount
                looked += 1
                continue
            }
            guard begin(index) else { break }
            nextSlot = (index + 1) % Self.slotCount
            looked = 0
        }
        drive?.transfers.commit()
    }

    /// Takes the command in slot `index`. False where it must wait for those at work.
    mutating func begin(_ index: Int) -> Bool {
        var header = AHCICommandHeader(), fis = AHCICommandFIS()
        guard let entry = GuestAddress(commandListBase).advanced(by: UInt64(index) * 32),
            let loaded = try? memory.load(AHCICommandHeader.self, at: entry),
            let loadedFIS = try? memory.load(AHCICommandFIS.self, at: GuestAddress(loaded.tableAddress))
        else {
            failHostBus(index)
            return true
        }
        (header, fis) = (loaded, loadedFIS)
        let file = fis.taskFile
        let isQueued =
            fis.isCommand && (file.command == ATACommand.readFPDMAQueued || file.command == ATACommand.writeFPDMAQueued)
        for slot in slots where slot.isActive {
            guard isQueued, case .transfer(_, .queued) = slot.operation else { return false }
        }
        slots[index] = Slot(file: file, isActive: true)
        guard fis.type == AHCIFIS.hostToDevice, header.fisByteCount >= 20 || !fis.isCommand else {
            slots[index].file.fail(TaskFile.ErrorBits.aborted)
            show(index)
            return true
        }
        guard fis.isCommand else {
            control(index, header, fis.control)
            return true
        }
        if isQueued {
            commandIssue &= ~(1 << UInt32(index))
        } else {
            shown.status = TaskFile.Status.busy | TaskFile.Status.idle
        }
        guard var device = drive?.device else { return true }
        if let backend = drive?.backend, device.kind == .disk {
            device.sectorCount = min(backend.byteCount / 512, 1 << 48)
        }
        let operation = device.begin(&slots[index].file)
        slots[index].operation = operation
        if case .transfer(_, .queued(let tag)) = operation, Int(tag) != index {
            // §5.6.4.1: the tag is the slot's number; the Set Device Bits FIS could not name the command otherwise.
            slots[index].file.fail(TaskFile.ErrorBits.aborted)
            device.noteFailure(slots[index].file, .transfer(.flush, .queued(tag: UInt8(index))))
            slots[index].operation = .done
        }
        drive?.device = device
        carryOut(index, header)
        return true
    }

    /// A FIS without a command carries the control register: SRST set and cleared resets the device (§10.4.1).
    mutating func control(_ index: Int, _ header: AHCICommandHeader, _ value: UInt8) {
        slots[index].isActive = false
        commandIssue &= ~(1 << UInt32(index))
        if value & 0x04 != 0 {
            isSoftReset = true
            if !header.clearsBusy { shown.status |= TaskFile.Status.busy }
        } else if isSoftReset {
            isSoftReset = false
            drive?.device.reset()
            drive?.unit?.reset()
            hasPendingSignature = true
            deliverSignature()
        }
    }

    mutating func carryOut(_ index: Int, _ header: AHCICommandHeader) {
        switch slots[index].operation {
        case .done: show(index)
        case .dataIn(let bytes, _):
            guard let list = gather(index, header, bytes.count) else { return }
            slots[index].byteCount = list.write(bytes, memory: memory)
            slots[index].file.succeed()
            show(index)
        case .transfer(let work, let means): transfer(index, header, work, means)
        case .flush: start(index, .flush)
        case .trim(let byteCount):
            guard let list = gather(index, header, byteCount) else { return }
            slots[index].byteCount = byteCount
            guard list.byteCount == byteCount,
                let ranges = drive?.device.trimRanges(list.bytes(limit: byteCount, memory: memory))
            else {
                slots[index].file.fail(TaskFile.ErrorBits.aborted)
                show(index)
                return
            }
            start(index, .discard(ranges))
        case .packet(let isDMA): packet(index, header, isDMA: isDMA)
        }
    }

    mutating func transfer(_ index: Int, _ header: AHCICommandHeader, _ work: DiskWork, _ means: ATAProtocol) {
        switch work {
        case .read(let offset, let byteCount):
            guard let list = gather(index, header, byteCount) else { return }
            // §6.1.8: the data that does not fit is lost.
            let fitting = min(byteCount, list.byteCount) & ~511
            if fitting < byteCount { raise(Interrupt.overflow) }
            slots[index].byteCount = fitting
            start(index, .read(offset: offset, byteCount: fitting))
        case .write(_, let byteCount, _):
            guard let list = gather(index, header, byteCount) else { return }
            guard list.byteCount >= byteCount else {
                raise(Interrupt.overflow)
                slots[index].file.fail(TaskFile.ErrorBits.aborted)
                drive?.device.noteFailure(slots[index].file, slots[index].operation)
                show(index)
                return
            }
            slots[index].byteCount = byteCount
            start(index, work)
        case .flush, .discard, .writeZeroes: start(index, work)
        }
    }

    /// The regions of the command's PRD table that `byteCount` bytes take, in the slot's list. Nil where one is not RAM: the port
    /// has failed then.
    mutating func gather(_ index: Int, _ header: AHCICommandHeader, _ byteCount: Int) -> ScatterList? {
        let memory = memory
        let isSound = drive?.transfers.prepare(index) { list in
            for number in 0..<header.regionCount where list.byteCount < byteCount {
                guard let address = GuestAddress(header.tableAddress).advanced(by: 0x80 + UInt64(number) * 16),
                    let region = try? memory.load(AHCIRegion.self, at: address),
                    list.append(
                        GuestAddress(region.start), min(region.byteCount, byteCount - list.byteCount), memory: memory)
                else { return false }
            }
            return true
        }
        guard isSound == true, let list = drive?.transfers.list(index) else {
            failHostBus(index)
            return nil
        }
        return list
    }

    mutating func start(_ index: Int, _ work: DiskWork) {
        let errno = drive?.transfers.start(work, tag: index) ?? EIO
        if errno != 0 { end(index, errno: errno == TransferQueue.finished ? 0 : errno) }
    }

    /// The image's part of slot `index` is over.
    mutating func end(_ index: Int, errno: Int32) {
        if let packet = slots[index].packet {
            finishPacket(index, drive?.unit?.end(of: packet.work, errno: errno))
        } else {
            drive?.device.finish(&slots[index].file, slots[index].operation, errno: errno)
        }
        if errno != 0 { slots[index].byteCount = 0 }
        show(index)
    }

    /// The image finished requests: on the event loop.
    mutating func complete() {
        var ended: [(Int, Int32)] = []
        drive?.transfers.reap { _, tag, errno in ended.append((tag, errno)) }
        for (index, errno) in ended where slots.indices.contains(index) { end(index, errno: errno) }
        finishReset()
        serve()
    }
}
