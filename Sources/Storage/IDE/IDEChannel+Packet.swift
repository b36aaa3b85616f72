// Command packets on an IDE channel (ATA8-ACS §7.21): by programmed I/O in pieces of the host's byte count limit, or by DMA.

extension IDEChannel {
    // MARK: Packets

    /// Interrupt reason: bit 0 a command, bit 1 to the host.
    mutating func setPacketReason(_ value: UInt16) { drives[jobDrive]?.file.count = value }

    mutating func setPacketByteCount(_ count: Int) {
        drives[jobDrive]?.file.lbaMid = UInt16(count & 0xFF)
        drives[jobDrive]?.file.lbaHigh = UInt16(count >> 8 & 0xFF)
    }

    mutating func packet(isDMA: Bool) {
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

    mutating func performPacket(_ parameters: [UInt8], isDMA: Bool) {
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

    mutating func endPacket(_ sense: SenseData?) {
        setPacketReason(3)
        if let sense {
            fail(sense.key << 4 | TaskFile.ErrorBits.aborted)
        } else {
            succeed()
        }
    }

    /// Goes on after a pause with a transfer that the bus master was started for.
    mutating func resume(isBusMaster: Bool) {
        isPaused = false
        self.isBusMaster = isBusMaster
        if masterStatus & BusMaster.active != 0, masterCommand & BusMaster.start != 0 { startDMA() }
    }
}
