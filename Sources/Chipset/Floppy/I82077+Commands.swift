// The floppy controller's commands (82077AA §5).

extension I82077 {
    enum Command {
        /// Bits 4 to 0 name the command; multi-track, MFM and skip are above where a command has them.
        static let mask: UInt8 = 0x1F, multiTrack: UInt8 = 0x80, mfm: UInt8 = 0x40, skip: UInt8 = 0x20
        static let specify: UInt8 = 0x03, senseDrive: UInt8 = 0x04, writeData: UInt8 = 0x05, readData: UInt8 = 0x06
        static let recalibrate: UInt8 = 0x07, senseInterrupt: UInt8 = 0x08, readID: UInt8 = 0x0A,
            formatTrack: UInt8 = 0x0D
        static let dumpRegisters: UInt8 = 0x0E, seek: UInt8 = 0x0F, version: UInt8 = 0x10, perpendicular: UInt8 = 0x12
        static let configure: UInt8 = 0x13, lock: UInt8 = 0x14, verify: UInt8 = 0x16
        /// SEEK with bit 7: by so many steps, inwards with bit 6.
        static let relative: UInt8 = 0x80, inwards: UInt8 = 0x40
    }

    /// The command without its modifiers; nil: there is none of this code.
    static func name(of command: UInt8) -> UInt8? {
        let name = command & Command.mask
        let modifiers: UInt8
        switch name {
        case Command.readData, Command.verify: modifiers = Command.multiTrack | Command.mfm | Command.skip
        case Command.writeData: modifiers = Command.multiTrack | Command.mfm
        case Command.formatTrack, Command.readID: modifiers = Command.mfm
        case Command.seek: modifiers = Command.relative | Command.inwards
        case Command.lock: modifiers = 0x80
        case Command.specify, Command.senseDrive, Command.recalibrate, Command.senseInterrupt, Command.dumpRegisters,
            Command.version, Command.perpendicular, Command.configure:
            modifiers = 0
        default: return nil
        }
        return command & ~(Command.mask | modifiers) == 0 ? name : nil
    }

    static func parameterCount(of command: UInt8) -> Int {
        switch name(of: command) {
        case Command.readData, Command.writeData, Command.verify: 8
        case Command.formatTrack: 5
        case Command.configure: 3
        case Command.specify, Command.seek: 2
        case Command.senseDrive, Command.recalibrate, Command.readID, Command.perpendicular: 1
        default: 0
        }
    }

    /// The command is complete. A sector to move, where it begins a transfer.
    mutating func execute(_ parameters: PS2Queue) -> Operation? {
        var parameters = parameters
        func next() -> UInt8 { parameters.popFirst() ?? 0 }
        switch Self.name(of: command) {
        case Command.specify: specify = (next(), next())
        case Command.senseDrive: senseDrive(next())
        case Command.recalibrate: recalibrate(next())
        case Command.senseInterrupt: senseInterrupt()
        case Command.seek:
            let select = next()
            seek(select, next())
        case Command.readID: readID(next())
        case Command.dumpRegisters:
            let (first, second) = specify
            answer([
                drives[0].cylinder, drives[1].cylinder, 0, 0, first, second, transfer.last,
                (isLocked ? 0x80 : 0) | perpendicular & 0x7F, configuration, precompensation,
            ])
        case Command.version: answer([0x90])
        case Command.perpendicular: perpendicular = next()
        case Command.configure:
            _ = next()
            configuration = next()
            precompensation = next()
        case Command.lock:
            isLocked = command & 0x80 != 0
            answer([isLocked ? 0x10 : 0])
        case Command.readData, Command.writeData, Command.verify:
            let select = next()
            transfer = Transfer(
                drive: Int(select & 3), cylinder: next(), head: next(), sector: next(), sizeCode: next(), last: next(),
                isMultiTrack: command & Command.multiTrack != 0,
                kind: command & Command.mask == Command.writeData ? .write : .read)
            if configuration & Self.impliedSeek != 0, transfer.drive < Self.driveCount {
                move(transfer.drive, to: transfer.cylinder)
            }
            // The head of the drive and the one in the sector's mark are told apart (H and HDS).
            guard transfer.head == select >> 2 & 1 else { return fail(status1: Status1.noData) }
            if command & Command.mask == Command.verify { return verify() }
            return nextOperation()
        case Command.formatTrack:
            let select = next()
            transfer = Transfer(drive: Int(select & 3), head: select >> 2 & 1, sizeCode: next(), kind: .format)
            transfer.left = Int(next())
            _ = next()
            transfer.filler = next()
            if transfer.drive < Self.driveCount { transfer.cylinder = drives[transfer.drive].cylinder }
            return nextOperation()
        default: answer([Status0.invalid])
        }
        return nil
    }

    // MARK: Commands without data

    private mutating func senseDrive(_ select: UInt8) {
        let index = Int(select & 3)
        // Two sides, ready.
        var status: UInt8 = 0x28 | select & 0x07
        if index < Self.driveCount, drives[index].isPresent {
            if drives[index].cylinder == 0 { status |= 0x10 }
            if drives[index].disk?.isReadOnly ?? true { status |= 0x40 }
        }
        answer([status])
    }

    private mutating func recalibrate(_ select: UInt8) {
        let index = Int(select & 3)
        if index < Self.driveCount, drives[index].isPresent {
            move(index, to: 0)
            seekStatus = Status0.seekEnd | select & 3
        } else {
            // No drive says that it is at track 0.
            seekStatus = Status0.abnormal | Status0.seekEnd | Status0.equipmentCheck | select & 3
        }
        hasInterrupt = true
    }

    private mutating func seek(_ select: UInt8, _ value: UInt8) {
        let index = Int(select & 3)
        if index < Self.driveCount, drives[index].isPresent {
            let now = drives[index].cylinder
            let target =
                command & Command.relative == 0
                ? value
                : command & Command.inwards != 0
                    ? UInt8(clamping: Int(now) + Int(value)) : UInt8(clamping: Int(now) - Int(value))
            move(index, to: target)
        }
        seekStatus = Status0.seekEnd | select & 7
        hasInterrupt = true
    }

    private mutating func senseInterrupt() {
        if let status = seekStatus {
            let index = Int(status & 3)
            answer([status, index < Self.driveCount ? drives[index].cylinder : 0])
            seekStatus = nil
        } else if polled != 0 {
            let index = UInt8(polled.trailingZeroBitCount)
            polled &= polled - 1
            answer([Status0.polled | index, index < Self.driveCount ? drives[Int(index)].cylinder : 0])
        } else {
            answer([Status0.invalid])
        }
        hasInterrupt = false
    }

    private mutating func readID(_ select: UInt8) {
        transfer = Transfer(drive: Int(select & 3), head: select >> 2 & 1, sizeCode: 2)
        guard let geometry = geometry() else { return failWithoutOperation(status1: Status1.missingMark) }
        let sector = drives[transfer.drive].passing
        drives[transfer.drive].passing = Int(sector) >= geometry.sectors ? 1 : sector + 1
        transfer.cylinder = drives[transfer.drive].cylinder
        transfer.sector = sector
        guard Int(transfer.cylinder) < geometry.cylinders else {
            return failWithoutOperation(status1: Status1.missingMark)
        }
        succeed()
    }

    // MARK: Transfers

    /// The disk under the head, where it can be read at the data rate chosen.
    private func geometry() -> Geometry? {
        guard transfer.drive < Self.driveCount, let disk = drives[transfer.drive].disk, disk.geometry.rate == rate
        else {
            return nil
        }
        return disk.geometry
    }

    /// The sector that the transfer stands at; ends the command where there is none.
    private mutating func nextOperation() -> Operation? {
        guard let geometry = geometry() else { return fail(status1: Status1.missingMark | Status1.noData) }
        if transfer.kind != .read, drives[transfer.drive].disk?.isReadOnly ?? true {
            return fail(status1: Status1.notWritable)
        }
        guard specify.1 & 1 == 0, digitalOutput & DigitalOutput.interruptAndDMA != 0 else {
            return fail(status1: Status1.overrun)
        }
        if transfer.kind == .format {
            guard transfer.left > 0, Int(transfer.cylinder) < geometry.cylinders, transfer.sizeCode == 2 else {
                return fail(status1: Status1.missingMark)
            }
        } else if let failure = failure(geometry) {
            return fail(status1: failure.status1, status2: failure.status2)
        }
        phase = .execution
        serial &+= 1
        return Operation(
            kind: transfer.kind, drive: transfer.drive, sector: position(geometry), filler: transfer.filler,
            serial: serial)
    }

    private func failure(_ geometry: Geometry) -> (status1: UInt8, status2: UInt8)? {
        guard transfer.cylinder == drives[transfer.drive].cylinder else {
            return (Status1.noData, Status2.wrongCylinder)
        }
        guard Int(transfer.cylinder) < geometry.cylinders, transfer.sizeCode == 2 else {
            return (Status1.missingMark, 0)
        }
        let isThere = Int(transfer.head) < geometry.heads && (1...geometry.sectors).contains(Int(transfer.sector))
        return isThere ? nil : (Status1.noData, 0)
    }

    /// Where in the image the transfer stands. A format begins at sector 1, whatever marks it writes.
    private func position(_ geometry: Geometry) -> Int {
        let track = Int(transfer.cylinder) * geometry.heads + Int(transfer.head)
        return track * geometry.sectors + Int(transfer.sector) - (transfer.kind == .format ? 0 : 1)
    }

    /// The sectors from the transfer's to the last are looked for and not moved.
    private mutating func verify() -> Operation? {
        guard let geometry = geometry() else { return fail(status1: Status1.missingMark | Status1.noData) }
        while true {
            if let failure = failure(geometry) { return fail(status1: failure.status1, status2: failure.status2) }
            if step() { break }
        }
        succeed()
        return nil
    }

    /// On to the next sector. True where the one before was the last (EOT, on the second side with MT).
    private mutating func step() -> Bool {
        guard transfer.sector == transfer.last else {
            transfer.sector &+= 1
            return false
        }
        transfer.sector = 1
        if transfer.isMultiTrack {
            transfer.head ^= 1
            if transfer.head == 1 { return false }
        }
        transfer.cylinder &+= 1
        return true
    }

    /// The operation ended. The next one, where the command goes on.
    package mutating func finish(_ operation: Operation, _ outcome: Outcome) -> Operation? {
        guard phase == .execution, operation.serial == serial else { return nil }
        let isTerminal: Bool
        switch outcome {
        case .overrun: return fail(status1: Status1.overrun)
        case .failed: return fail(status1: Status1.dataError)
        case .done(let terminal): isTerminal = terminal
        }
        if transfer.kind == .format {
            transfer.left -= 1
            transfer.sector &+= 1
            guard let geometry = geometry(), transfer.left > 0, Int(transfer.sector) < geometry.sectors, !isTerminal
            else {
                succeed()
                return nil
            }
            return nextOperation()
        }
        let isLast = step()
        if isTerminal {
            succeed()
            return nil
        }
        // The track ended before the count of the DMA channel did.
        return isLast ? fail(status1: Status1.endOfCylinder) : nextOperation()
    }

    private mutating func succeed() {
        end(status0: 0, status1: 0, status2: 0)
    }

    private mutating func failWithoutOperation(status1: UInt8) {
        end(status0: Status0.abnormal, status1: status1, status2: 0)
    }

    private mutating func fail(status1: UInt8, status2: UInt8 = 0) -> Operation? {
        end(status0: Status0.abnormal, status1: status1, status2: status2)
        return nil
    }

    private mutating func end(status0: UInt8, status1: UInt8, status2: UInt8) {
        let select = transfer.head << 2 & 0x04 | UInt8(truncatingIfNeeded: transfer.drive) & 0x03
        answer(
            [
                status0 | select, status1, status2, transfer.cylinder, transfer.head, transfer.sector,
                transfer.sizeCode,
            ], interrupting: true)
    }
}
