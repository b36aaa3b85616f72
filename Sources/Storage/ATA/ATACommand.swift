// Command codes (ATA8-ACS §7, obsolete ones from ATA-3 that old guests still send).

package enum ATACommand {
    static let nop: UInt8 = 0x00
    static let dataSetManagement: UInt8 = 0x06
    static let deviceReset: UInt8 = 0x08
    static let recalibrate: ClosedRange<UInt8> = 0x10...0x1F
    static let readSectors: UInt8 = 0x20
    static let readSectorsNoRetry: UInt8 = 0x21
    static let readSectorsExt: UInt8 = 0x24
    static let readDMAExt: UInt8 = 0x25
    static let readNativeMaxExt: UInt8 = 0x27
    static let readMultipleExt: UInt8 = 0x29
    static let readLogExt: UInt8 = 0x2F
    static let writeSectors: UInt8 = 0x30
    static let writeSectorsNoRetry: UInt8 = 0x31
    static let writeSectorsExt: UInt8 = 0x34
    static let writeDMAExt: UInt8 = 0x35
    static let writeMultipleExt: UInt8 = 0x39
    static let writeDMAFUAExt: UInt8 = 0x3D
    static let readVerify: UInt8 = 0x40
    static let readVerifyNoRetry: UInt8 = 0x41
    static let readVerifyExt: UInt8 = 0x42
    static let readLogDMAExt: UInt8 = 0x47
    static let readFPDMAQueued: UInt8 = 0x60
    static let writeFPDMAQueued: UInt8 = 0x61
    static let seek: UInt8 = 0x70
    static let executeDeviceDiagnostic: UInt8 = 0x90
    static let initializeDeviceParameters: UInt8 = 0x91
    static let packet: UInt8 = 0xA0
    static let identifyPacketDevice: UInt8 = 0xA1
    static let smart: UInt8 = 0xB0
    static let readMultiple: UInt8 = 0xC4
    static let writeMultiple: UInt8 = 0xC5
    static let setMultiple: UInt8 = 0xC6
    static let readDMA: UInt8 = 0xC8
    static let readDMANoRetry: UInt8 = 0xC9
    static let writeDMA: UInt8 = 0xCA
    static let writeDMANoRetry: UInt8 = 0xCB
    static let writeMultipleFUAExt: UInt8 = 0xCE
    static let standbyImmediate: UInt8 = 0xE0
    static let idleImmediate: UInt8 = 0xE1
    static let standby: UInt8 = 0xE2
    static let idle: UInt8 = 0xE3
    static let checkPowerMode: UInt8 = 0xE5
    static let sleep: UInt8 = 0xE6
    static let flushCache: UInt8 = 0xE7
    static let flushCacheExt: UInt8 = 0xEA
    static let identifyDevice: UInt8 = 0xEC
    static let setFeatures: UInt8 = 0xEF
    static let readNativeMax: UInt8 = 0xF8
    /// The power commands' codes before ATA-2.
    static let oldPowerCodes: [UInt8: UInt8] = [
        0x94: standbyImmediate, 0x95: idleImmediate, 0x96: standby, 0x97: idle, 0x98: checkPowerMode, 0x99: sleep,
    ]
}

/// How a command's data goes between drive and host.
package enum ATAProtocol: Sendable, Equatable {
    /// Through the data register, so many bytes between interrupts.
    case programmed(blockByteCount: Int)
    case dma
    /// FPDMA: up to 32 at once, named by tag.
    case queued(tag: UInt8)
}

/// What a command comes to, checked.
package enum ATAOperation: Sendable, Equatable {
    /// Done, or refused: status and error are in the task file.
    case done
    /// These bytes, to the host.
    case dataIn([UInt8], ATAProtocol)
    /// `work` with as many bytes of data as it names.
    case transfer(DiskWork, ATAProtocol)
    /// Without data.
    case flush
    /// Ranges to forget come from the host first: `ATADevice.trimRanges`.
    case trim(byteCount: Int)
    /// A command packet comes from the host first.
    case packet(isDMA: Bool)
}
