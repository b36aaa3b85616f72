// Controller registers (NVM Express 1.4 §3.1) and the entries of its queues (§4.2, §4.6), by the specification's names.

enum NVMeRegister {
    static let capabilities: UInt64 = 0x00  // CAP
    static let version: UInt64 = 0x08  // VS
    static let interruptMaskSet: UInt64 = 0x0C  // INTMS
    static let interruptMaskClear: UInt64 = 0x10  // INTMC
    static let configuration: UInt64 = 0x14  // CC
    static let status: UInt64 = 0x1C  // CSTS
    static let adminQueueAttributes: UInt64 = 0x24  // AQA
    static let adminSubmissionBase: UInt64 = 0x28  // ASQ
    static let adminCompletionBase: UInt64 = 0x30  // ACQ
    static let firstDoorbell: UInt64 = 0x1000

    /// MQES less one; a queue's entries at most.
    static let queueEntryLimit = 1024
    /// MQES, CQR (queues are contiguous), TO in halves of a second, CSS: NVM; DSTRD, MPSMIN and MPSMAX 0.
    static let capabilityBits: UInt64 = UInt64(queueEntryLimit - 1) | 1 << 16 | 60 << 24 | 1 << 37
    static let versionNumber: UInt32 = 0x0001_0400

    enum Configuration {
        static let enable: UInt32 = 1  // EN
        /// What is writable: EN, CSS, MPS, AMS, SHN, IOSQES, IOCQES.
        static let writable: UInt32 = 0x00FF_FFF1
        static func shutdown(_ value: UInt32) -> UInt32 { value >> 14 & 3 }  // SHN
    }
    enum Status {
        static let ready: UInt32 = 1  // RDY
        static let fatal: UInt32 = 2  // CFS
        static let shutdownOccurring: UInt32 = 1 << 2  // SHST
        static let shutdownComplete: UInt32 = 2 << 2
        static let shutdownMask: UInt32 = 3 << 2
    }
}

/// A submission queue entry, 64 bytes.
struct NVMeCommand: BitwiseCopyable {
    var word0: UInt32 = 0
    var namespaceID: UInt32 = 0
    var reserved: UInt64 = 0
    var metadata: UInt64 = 0
    var region1: UInt64 = 0  // PRP1
    var region2: UInt64 = 0  // PRP2
    var word10: UInt32 = 0
    var word11: UInt32 = 0
    var word12: UInt32 = 0
    var word13: UInt32 = 0
    var word14: UInt32 = 0
    var word15: UInt32 = 0

    static let byteCount: UInt64 = 64
    var operation: UInt8 { UInt8(word0 & 0xFF) }
    var identifier: UInt16 { UInt16(word0 >> 16) }
    /// FUSE and PSDT: fused commands and SGLs are not offered.
    var usesUnofferedForm: Bool { word0 & 0xC300 != 0 }
    var firstBlock: UInt64 { UInt64(word10) | UInt64(word11) << 32 }
    /// NLB counts from 0.
    var blockCount: Int { Int(word12 & 0xFFFF) + 1 }
}

enum NVMeAdmin {
    static let deleteSubmissionQueue: UInt8 = 0x00
    static let createSubmissionQueue: UInt8 = 0x01
    static let getLogPage: UInt8 = 0x02
    static let deleteCompletionQueue: UInt8 = 0x04
    static let createCompletionQueue: UInt8 = 0x05
    static let identify: UInt8 = 0x06
    static let abort: UInt8 = 0x08
    static let setFeatures: UInt8 = 0x09
    static let getFeatures: UInt8 = 0x0A
    static let asynchronousEventRequest: UInt8 = 0x0C
}

enum NVMeOperation {
    static let flush: UInt8 = 0x00
    static let write: UInt8 = 0x01
    static let read: UInt8 = 0x02
    static let writeZeroes: UInt8 = 0x08
    static let dataSetManagement: UInt8 = 0x09
}

/// Status Code Type and Status Code of a completion (§4.6.1.2).
struct NVMeStatus: Equatable, Sendable {
    let rawValue: UInt16
    private init(_ type: UInt16, _ code: UInt16) { rawValue = type << 8 | code }

    static let success = NVMeStatus(0, 0x00)
    static let invalidOpcode = NVMeStatus(0, 0x01)
    static let invalidField = NVMeStatus(0, 0x02)
    static let dataTransferError = NVMeStatus(0, 0x04)
    static let internalError = NVMeStatus(0, 0x06)
    static let invalidNamespace = NVMeStatus(0, 0x0B)
    static let invalidRegionOffset = NVMeStatus(0, 0x13)
    static let writeProtected = NVMeStatus(0, 0x20)
    static let blockOutOfRange = NVMeStatus(0, 0x80)
    static let completionQueueInvalid = NVMeStatus(1, 0x00)
    static let invalidQueueIdentifier = NVMeStatus(1, 0x01)
    static let invalidQueueSize = NVMeStatus(1, 0x02)
    static let eventRequestLimitExceeded = NVMeStatus(1, 0x05)
    static let invalidInterruptVector = NVMeStatus(1, 0x08)
    static let invalidLogPage = NVMeStatus(1, 0x09)
    static let invalidQueueDeletion = NVMeStatus(1, 0x0C)
    static let featureNotSaveable = NVMeStatus(1, 0x0D)
    static let featureNotChangeable = NVMeStatus(1, 0x0E)
    static let writeFault = NVMeStatus(2, 0x80)
    static let unrecoveredReadError = NVMeStatus(2, 0x81)
}
