// Command packets on an AHCI port (AHCI 1.3.1 §4.2.3.2), and saved state.
import GuestMemory
import MachineCore

extension AHCIPort {
    // MARK: ATAPI

    mutating func packet(_ index: Int, _ header: AHCICommandHeader, isDMA: Bool) {
        guard header.isPacket, let address = GuestAddress(header.tableAddress).advanced(by: 0x40),
            let bytes = try? memory.bytes(at: address, count: 16), var unit = drive?.unit
        else {
            slots[index].file.fail(TaskFile.ErrorBits.aborted)
            return show(index)
        }
        let block = CommandBlock(bytes)
        var parameters: [UInt8] = []
        let wanted = unit.parameterByteCount(of: block)
        if wanted > 0 {
            guard let list = gather(index, header, wanted) else { return }
            parameters = list.bytes(limit: wanted, memory: memory)
        }
        let answer = unit.perform(block, parameters: parameters)
        drive?.unit = unit
        switch answer {
        case .good: finishPacket(index, nil)
        case .failed(let sense): finishPacket(index, sense)
        case .data(let data):
            guard let list = gather(index, header, data.count) else { return }
            slots[index].byteCount = list.write(data, memory: memory)
            finishPacket(index, nil)
            if !isDMA { storePIOSetup(slots[index], flags: AHCIFIS.toHost) }
        case .work(let work):
            guard case .read(let offset, let byteCount) = work else { return start(index, work, packet: work) }
            guard let list = gather(index, header, byteCount) else { return }
            let fitting = min(byteCount, list.byteCount) & ~511
            slots[index].byteCount = fitting
            return start(index, .read(offset: offset, byteCount: fitting), packet: work)
        }
        show(index)
    }

    mutating func start(_ index: Int, _ work: DiskWork, packet: DiskWork) {
        slots[index].packet = PacketWork(work: packet)
        start(index, work)
    }

    /// Interrupt reason: command complete, to the host (ATA8-ACS §7.21).
    mutating func finishPacket(_ index: Int, _ sense: SenseData?) {
        if let sense {
            slots[index].file.fail(sense.key << 4 | TaskFile.ErrorBits.aborted)
        } else {
            slots[index].file.succeed()
        }
        slots[index].file.count = 3
    }

    // MARK: Saved state

    func save(into writer: inout StateWriter) {
        writer.write(commandListBase)
        writer.write(fisBase)
        for word in [
            interruptEnable, latchedStatus, command, sataControl, sataError, sataActive, commandIssue, signature,
        ] { writer.write(word) }
        shown.save(into: &writer)
        writer.write(UInt8(truncatingIfNeeded: nextSlot))
        for flag in [hasPendingSignature, isSoftReset, isHalted, isResetPending] { writer.write(flag) }
        writer.write(drive != nil)
        drive?.device.save(into: &writer)
        drive?.unit?.save(into: &writer)
    }

    mutating func restore(from reader: inout StateReader) throws(DeviceStateError) {
        commandListBase = try reader.read(UInt64.self) & ~0x3FF
        fisBase = try reader.read(UInt64.self) & ~0xFF
        interruptEnable = try reader.read()
        latchedStatus = try reader.read()
        command = try reader.read(UInt32.self) & Command.writable
        sataControl = try reader.read(UInt32.self) & 0xFFF
        sataError = try reader.read()
        sataActive = try reader.read()
        commandIssue = try reader.read()
        signature = try reader.read()
        shown = try TaskFile(from: &reader)
        nextSlot = Int(try reader.read(UInt8.self)) % Self.slotCount
        hasPendingSignature = try reader.readBool()
        isSoftReset = try reader.readBool()
        isHalted = try reader.readBool()
        isResetPending = try reader.readBool()
        guard try reader.readBool() == (drive != nil) else {
            throw DeviceStateError(section: reader.section, reason: "was saved with other drives than there are")
        }
        try drive?.device.restore(from: &reader)
        try drive?.unit?.restore(from: &reader)
        for index in slots.indices { slots[index] = Slot() }
    }
}
