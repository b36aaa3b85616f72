// A SCSI logical unit apart from its transport: command descriptor block in, answer out (SAM-4, SPC-3). ATAPI (AHCI, IDE) and
// virtio-scsi drive the same units.
//
// Life of a command: the transport fetches `parameterByteCount` bytes from the host, calls `perform`, moves the data or hands
// the work to the image, and for work calls `end` with its errno. A unit is a value under its transport's lock.
package import MachineCore

/// A command descriptor block. Bytes beyond its end read as zero.
package struct CommandBlock: Sendable, Equatable {
    package let bytes: [UInt8]

    package init(_ bytes: [UInt8]) { self.bytes = bytes }

    package var operation: UInt8 { self[0] }
    package subscript(index: Int) -> UInt8 { bytes.indices.contains(index) ? bytes[index] : 0 }
    /// A big-endian field of `count` bytes, at most eight.
    package func field(_ index: Int, _ count: Int) -> UInt64 {
        (0..<count).reduce(0) { $0 << 8 | UInt64(self[index + $1]) }
    }
}

/// Why a command failed (SPC-3 §4.5).
package struct SenseData: Sendable, Equatable {
    package var key: UInt8
    /// Additional sense code and its qualifier.
    package var code: UInt8
    package var qualifier: UInt8

    package init(key: UInt8, code: UInt8, qualifier: UInt8 = 0) {
        self.key = key
        self.code = code
        self.qualifier = qualifier
    }

    package static let none = SenseData(key: 0x0, code: 0x00)
    package static let mediumNotPresent = SenseData(key: 0x2, code: 0x3A)
    package static let trayOpen = SenseData(key: 0x2, code: 0x3A, qualifier: 0x02)
    package static let unrecoveredReadError = SenseData(key: 0x3, code: 0x11)
    package static let writeError = SenseData(key: 0x3, code: 0x0C)
    package static let internalTargetFailure = SenseData(key: 0x4, code: 0x44)
    package static let parameterListLengthError = SenseData(key: 0x5, code: 0x1A)
    package static let invalidOperation = SenseData(key: 0x5, code: 0x20)
    package static let outOfRange = SenseData(key: 0x5, code: 0x21)
    package static let invalidField = SenseData(key: 0x5, code: 0x24)
    package static let logicalUnitNotSupported = SenseData(key: 0x5, code: 0x25)
    package static let invalidParameter = SenseData(key: 0x5, code: 0x26)
    package static let savingNotSupported = SenseData(key: 0x5, code: 0x39)
    package static let mediumRemovalPrevented = SenseData(key: 0x5, code: 0x53, qualifier: 0x02)
    package static let mediumMayHaveChanged = SenseData(key: 0x6, code: 0x28)
    package static let powerOnOrReset = SenseData(key: 0x6, code: 0x29)
    package static let capacityChanged = SenseData(key: 0x6, code: 0x2A, qualifier: 0x09)
    package static let writeProtected = SenseData(key: 0x7, code: 0x27)

    /// Fixed format, 18 bytes.
    package var bytes: [UInt8] { [0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, qualifier, 0, 0, 0, 0] }
}

/// What a command comes to.
package enum SCSIAnswer: Sendable, Equatable {
    case good
    /// To the host, cut to the allocation length already.
    case data([UInt8])
    /// Work for the image, with the data it names.
    case work(DiskWork)
    /// CHECK CONDITION. The unit keeps the sense for REQUEST SENSE until the next command, unless the transport clears it.
    case failed(SenseData)
}

package protocol LogicalUnit: Sendable {
    var isRemovable: Bool { get }
    /// How many bytes of parameters the command takes from the host, at most 64 KiB. Work's data does not count.
    func parameterByteCount(of block: CommandBlock) -> Int
    /// `parameters`: as many as the transport got, which may be fewer.
    mutating func perform(_ block: CommandBlock, parameters: [UInt8]) -> SCSIAnswer
    /// The work of `block` ended with this errno: nil, or the sense of its failure.
    mutating func end(of work: DiskWork, errno: Int32) -> SenseData?
    /// What REQUEST SENSE would tell, taken: for transports that send it along.
    mutating func takeSense() -> SenseData?
    mutating func reset()
    func save(into writer: inout StateWriter)
    mutating func restore(from reader: inout StateReader) throws(DeviceStateError)
}

/// Operation codes (SPC-3, SBC-3, MMC-6).
enum SCSIOperation {
    static let testUnitReady: UInt8 = 0x00
    static let requestSense: UInt8 = 0x03
    static let read6: UInt8 = 0x08
    static let write6: UInt8 = 0x0A
    static let inquiry: UInt8 = 0x12
    static let modeSelect6: UInt8 = 0x15
    static let reserve6: UInt8 = 0x16
    static let release6: UInt8 = 0x17
    static let modeSense6: UInt8 = 0x1A
    static let startStopUnit: UInt8 = 0x1B
    static let sendDiagnostic: UInt8 = 0x1D
    static let preventAllowMediumRemoval: UInt8 = 0x1E
    static let readCapacity10: UInt8 = 0x25
    static let read10: UInt8 = 0x28
    static let write10: UInt8 = 0x2A
    static let seek10: UInt8 = 0x2B
    static let verify10: UInt8 = 0x2F
    static let synchronizeCache10: UInt8 = 0x35
    static let writeSame10: UInt8 = 0x41
    static let unmap: UInt8 = 0x42
    static let readTOC: UInt8 = 0x43
    static let getConfiguration: UInt8 = 0x46
    static let getEventStatusNotification: UInt8 = 0x4A
    static let readDiscInformation: UInt8 = 0x51
    static let modeSelect10: UInt8 = 0x55
    static let modeSense10: UInt8 = 0x5A
    static let read16: UInt8 = 0x88
    static let write16: UInt8 = 0x8A
    static let verify16: UInt8 = 0x8F
    static let synchronizeCache16: UInt8 = 0x91
    static let writeSame16: UInt8 = 0x93
    static let serviceActionIn16: UInt8 = 0x9E
    static let reportLUNs: UInt8 = 0xA0
    static let read12: UInt8 = 0xA8
    static let write12: UInt8 = 0xAA
    static let readDVDStructure: UInt8 = 0xAD
    static let setCDSpeed: UInt8 = 0xBB
    static let mechanismStatus: UInt8 = 0xBD
    static let readCD: UInt8 = 0xBE
}

/// Big-endian bytes of a field.
func bigEndian(_ value: UInt64, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - $0))) }
}
