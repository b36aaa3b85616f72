// One channel of an IDE controller with its two drives (ATA8-ACS, ATA8-APT §9 programmed I/O; Programming Interface for Bus Master IDE
// Controller, Revision 1.0). A value under the channel's lock.
//
// Path of programmed input: command -> BSY, the image fills the buffer -> DRQ and an interrupt -> the guest reads the data port
// empty -> the next block, or the end. Of DMA: command -> DRQ -> the bus master is started -> image and memory -> an interrupt.
import DiskImage
import Glibc
import GuestMemory
import MachineCore

struct IDEChannel: Sendable {
    struct Drive: Sendable {
        var device: ATADevice
        var unit: OpticalUnit?
        var transfers: TransferQueue
        var backend: any BlockBackend
        var file = TaskFile()
    }
    /// Bus master registers' bits.
    enum BusMaster {
        static let start: UInt8 = 0x01  // command: SSBM
        static let toMemory: UInt8 = 0x08  // command: RWCON
        static let active: UInt8 = 0x01  // status: BMIDEA
        static let error: UInt8 = 0x02
        static let interrupt: UInt8 = 0x04
        static let capable: UInt8 = 0x60  // drives that do DMA: kept for software
    }
    private enum Control {
        static let interruptDisable: UInt8 = 0x02  // nIEN
        static let softReset: UInt8 = 0x04  // SRST
        static let highOrderByte: UInt8 = 0x80  // HOB
    }

    static let bufferByteCount = 64 << 10

    let memory: GuestMemory
    let buffer = BounceBuffer(byteCount: bufferByteCount)
    var drives: [Drive?]
    var selected = 0
    var job = IDEJob()
    /// The drive that the job is of.
    var jobDrive = 0
    /// INTRQ, before nIEN.
    var isInterrupting = false
    var isPaused = false
    /// Reset was asked for while the image was at work.
    var isResetPending = false
    private var control: UInt8 = 0
    private var masterCommand: UInt8 = 0
    private var masterStatus: UInt8 = 0
    private var regionTable: UInt32 = 0

    init(memory: GuestMemory, drives: [Drive?]) {
        self.memory = memory
        self.drives = drives
        reset()
    }

    var isIdle: Bool { drives.allSatisfy { $0?.transfers.busyCount ?? 0 == 0 } }
    /// The level of the channel's interrupt line.
    var line: Bool { isInterrupting && control & Control.interruptDisable == 0 }
    private var hasDrives: Bool { drives.contains { $0 != nil } }

    /// Power on and the hardware's reset line. Only when idle.
    mutating func reset() {
        control = 0
        (masterCommand, masterStatus, regionTable) = (0, 0, 0)
        for index in drives.indices {
            drives[index]?.device.reset()
            drives[index]?.unit?.reset()
        }
        resetDrives()
    }

    /// The end of a soft reset: signatures, drive 0.
    private mutating func resetDrives() {
        isResetPending = false
        isInterrupting = false
        job = IDEJob()
        selected = 0
        for index in drives.indices {
            var file = TaskFile()
            file.setSignature(isPacketDevice: drives[index]?.device.kind == .packetDevice)
            file.device = 0xA0
            drives[index]?.file = file
        }
    }

    // MARK: Command block

    mutating func read(_ register: UInt64) -> UInt8 {
        guard hasDrives else { return 0 }
        guard let file = drives[selected]?.file else {
            // Drive 0 answers for a missing drive 1 (ATA8-APT): only the selection.
            return register == 6 ? 0xA0 | (selected == 1 ? TaskFile.Device.second : 0) : 0
        }
        let isHigh = control & Control.highOrderByte != 0
        let half = { (word: UInt16) in UInt8(truncatingIfNeeded: isHigh ? word >> 8 : word) }
        switch register {
        case 1: return file.error
        case 2: return half(file.count)
        case 3: return half(file.lbaLow)
        case 4: return half(file.lbaMid)
        case 5: return half(file.lbaHigh)
        case 6: return file.device
        case 7:
            isInterrupting = false
            return file.status
        default: return 0xFF
        }
    }

    /// The status without taking the interrupt, at the control block.
    var alternateStatus: UInt8 { drives[selected]?.file.status ?? 0 }

    mutating func write(_ register: UInt64, _ value: UInt8) {
        control &= ~Control.highOrderByte
        if register == 7 { return command(value) }
        // A busy drive takes nothing.
        if let status = drives[selected]?.file.status, status & (TaskFile.Status.busy | TaskFile.Status.dataRequest) != 0 { return }
        let push = { (word: inout UInt16) in word = word << 8 | UInt16(value) }
        for index in drives.indices where drives[index] != nil {
            guard var file = drives[index]?.file else { continue }
            switch register {
            case 1: push(&file.features)
            case 2: push(&file.count)
            case 3: push(&file.lbaLow)
            case 4: push(&file.lbaMid)
            case 5: push(&file.lbaHigh)
            case 6: file.device = value | 0xA0
            default: break
            }
            drives[index]?.file = file
        }
        if register == 6 { selected = value & TaskFile.Device.second != 0 ? 1 : 0 }
    }

    /// The device control register.
    mutating func writeControl(_ value: UInt8) {
        let before = control
        control = value & (Control.highOrderByte | Control.softReset | Control.interruptDisable)
        if before & Control.softReset == 0, value & Control.softReset != 0 {
            isInterrupting = false
            job = IDEJob()
            for index in drives.indices { drives[index]?.file.status = TaskFile.Status.busy }
        } else if before & Control.softReset != 0, value & Control.softReset == 0 {
            isResetPending = true
            finishReset()
        }
    }

    /// BSY stays until the image is done with memory.
    private mutating func finishReset() {
        guard isResetPending, isIdle else { return }
        for index in drives.indices { drives[index]?.unit?.reset() }
        resetDrives()
    }

    // MARK: Commands

    private mutating func command(_ value: UInt8) {
        guard control & Control.softReset == 0, !isResetPending, var drive = drives[selected] else { return }
        let isBusy = drive.file.status & (TaskFile.Status.busy | TaskFile.Status.dataRequest) != 0
        // Only DEVICE RESET interrupts a packet device at work, and only while the image is not.
        guard !isBusy || (value == ATACommand.deviceReset && drive.unit != nil && isIdle) else { return }
        // One job a channel: the other drive's goes on to its end first.
        guard job.kind == .none || jobDrive == selected else { return }
        isInterrupting = false
        job = IDEJob()
        jobDrive = selected
        if value == ATACommand.executeDeviceDiagnostic {
            // Both drives do it, and drive 0 answers.
            resetDrives()
            isInterrupting = true
            return
        }
        drive.file.command = value
        if drive.device.kind == .disk { drive.device.sectorCount = min(drive.backend.byteCount / 512, 1 << 48) }
        let operation = drive.device.begin(&drive.file)
        drives[selected] = drive
        carryOut(operation)
        if value == ATACommand.deviceReset, drive.unit != nil { isInterrupting = false }
    }

    private mutating func carryOut(_ operation: ATAOperation) {
        switch operation {
        case .done: finish()
        case .dataIn(let bytes, _): offer(bytes)
        case .flush: startPlain(.flush)
        case .trim(let byteCount):
            job.kind = .trimDMA
            job.remaining = byteCount
            awaitBusMaster()
        case .packet(let isDMA):
            guard drives[jobDrive]?.unit != nil else { return fail(TaskFile.ErrorBits.aborted) }
            job.kind = .packetCommand
            job.isPacket = true
            job.isDurable = isDMA  // until the packet has come: which way its data goes
            let file = drives[jobDrive]?.file ?? TaskFile()
            let limit = Int(file.lbaMid & 0xFF) | Int(file.lbaHigh & 0xFF) << 8
            // An odd limit leaves a byte over (ATA8-ACS §7.21): even, and of a block at least a word.
            job.blockByteCount = max(2, min(limit == 0 ? 0xFFFE : limit, 0xFFFE) & ~1)
            job.pieceEnd = 12
            setPacketReason(1)
            request(interrupts: false)
        case .transfer(let work, let means): transfer(work, means)
        }
    }

    private mutating func transfer(_ work: DiskWork, _ means: ATAProtocol) {
        switch (work, means) {
        case (.read(let offset, let byteCount), .programmed(let block)):
            job.kind = .readPIO
            (job.offset, job.remaining, job.blockByteCount) = (offset, byteCount, block)
            fill()
        case (.write(let offset, let byteCount, let isDurable), .programmed(let block)):
            job.kind = .writePIO
            (job.offset, job.remaining, job.blockByteCount, job.isDurable) = (offset, byteCount, block, isDurable)
            job.pieceEnd = min(block, byteCount)
            request(interrupts: false)
        case (.read(let offset, let byteCount), _):
            job.kind = .readDMA
            (job.offset, job.remaining) = (offset, byteCount)
            awaitBusMaster()
        case (.write(let offset, let byteCount, let isDurable), _):
            job.kind = .writeDMA
            (job.offset, job.remaining, job.isDurable) = (offset, byteCount, isDurable)
            awaitBusMaster()
        default: startPlain(work)
        }
    }

    private mutating func setStatus(_ bits: UInt8) { drives[jobDrive]?.file.status = bits }

    /// DRQ: the port moves the piece at hand.
    private mutating func request(interrupts: Bool) {
        setStatus(TaskFile.Status.idle | TaskFile.Status.dataRequest)
        if interrupts { interrupt() }
    }

    private mutating func interrupt() {
        isInterrupting = true
        masterStatus |= BusMaster.interrupt
    }

    /// The command is over as its task file says.
    private mutating func finish() {
        job = IDEJob()
        masterStatus &= ~BusMaster.active
        interrupt()
    }

    private mutating func fail(_ error: UInt8) {
        drives[jobDrive]?.file.fail(error)
        finish()
    }

    private mutating func succeed() {
        drives[jobDrive]?.file.succeed()
        finish()
    }

    // MARK: Programmed I/O

    /// Hands bytes of the drive's own to the port, or to memory.
    private mutating func offer(_ bytes: [UInt8], isDMA: Bool = false) {
        guard !bytes.isEmpty else { return job.isPacket ? endPacket(nil) : succeed() }
        buffer.copyIn(bytes)
        job.filled = min(bytes.count, Self.bufferByteCount)
        job.remaining = 0
        if isDMA {
            job.kind = .dataDMA
            return awaitBusMaster()
        }
        job.kind = .dataPIO
        job.position = 0
        job.pieceEnd = 0
        nextPiece()
    }

    /// The image fills the buffer with the next block, or for a packet with as many as there is room for.
    private mutating func fill() {
        let room = job.isPacket ? Self.bufferByteCount : min(job.blockByteCount, Self.bufferByteCount)
        job.filled = min(room, job.remaining)
        (job.position, job.pieceEnd) = (0, 0)
        start(.read(offset: job.offset, byteCount: job.filled), inBuffer: true)
    }

    /// The next piece of the buffer that goes through the port between two interrupts.
    private mutating func nextPiece() {
        let piece = min(job.blockByteCount, job.filled - job.position)
        job.pieceEnd = job.position + piece
        if job.isPacket {
            setPacketReason(2)
            setPacketByteCount(piece)
        }
        request(interrupts: true)
    }

    /// Reads the data port.
    mutating func readData(_ width: AccessWidth) -> UInt64 {
        guard selected == jobDrive, job.isAtPort, job.kind == .readPIO || job.kind == .dataPIO else { return width.allOnes }
        var value: UInt64 = 0
        for index in 0..<width.byteCount where job.position < job.pieceEnd {
            value |= UInt64(buffer[job.position]) << UInt64(8 * index)
            job.position += 1
        }
        if job.position == job.pieceEnd { endPiece() }
        return value
    }

    /// Writes the data port.
    mutating func writeData(_ width: AccessWidth, _ value: UInt64) {
        guard selected == jobDrive, job.isAtPort, job.kind == .writePIO || job.kind == .packetCommand || job.kind == .packetParameters else { return }
        for index in 0..<width.byteCount where job.position < job.pieceEnd {
            buffer[job.position] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
            job.position += 1
        }
        if job.position == job.pieceEnd { endPiece() }
    }

    /// The port has moved all of the piece.
    private mutating func endPiece() {
        switch job.kind {
        case .readPIO, .dataPIO:
            if job.position < job.filled { return nextPiece() }
            if job.remaining > 0 { return fill() }
            if job.isPacket { return endPacket(nil) }
            // The last block's end is not interrupted for (ATA8-APT §9.5).
            drives[jobDrive]?.file.succeed()
            job = IDEJob()
        case .writePIO: start(.write(offset: job.offset, byteCount: job.pieceEnd, isDurable: job.isDurable), inBuffer: true)
        case .packetCommand:
            job.packet = buffer.bytes(count: 12)
            packet(isDMA: job.isDurable)
        case .packetParameters: performPacket(buffer.bytes(count: job.pieceEnd), isDMA: false)
        default: break
        }
    }

    // MARK: The image

    private mutating func startPlain(_ work: DiskWork) {
        job.kind = .plain
        start(work, inBuffer: false)
    }

    private mutating func start(_ work: DiskWork, inBuffer: Bool) {
        setStatus(TaskFile.Status.busy | TaskFile.Status.ready)
        let errno = drives[jobDrive]?.transfers.start(work, tag: 0, bounce: inBuffer ? buffer : nil) ?? EIO
        if errno == 0 {
            drives[jobDrive]?.transfers.commit()
        } else {
            end(errno: errno == TransferQueue.finished ? 0 : errno)
        }
    }

    /// The image finished: on the event loop.
    mutating func complete(_ index: Int) {
        guard drives.indices.contains(index) else { return }
        var ended: [CInt] = []
        drives[index]?.transfers.reap { _, _, errno in ended.append(errno) }
        for errno in ended where index == jobDrive && job.kind != .none { end(errno: errno) }
        finishReset()
    }

    private mutating func end(errno: CInt) {
        guard errno == 0 else {
            masterStatus |= job.isDMA && errno == EFAULT ? BusMaster.error : 0
            if job.isPacket { return endPacket(drives[jobDrive]?.unit?.end(of: .read(offset: 0, byteCount: 0), errno: errno)) }
            return fail(job.kind == .readPIO || job.kind == .readDMA ? TaskFile.ErrorBits.uncorrectable : TaskFile.ErrorBits.aborted)
        }
        switch job.kind {
        case .readPIO:
            job.offset &+= UInt64(job.filled)
            job.remaining -= job.filled
            nextPiece()
        case .writePIO:
            job.offset &+= UInt64(job.pieceEnd)
            job.remaining -= job.pieceEnd
            guard job.remaining > 0 else { return succeed() }
            job.position = 0
            job.pieceEnd = min(job.blockByteCount, job.remaining)
            request(interrupts: true)
        default:
            if job.isPacket { endPacket(nil) } else { succeed() }
        }
    }

    // MARK: Bus master

    func readMaster(_ register: UInt64) -> UInt8 {
        switch register {
        case 0: masterCommand
        case 2: masterStatus
        case 4...7: UInt8(truncatingIfNeeded: regionTable >> UInt32(8 * (register - 4)))
        default: 0xFF
        }
    }

    mutating func writeMaster(_ register: UInt64, _ value: UInt8, isBusMaster: Bool) {
        switch register {
        case 0:
            let starts = masterCommand & BusMaster.start == 0 && value & BusMaster.start != 0
            masterCommand = value & (BusMaster.start | BusMaster.toMemory)
            if starts {
                masterStatus |= BusMaster.active
                if isBusMaster { startDMA() }
            } else if value & BusMaster.start == 0, isIdle {
                masterStatus &= ~BusMaster.active
            }
        case 2: masterStatus = masterStatus & ~(value & (BusMaster.error | BusMaster.interrupt)) & ~BusMaster.capable | value & BusMaster.capable
        case 4...7:
            let shift = UInt32(8 * (register - 4))
            regionTable = (regionTable & ~(0xFF << shift) | UInt32(value) << shift) & ~3
        default: break
        }
    }

    /// The drive is ready to move data by DMA: at once where the bus master was started before.
    private mutating func awaitBusMaster() {
        setStatus(TaskFile.Status.idle | TaskFile.Status.dataRequest | (job.isPacket ? 0 : TaskFile.Status.busy))
        if masterStatus & BusMaster.active != 0, masterCommand & BusMaster.start != 0 { startDMA() }
    }

    private mutating func startDMA() {
        guard job.isDMA, isIdle, !isPaused else { return }
        let toMemory = job.kind == .readDMA || job.kind == .dataDMA
        let wanted = job.kind == .dataDMA ? job.filled : job.remaining
        // The direction is the driver's to set right (§2.1): data the other way would not arrive.
        guard toMemory == (masterCommand & BusMaster.toMemory != 0) else { return failDMA() }
        guard let list = gather(wanted) else { return failDMA() }
        switch job.kind {
        case .readDMA:
            // A table that is too short ends the transfer: what fits has arrived.
            job.remaining = min(wanted, list.byteCount) & ~511
            start(.read(offset: job.offset, byteCount: job.remaining), inBuffer: false)
        case .writeDMA:
            guard list.byteCount >= wanted else { return failDMA() }
            start(.write(offset: job.offset, byteCount: wanted, isDurable: job.isDurable), inBuffer: false)
        case .dataDMA:
            list.write(buffer.bytes(count: job.filled), memory: memory)
            if job.isPacket { endPacket(nil) } else { succeed() }
        case .trimDMA:
            guard list.byteCount >= wanted, let ranges = drives[jobDrive]?.device.trimRanges(list.bytes(limit: wanted, memory: memory)) else { return failDMA() }
            startPlain(.discard(ranges))
        case .parametersDMA: performPacket(list.bytes(limit: wanted, memory: memory), isDMA: true)
        default: break
        }
    }

    private mutating func failDMA() {
        masterStatus |= BusMaster.error
        if job.isPacket { return endPacket(drives[jobDrive]?.unit?.end(of: .flush, errno: EFAULT)) }
        fail(TaskFile.ErrorBits.aborted)
    }

    /// The physical region table, at most 64 KiB of it (§1.2): as much as `byteCount` takes. Nil where a region is not RAM.
    private mutating func gather(_ byteCount: Int) -> ScatterList? {
        let memory = memory, table = UInt64(regionTable)
        let isSound = drives[jobDrive]?.transfers.prepare(0) { list in
            for index in 0..<8192 where list.byteCount < byteCount {
                guard let entry = try? memory.load(UInt64.self, at: GuestAddress(table + UInt64(index) * 8)) else { return false }
                let count = Int(entry >> 32 & 0xFFFE), size = count == 0 ? 1 << 16 : count
                guard list.append(GuestAddress(entry & 0xFFFF_FFFE), min(size, byteCount - list.byteCount), memory: memory) else { return false }
                if entry >> 63 != 0 { break }  // EOT
            }
            return true
        }
        return isSound == true ? drives[jobDrive]?.transfers.list(0) : nil
    }

    // MARK: Packets

    /// Interrupt reason: bit 0 a command, bit 1 to the host.
    private mutating func setPacketReason(_ value: UInt16) { drives[jobDrive]?.file.count = value }

    private mutating func setPacketByteCount(_ count: Int) {
        drives[jobDrive]?.file.lbaMid = UInt16(count & 0xFF)
        drives[jobDrive]?.file.lbaHigh = UInt16(count >> 8 & 0xFF)
    }

    private mutating func packet(isDMA: Bool) {
        job.isDurable = false
        (job.position, job.pieceEnd, job.filled) = (0, 0, 0)
        let wanted = drives[jobDrive]?.unit?.parameterByteCount(of: CommandBlock(job.packet)) ?? 0
        guard wanted > 0 else { return performPacket([], isDMA: isDMA) }
        if isDMA {
            job.kind = .parametersDMA
            job.remaining = wanted
            return awaitBusMaster()
        }
        job.kind = .packetParameters
        job.pieceEnd = min(wanted, job.blockByteCount)
        setPacketReason(0)
        setPacketByteCount(job.pieceEnd)
        request(interrupts: true)
    }

    private mutating func performPacket(_ parameters: [UInt8], isDMA: Bool) {
        guard let answer = drives[jobDrive]?.unit?.perform(CommandBlock(job.packet), parameters: parameters) else {
            return fail(TaskFile.ErrorBits.aborted)
        }
        switch answer {
        case .good: endPacket(nil)
        case .failed(let sense): endPacket(sense)
        case .data(let bytes): offer(bytes, isDMA: isDMA)
        case .work(.read(let offset, let byteCount)):
            (job.offset, job.remaining) = (offset, byteCount)
            if isDMA {
                job.kind = .readDMA
                awaitBusMaster()
            } else {
                job.kind = .readPIO
                fill()
            }
        case .work(let work): startPlain(work)
        }
    }

    private mutating func endPacket(_ sense: SenseData?) {
        setPacketReason(3)
        if let sense {
            fail(sense.key << 4 | TaskFile.ErrorBits.aborted)
        } else {
            succeed()
        }
    }

    /// Goes on after a pause with a transfer that the bus master was started for.
    mutating func resume() {
        isPaused = false
        if masterStatus & BusMaster.active != 0, masterCommand & BusMaster.start != 0 { startDMA() }
    }

    // MARK: Saved state

    func save(into writer: inout StateWriter) {
        for byte in [control, masterCommand, masterStatus, UInt8(selected), UInt8(jobDrive)] { writer.write(byte) }
        writer.write(regionTable)
        writer.write(isInterrupting)
        writer.write(isResetPending)
        job.save(into: &writer)
        writer.write(buffer.bytes(count: max(job.filled, job.pieceEnd)))
        for drive in drives {
            writer.write(drive != nil)
            guard let drive else { continue }
            drive.file.save(into: &writer)
            drive.device.save(into: &writer)
            drive.unit?.save(into: &writer)
        }
    }

    mutating func restore(from reader: inout StateReader) throws(DeviceStateError) {
        control = try reader.read()
        masterCommand = try reader.read()
        masterStatus = try reader.read()
        selected = Int(try reader.read(UInt8.self) & 1)
        jobDrive = Int(try reader.read(UInt8.self) & 1)
        regionTable = try reader.read(UInt32.self) & ~3
        isInterrupting = try reader.readBool()
        isResetPending = try reader.readBool()
        job = try IDEJob(from: &reader, bufferByteCount: Self.bufferByteCount)
        buffer.copyIn(try reader.readBytes(limit: Self.bufferByteCount))
        for index in drives.indices {
            guard try reader.readBool() == (drives[index] != nil) else {
                throw DeviceStateError(section: reader.section, reason: "was saved with other drives than there are")
            }
            guard var drive = drives[index] else { continue }
            drive.file = try TaskFile(from: &reader)
            try drive.device.restore(from: &reader)
            try drive.unit?.restore(from: &reader)
            drives[index] = drive
        }
    }
}
