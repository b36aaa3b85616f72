// SMART (ATA8-ACS §7.48) as far as hosts look at boot, and the general purpose logs (annex A) that NCQ's error handling reads.

extension ATADevice {
    /// SMART subcommands, in the features register.
    private enum SMART {
        static let readData: UInt16 = 0xD0
        static let readThresholds: UInt16 = 0xD1
        static let attributeAutosave: UInt16 = 0xD2
        static let executeOffLine: UInt16 = 0xD4
        static let readLog: UInt16 = 0xD5
        static let enable: UInt16 = 0xD8
        static let disable: UInt16 = 0xD9
        static let returnStatus: UInt16 = 0xDA
    }

    mutating func smart(_ file: inout TaskFile) -> ATAOperation {
        // The key that keeps the command from being sent by accident.
        guard file.lbaMid & 0xFF == 0x4F, file.lbaHigh & 0xFF == 0xC2 else { return refuse(&file) }
        let subcommand = file.features & 0xFF
        guard isSMARTEnabled || subcommand == SMART.enable else { return refuse(&file) }
        switch subcommand {
        case SMART.enable, SMART.disable:
            isSMARTEnabled = subcommand == SMART.enable
            return complete(&file)
        // The signature stays as it came: no threshold exceeded.
        case SMART.returnStatus, SMART.attributeAutosave: return complete(&file)
        case SMART.readData: return .dataIn(smartData(), .programmed(blockByteCount: 512))
        case SMART.readThresholds: return .dataIn(checksummed([0x10, 0x00, 12, 0]), .programmed(blockByteCount: 512))
        case SMART.readLog where file.lbaLow & 0xFF == 0x01:  // summary error log: empty
            return .dataIn(checksummed([1]), .programmed(blockByteCount: 512))
        case SMART.readLog where file.lbaLow & 0xFF == 0x06:  // self-test log: empty
            return .dataIn(checksummed([1, 0]), .programmed(blockByteCount: 512))
        case SMART.executeOffLine where [0, 1, 2, 127].contains(file.lbaLow & 0xFF): return complete(&file)
        default: return refuse(&file)
        }
    }

    /// One attribute, power cycles, so that tools find a table.
    private func smartData() -> [UInt8] {
        var data: [UInt8] = [0x10, 0x00, 12, 0x32, 0x00, 100, 100]
        data += [UInt8](repeating: 0, count: 362 - data.count)
        // Off-line collection never started (362), no self-test has run (363); SMART saves its data by itself (368).
        data += [0x00, 0x00, 0, 0, 0, 0x00, 0x03, 0x00]
        return checksummed(data)
    }

    private func checksummed(_ start: [UInt8]) -> [UInt8] {
        var data = start + [UInt8](repeating: 0, count: 512 - start.count)
        data[511] = 0 &- data.reduce(0, &+)
        return data
    }

    /// READ LOG EXT: log address in LBA 7:0, page in LBA 15:8 of both halves, pages in the count.
    mutating func readLog(_ file: inout TaskFile, _ means: ATAProtocol) -> ATAOperation {
        guard file.count == 1, file.lbaMid == 0, isSerial else { return refuse(&file) }
        switch file.lbaLow & 0xFF {
        case 0x00:  // directory
            var data = [UInt8](repeating: 0, count: 512)
            data[0] = 1  // version 1
            data[2 * 0x10] = 1  // one page of log 10h
            return .dataIn(data, means)
        case 0x10: return .dataIn(takeQueuedErrorLog(), means)
        default: return refuse(&file)
        }
    }

    /// Log 10h: which queued command failed, and its registers (annex A.7).
    private mutating func takeQueuedErrorLog() -> [UInt8] {
        guard let failed = failedCommand else { return checksummed([0x80]) }  // NQ: not a queued command
        failedCommand = nil
        let file = failed.file
        let low = { (word: UInt16) in UInt8(truncatingIfNeeded: word) }
        let high = { (word: UInt16) in UInt8(truncatingIfNeeded: word >> 8) }
        return checksummed([
            failed.tag & 0x1F, 0, file.status, file.error, low(file.lbaLow), low(file.lbaMid), low(file.lbaHigh),
            file.device,
            high(file.lbaLow), high(file.lbaMid), high(file.lbaHigh), 0, low(file.count), high(file.count),
        ])
    }
}
