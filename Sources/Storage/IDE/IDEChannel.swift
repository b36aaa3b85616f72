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
    /// The function may reach guest memory.
    var isBusMaster = false
    /// Reset was asked for while the image was at work.
    var isResetPending = false
    var control: UInt8 = 0
    var masterCommand: UInt8 = 0
    var masterStatus: UInt8 = 0
    var regionTable: UInt32 = 0

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
    mutating func resetDrives() {
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
        if let status = drives[selected]?.file.status,
            status & (TaskFile.Status.busy | TaskFile.Status.dataRequest) != 0
        {
            return
        }
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
    mutating func finishReset() {
        guard isResetPending, isIdle else { return }
        for index in drives.indices { drives[index]?.unit?.reset() }
        resetDrives()
    }

    // MARK: Commands

    mutating func command(_ value: UInt8) {
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

    mutating func carryOut(_ operation: ATAOperation) {
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

    mutating func transfer(_ work: DiskWork, _ means: ATAProtocol) {
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

    mutating func setStatus(_ bits: UInt8) { drives[jobDrive]?.file.status = bits }

    /// DRQ: the port moves the piece at hand.
    mutating func request(interrupts: Bool) {
        setStatus(TaskFile.Status.idle | TaskFile.Status.dataRequest)
        if interrupts { interrupt() }
    }

    mutating func interrupt() {
        isInterrupting = true
        masterStatus |= BusMaster.interrupt
    }

    /// The command is over as its task file says.
    mutating func finish() {
        job = IDEJob()
        masterStatus &= ~BusMaster.active
        interrupt()
    }

    mutating func fail(_ error: UInt8) {
        drives[jobDrive]?.file.fail(error)
        finish()
    }

    mutating func succeed() {
        drives[jobDrive]?.file.succeed()
        finish()
    }

    // MARK: Programmed I/O

    /// Hands bytes of the drive's own to the port, or to memory.
    mutating func offer(_ bytes: [UInt8], isDMA: Bool = false) {
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

    /// The image fills the buffer with as much as there is room for: a BIOS asks for many sectors at once, and the image is asked once
    /// for 128 of them.
    mutating func fill() {
        job.filled = min(Self.bufferByteCount, job.remaining)
        (job.position, job.pieceEnd) = (0, 0)
        start(.read(offset: job.offset, byteCount: job.filled), inBuffer: true)
    }

    /// The next piece of the buffer that goes through the port between two interrupts.
    mutating func nextPiece() {
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
        guard selected == jobDrive, job.isAtPort, job.kind == .readPIO || job.kind == .dataPIO else {
            return width.allOnes
        }
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
        guard selected == jobDrive, job.isAtPort,
            job.kind == .writePIO || job.kind == .packetCommand || job.kind == .packetParameters
        else { return }
        for index in 0..<width.byteCount where job.position < job.pieceEnd {
            buffer[job.position] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
            job.position += 1
        }
        if job.position == job.pieceEnd { endPiece() }
    }

    /// The port has moved all of the piece.
    mutating func endPiece() {
        switch job.kind {
        case .readPIO, .dataPIO:
            if job.position < job.filled { return nextPiece() }
            if job.remaining > 0 { return fill() }
            if job.isPacket { return endPacket(nil) }
            // The last block's end is not interrupted for (ATA8-APT §9.5).
            drives[jobDrive]?.file.succeed()
            job = IDEJob()
        case .writePIO:
            start(.write(offset: job.offset, byteCount: job.pieceEnd, isDurable: job.isDurable), inBuffer: true)
        case .packetCommand:
            job.packet = buffer.bytes(count: 12)
            packet(isDMA: job.isDurable)
        case .packetParameters: performPacket(buffer.bytes(count: job.pieceEnd), isDMA: false)
        default: break
        }
    }

    // MARK: The image

    mutating func startPlain(_ work: DiskWork) {
        job.kind = .plain
        start(work, inBuffer: false)
    }

    mutating func start(_ work: DiskWork, inBuffer: Bool) {
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

    mutating func end(errno: CInt) {
        guard errno == 0 else {
            masterStatus |= job.isDMA && errno == EFAULT ? BusMaster.error : 0
            if job.isPacket {
                return endPacket(drives[jobDrive]?.unit?.end(of: .read(offset: 0, byteCount: 0), errno: errno))
            }
            return fail(
                job.kind == .readPIO || job.kind == .readDMA
                    ? TaskFile.ErrorBits.uncorrectable : TaskFile.ErrorBits.aborted)
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
}
