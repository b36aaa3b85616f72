// The command set of an ATA disk and of an ATAPI device's register side (ATA8-ACS; INCITS 452), without bus, data path or image:
// AHCI and IDE put a task file in and carry out what comes back.
//
// Life of a command: `begin` checks it against the capacity and gives an operation; the controller moves the data; `finish`
// puts the end into the task file. `begin` alone ends those that need no data.
package import MachineCore

package struct ATADevice: Sendable {
    package enum Kind: Sendable, Equatable { case disk, packetDevice }

    package let kind: Kind
    package let identity: DriveIdentity
    /// On AHCI: NCQ is offered and the words of Serial ATA are filled.
    package let isSerial: Bool
    package var sectorCount: UInt64
    package var isReadOnly: Bool
    /// The image's physical block, a power of two from 512 up.
    package let physicalBlockByteCount: UInt32

    // What a guest sets.
    var multipleCount: UInt8 = 0
    var isWriteCacheEnabled = true
    var isSMARTEnabled = true
    var transferMode: UInt8 = 0x45  // SET FEATURES 03h: Ultra DMA 5
    var headCount: UInt8 = 16
    var sectorsPerTrack: UInt8 = 63
    var isStandby = false
    /// The NCQ command that failed last, for log 10h: nil after it was read.
    var failedCommand: (tag: UInt8, file: TaskFile)?

    package static let multipleLimit: UInt8 = 16
    /// 512-byte blocks of ranges in one DATA SET MANAGEMENT.
    static let trimBlockLimit: UInt16 = 8

    package init(
        _ kind: Kind, identity: DriveIdentity, sectorCount: UInt64 = 0, isReadOnly: Bool = false, isSerial: Bool,
        physicalBlockByteCount: UInt32 = 512
    ) {
        self.kind = kind
        self.identity = identity
        // 48 bits of address.
        self.sectorCount = min(sectorCount, 1 << 48)
        self.isReadOnly = isReadOnly
        self.isSerial = isSerial
        self.physicalBlockByteCount = physicalBlockByteCount
    }

    /// Power on, and COMRESET where the settings are not preserved.
    package mutating func reset() {
        multipleCount = 0
        isWriteCacheEnabled = true
        isSMARTEnabled = true
        transferMode = 0x45
        headCount = 16
        sectorsPerTrack = 63
        isStandby = false
        failedCommand = nil
    }

    // MARK: Commands

    /// Takes the command in `file`. Where the answer is `done` the end is in `file`; else it is as the command left it.
    package mutating func begin(_ file: inout TaskFile) -> ATAOperation {
        let command = ATACommand.oldPowerCodes[file.command] ?? file.command
        let operation = kind == .disk ? beginDisk(command, &file) : beginPacketDevice(command, &file)
        if case .done = operation { return .done }
        file.error = 0
        return operation
    }

    /// The operation that `begin` gave has ended with this errno of the image's.
    package mutating func finish(_ file: inout TaskFile, _ operation: ATAOperation, errno: Int32) {
        guard errno != 0 else { return file.succeed() }
        if case .transfer(.read, _) = operation {
            file.fail(TaskFile.ErrorBits.uncorrectable)
        } else {
            file.fail(TaskFile.ErrorBits.aborted)
        }
        noteFailure(file, operation)
    }

    /// Keeps a failed NCQ command for log 10h.
    package mutating func noteFailure(_ file: TaskFile, _ operation: ATAOperation) {
        if case .transfer(_, .queued(let tag)) = operation { failedCommand = (tag, file) }
    }

    private mutating func beginDisk(_ command: UInt8, _ file: inout TaskFile) -> ATAOperation {
        switch command {
        case ATACommand.readSectors, ATACommand.readSectorsNoRetry, ATACommand.writeSectors,
            ATACommand.writeSectorsNoRetry:
            return transfer(&file, isWrite: command & 0x10 != 0, isExtended: false, .programmed(blockByteCount: 512))
        case ATACommand.readSectorsExt, ATACommand.writeSectorsExt:
            return transfer(&file, isWrite: command & 0x10 != 0, isExtended: true, .programmed(blockByteCount: 512))
        case ATACommand.readMultiple, ATACommand.writeMultiple:
            return multiple(&file, isWrite: command == ATACommand.writeMultiple, isExtended: false)
        case ATACommand.readMultipleExt, ATACommand.writeMultipleExt:
            return multiple(&file, isWrite: command == ATACommand.writeMultipleExt, isExtended: true)
        case ATACommand.writeMultipleFUAExt:
            return multiple(&file, isWrite: true, isExtended: true, isDurable: true)
        case ATACommand.readDMA, ATACommand.readDMANoRetry:
            return transfer(&file, isWrite: false, isExtended: false, .dma)
        case ATACommand.writeDMA, ATACommand.writeDMANoRetry:
            return transfer(&file, isWrite: true, isExtended: false, .dma)
        case ATACommand.readDMAExt: return transfer(&file, isWrite: false, isExtended: true, .dma)
        case ATACommand.writeDMAExt: return transfer(&file, isWrite: true, isExtended: true, .dma)
        case ATACommand.writeDMAFUAExt: return transfer(&file, isWrite: true, isExtended: true, .dma, isDurable: true)
        case ATACommand.readFPDMAQueued, ATACommand.writeFPDMAQueued: return queued(&file)
        case ATACommand.readVerify, ATACommand.readVerifyNoRetry, ATACommand.readVerifyExt:
            let isExtended = command == ATACommand.readVerifyExt
            // The medium is an image: what could not be read is found out by reading it.
            guard range(file, isExtended: isExtended) != nil else {
                return refuse(&file, TaskFile.ErrorBits.idNotFound)
            }
            return complete(&file)
        case ATACommand.dataSetManagement: return dataSetManagement(&file)
        case ATACommand.flushCache, ATACommand.flushCacheExt: return .flush
        case ATACommand.identifyDevice: return .dataIn(identifyDevice(), .programmed(blockByteCount: 512))
        case ATACommand.setMultiple: return setMultiple(&file)
        case ATACommand.readNativeMax:
            file.lba28 = min(sectorCount, 0x0FFF_FFFF) &- 1
            return complete(&file)
        case ATACommand.readNativeMaxExt:
            file.lba48 = sectorCount &- 1
            return complete(&file)
        case ATACommand.smart: return smart(&file)
        case ATACommand.readLogExt: return readLog(&file, .programmed(blockByteCount: 512))
        case ATACommand.readLogDMAExt: return readLog(&file, .dma)
        case ATACommand.recalibrate, ATACommand.seek: return complete(&file)
        case ATACommand.initializeDeviceParameters:
            // ATA-3: sectors per track in the count register, the last head's number in the device register.
            guard file.count & 0xFF != 0 else { return refuse(&file) }
            sectorsPerTrack = UInt8(truncatingIfNeeded: file.count)
            headCount = (file.device & 0x0F) + 1
            return complete(&file)
        case ATACommand.packet, ATACommand.deviceReset, ATACommand.identifyPacketDevice: return refuse(&file)
        default: return beginCommon(command, &file)
        }
    }

    private mutating func beginPacketDevice(_ command: UInt8, _ file: inout TaskFile) -> ATAOperation {
        switch command {
        case ATACommand.packet: return .packet(isDMA: file.features & 1 != 0)
        case ATACommand.identifyPacketDevice: return .dataIn(identifyPacketDevice(), .programmed(blockByteCount: 512))
        case ATACommand.deviceReset:
            file.setSignature(isPacketDevice: true)
            return .done
        case ATACommand.identifyDevice, ATACommand.readSectors:
            // ATA8-ACS: a packet device aborts these and shows its signature, by which hosts know it.
            file.setSignature(isPacketDevice: true)
            return refuse(&file)
        case ATACommand.flushCache: return complete(&file)
        default: return beginCommon(command, &file)
        }
    }

    /// Commands of both kinds of device.
    private mutating func beginCommon(_ command: UInt8, _ file: inout TaskFile) -> ATAOperation {
        switch command {
        case ATACommand.setFeatures: return setFeatures(&file)
        case ATACommand.executeDeviceDiagnostic:
            file.setSignature(isPacketDevice: kind == .packetDevice)
            return .done
        case ATACommand.standbyImmediate, ATACommand.standby, ATACommand.sleep:
            isStandby = true
            return complete(&file)
        case ATACommand.idleImmediate, ATACommand.idle:
            isStandby = false
            return complete(&file)
        case ATACommand.checkPowerMode:
            file.count = isStandby ? 0x00 : 0xFF
            return complete(&file)
        default: return refuse(&file)
        }
    }

    // MARK: Transfers

    /// The sectors a command names, within the capacity; nil else. A count of 0 is the largest.
    private func range(_ file: TaskFile, isExtended: Bool) -> (sector: UInt64, count: Int)? {
        let count: Int, sector: UInt64
        if isExtended {
            count = file.count == 0 ? 65536 : Int(file.count)
            sector = file.lba48
        } else {
            count = file.count & 0xFF == 0 ? 256 : Int(file.count & 0xFF)
            if file.device & TaskFile.Device.lba != 0 {
                sector = file.lba28
            } else {
                // Cylinder, head and a sector that counts from 1.
                let cylinder = UInt64(file.lbaMid & 0xFF) | UInt64(file.lbaHigh & 0xFF) << 8
                guard file.lbaLow & 0xFF != 0 else { return nil }
                sector =
                    (cylinder * UInt64(headCount) + UInt64(file.device & 0x0F)) * UInt64(sectorsPerTrack)
                    + UInt64(file.lbaLow & 0xFF) - 1
            }
        }
        return isInside(sector, count) ? (sector, count) : nil
    }

    private func isInside(_ sector: UInt64, _ count: Int) -> Bool {
        sector <= sectorCount && UInt64(count) <= sectorCount - sector
    }

    private mutating func transfer(
        _ file: inout TaskFile, isWrite: Bool, isExtended: Bool, _ means: ATAProtocol, isDurable: Bool = false
    ) -> ATAOperation {
        isStandby = false
        if isWrite, isReadOnly { return refuse(&file) }
        guard let range = range(file, isExtended: isExtended) else {
            return refuse(&file, TaskFile.ErrorBits.idNotFound)
        }
        return .transfer(work(range.sector, range.count, isWrite: isWrite, isDurable: isDurable), means)
    }

    private func work(_ sector: UInt64, _ count: Int, isWrite: Bool, isDurable: Bool) -> DiskWork {
        // In range: the capacity has 48 bits of sectors.
        let offset = sector &* 512
        return isWrite
            ? .write(offset: offset, byteCount: count * 512, isDurable: isDurable || !isWriteCacheEnabled)
            : .read(offset: offset, byteCount: count * 512)
    }

    private mutating func multiple(_ file: inout TaskFile, isWrite: Bool, isExtended: Bool, isDurable: Bool = false)
        -> ATAOperation
    {
        guard multipleCount > 0 else { return refuse(&file) }
        return transfer(
            &file, isWrite: isWrite, isExtended: isExtended, .programmed(blockByteCount: 512 * Int(multipleCount)),
            isDurable: isDurable)
    }

    private mutating func queued(_ file: inout TaskFile) -> ATAOperation {
        guard isSerial else { return refuse(&file) }
        isStandby = false
        let isWrite = file.command == ATACommand.writeFPDMAQueued
        let count = file.features == 0 ? 65536 : Int(file.features), sector = file.lba48
        let tag = UInt8(truncatingIfNeeded: file.count) >> 3
        let isDurable = file.device & TaskFile.Device.forceUnitAccess != 0
        guard isInside(sector, count), !(isWrite && isReadOnly) else {
            let error = isInside(sector, count) ? TaskFile.ErrorBits.aborted : TaskFile.ErrorBits.idNotFound
            _ = refuse(&file, error)
            failedCommand = (tag, file)
            return .done
        }
        return .transfer(work(sector, count, isWrite: isWrite, isDurable: isDurable), .queued(tag: tag))
    }

    private mutating func dataSetManagement(_ file: inout TaskFile) -> ATAOperation {
        guard file.features & 1 != 0, !isReadOnly, file.count > 0, file.count <= Self.trimBlockLimit else {
            return refuse(&file)
        }
        return .trim(byteCount: Int(file.count) * 512)
    }

    /// The ranges of a DATA SET MANAGEMENT's data: eight bytes each, 48 bits of address and 16 of count. Nil where one leaves the
    /// disk: the command is aborted.
    package func trimRanges(_ data: [UInt8]) -> [ByteRange]? {
        var ranges: [ByteRange] = []
        for start in stride(from: 0, to: data.count - 7, by: 8) {
            var entry: UInt64 = 0
            for index in 0..<8 { entry |= UInt64(data[start + index]) << UInt64(8 * index) }
            let sector = entry & 0xFFFF_FFFF_FFFF, count = Int(entry >> 48)
            guard count > 0 else { continue }
            guard isInside(sector, count) else { return nil }
            ranges.append(ByteRange(offset: sector &* 512, byteCount: UInt64(count) * 512))
        }
        return ranges
    }

    // MARK: Settings

    private mutating func setMultiple(_ file: inout TaskFile) -> ATAOperation {
        let count = UInt8(truncatingIfNeeded: file.count)
        guard count <= Self.multipleLimit, count & (count &- 1) == 0 else { return refuse(&file) }
        multipleCount = count
        return complete(&file)
    }

    private mutating func setFeatures(_ file: inout TaskFile) -> ATAOperation {
        switch file.features & 0xFF {
        case 0x02 where kind == .disk:
            isWriteCacheEnabled = true
            return complete(&file)
        case 0x82 where kind == .disk:
            isWriteCacheEnabled = false
            // What the cache holds must not be less durable than the writes that follow.
            return .flush
        case 0x03:
            // PIO default and flow control, multiword DMA 0-2, Ultra DMA 0-5 (table "transfer modes").
            let mode = UInt8(truncatingIfNeeded: file.count)
            guard
                mode < 0x02 || (0x08...0x0C).contains(mode) || (0x20...0x22).contains(mode)
                    || (0x40...0x45).contains(mode)
            else {
                return refuse(&file)
            }
            transferMode = mode
            return complete(&file)
        // Look-ahead, reverting to defaults, acoustic and power management: taken, without effect on an image.
        case 0x05, 0x42, 0x55, 0x66, 0x85, 0xAA, 0xC2, 0xCC: return complete(&file)
        default: return refuse(&file)
        }
    }

    func complete(_ file: inout TaskFile) -> ATAOperation {
        file.succeed()
        return .done
    }

    func refuse(_ file: inout TaskFile, _ error: UInt8 = TaskFile.ErrorBits.aborted) -> ATAOperation {
        file.fail(error)
        return .done
    }

    // MARK: Saved state

    package func save(into writer: inout StateWriter) {
        for byte in [multipleCount, transferMode, headCount, sectorsPerTrack] { writer.write(byte) }
        for flag in [isWriteCacheEnabled, isSMARTEnabled, isStandby] { writer.write(flag) }
        writer.write(failedCommand != nil)
        writer.write(failedCommand?.tag ?? 0)
        (failedCommand?.file ?? TaskFile()).save(into: &writer)
    }

    package mutating func restore(from reader: inout StateReader) throws(DeviceStateError) {
        let multiple = try reader.read(UInt8.self), mode = try reader.read(UInt8.self)
        let heads = try reader.read(UInt8.self), track = try reader.read(UInt8.self)
        guard multiple <= Self.multipleLimit, heads > 0, heads <= 16, track > 0 else {
            throw DeviceStateError(section: reader.section, reason: "has ATA settings no command can make")
        }
        (multipleCount, transferMode, headCount, sectorsPerTrack) = (multiple, mode, heads, track)
        isWriteCacheEnabled = try reader.readBool()
        isSMARTEnabled = try reader.readBool()
        isStandby = try reader.readBool()
        let hasFailed = try reader.readBool()
        let tag = try reader.read(UInt8.self)
        let file = try TaskFile(from: &reader)
        failedCommand = hasFailed ? (tag & 0x1F, file) : nil
    }
}

extension TaskFile {
    package func save(into writer: inout StateWriter) {
        for word in [features, count, lbaLow, lbaMid, lbaHigh] { writer.write(word) }
        for byte in [device, command, status, error] { writer.write(byte) }
    }

    package init(from reader: inout StateReader) throws(DeviceStateError) {
        features = try reader.read()
        count = try reader.read()
        lbaLow = try reader.read()
        lbaMid = try reader.read()
        lbaHigh = try reader.read()
        device = try reader.read()
        command = try reader.read()
        status = try reader.read()
        error = try reader.read()
    }
}
