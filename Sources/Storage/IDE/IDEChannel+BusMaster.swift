// The bus master half of an IDE channel (Programming Interface for Bus Master IDE Controller, Revision 1.0), and saved state.
import DiskImage
import Glibc
import GuestMemory
import MachineCore

extension IDEChannel {
    // MARK: Bus master

    func readMaster(_ register: UInt64) -> UInt8 {
        switch register {
        case 0: masterCommand
        case 2: masterStatus
        case 4...7: UInt8(truncatingIfNeeded: regionTable >> UInt32(8 * (register - 4)))
        default: 0xFF
        }
    }

    mutating func writeMaster(_ register: UInt64, _ value: UInt8) {
        switch register {
        case 0:
            let starts = masterCommand & BusMaster.start == 0 && value & BusMaster.start != 0
            masterCommand = value & (BusMaster.start | BusMaster.toMemory)
            if starts {
                masterStatus |= BusMaster.active
                startDMA()
            } else if value & BusMaster.start == 0, isIdle {
                masterStatus &= ~BusMaster.active
            }
        case 2:
            masterStatus =
                masterStatus & ~(value & (BusMaster.error | BusMaster.interrupt)) & ~BusMaster.capable | value
                & BusMaster.capable
        case 4...7:
            let shift = UInt32(8 * (register - 4))
            regionTable = (regionTable & ~(0xFF << shift) | UInt32(value) << shift) & ~3
        default: break
        }
    }

    /// The drive is ready to move data by DMA: at once where the bus master was started before.
    mutating func awaitBusMaster() {
        setStatus(TaskFile.Status.idle | TaskFile.Status.dataRequest | (job.isPacket ? 0 : TaskFile.Status.busy))
        if masterStatus & BusMaster.active != 0, masterCommand & BusMaster.start != 0 { startDMA() }
    }

    mutating func startDMA() {
        guard job.isDMA, isIdle, !isPaused, isBusMaster else { return }
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
            guard list.byteCount >= wanted,
                let ranges = drives[jobDrive]?.device.trimRanges(list.bytes(limit: wanted, memory: memory))
            else { return failDMA() }
            startPlain(.discard(ranges))
        case .parametersDMA: performPacket(list.bytes(limit: wanted, memory: memory), isDMA: true)
        default: break
        }
    }

    mutating func failDMA() {
        masterStatus |= BusMaster.error
        if job.isPacket { return endPacket(drives[jobDrive]?.unit?.end(of: .flush, errno: EFAULT)) }
        fail(TaskFile.ErrorBits.aborted)
    }

    /// The physical region table, at most 64 KiB of it (§1.2): as much as `byteCount` takes. Nil where a region is not RAM.
    mutating func gather(_ byteCount: Int) -> ScatterList? {
        let memory = memory, table = UInt64(regionTable)
        let isSound = drives[jobDrive]?.transfers.prepare(0) { list in
            for index in 0..<8192 where list.byteCount < byteCount {
                guard let entry = try? memory.load(UInt64.self, at: GuestAddress(table + UInt64(index) * 8)) else {
                    return false
                }
                let count = Int(entry >> 32 & 0xFFFE), size = count == 0 ? 1 << 16 : count
                guard
                    list.append(
                        GuestAddress(entry & 0xFFFF_FFFE), min(size, byteCount - list.byteCount), memory: memory)
                else { return false }
                if entry >> 63 != 0 { break }  // EOT
            }
            return true
        }
        return isSound == true ? drives[jobDrive]?.transfers.list(0) : nil
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
        // The image takes what it is asked for: behind its end a write would let it grow.
        guard job.isWithin(drives[jobDrive]?.backend.byteCount ?? 0) else {
            throw DeviceStateError(section: reader.section, reason: "has a transfer of \(job.remaining) bytes at \(job.offset), outside of the image")
        }
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
