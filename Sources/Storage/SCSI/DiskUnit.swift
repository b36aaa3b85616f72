// A SCSI disk of 512-byte blocks (SBC-3), thin provisioned, with a write cache that a host can turn off. Mode pages and vital product
// data are in DiskUnit+Pages.swift.
package import MachineCore

package struct DiskUnit: LogicalUnit {
    package static let blockByteCount: UInt64 = 512
    /// Blocks of one command: what BLOCK LIMITS says.
    static let transferLimit: UInt64 = 0xFFFF
    static let unmapBlockLimit: UInt64 = 1 << 22
    static let unmapDescriptorLimit = 256
    static let writeSameLimit: UInt64 = 1 << 22

    let identity: DriveIdentity
    let isReadOnly: Bool
    let physicalBlockByteCount: UInt32
    package internal(set) var blockCount: UInt64
    var isWriteCacheEnabled = true
    private var sense: SenseData?
    private var unitAttention: SenseData? = .powerOnOrReset

    package init(identity: DriveIdentity, byteCount: UInt64, isReadOnly: Bool, physicalBlockByteCount: UInt32) {
        self.identity = identity
        self.isReadOnly = isReadOnly
        self.physicalBlockByteCount = physicalBlockByteCount
        blockCount = byteCount / Self.blockByteCount
    }

    package var isRemovable: Bool { false }

    package mutating func reset() {
        isWriteCacheEnabled = true
        sense = nil
        unitAttention = .powerOnOrReset
    }

    /// The image was grown: the host is told with its next command.
    package mutating func setByteCount(_ byteCount: UInt64) {
        guard byteCount / Self.blockByteCount != blockCount else { return }
        blockCount = byteCount / Self.blockByteCount
        if unitAttention == nil { unitAttention = .capacityChanged }
    }

    package mutating func takeSense() -> SenseData? {
        defer { sense = nil }
        return sense
    }

    package func parameterByteCount(of block: CommandBlock) -> Int {
        switch block.operation {
        case SCSIOperation.modeSelect6: Int(block[4])
        case SCSIOperation.modeSelect10, SCSIOperation.unmap: Int(block.field(7, 2))
        case SCSIOperation.writeSame10: Int(Self.blockByteCount)
        case SCSIOperation.writeSame16: block[1] & 1 != 0 ? 0 : Int(Self.blockByteCount)  // NDOB: without data
        default: 0
        }
    }

    package mutating func perform(_ block: CommandBlock, parameters: [UInt8]) -> SCSIAnswer {
        let answer = answer(block, parameters)
        switch answer {
        case .failed(let reason): sense = reason
        default: if block.operation != SCSIOperation.requestSense { sense = nil }
        }
        return answer
    }

    package mutating func end(of work: DiskWork, errno: Int32) -> SenseData? {
        guard errno != 0 else { return nil }
        switch work {
        case .read: sense = .unrecoveredReadError
        case .write, .writeZeroes:
            sense = errno == 28 ? SenseData(key: 0x7, code: 0x27, qualifier: 0x07) : .writeError  // ENOSPC
        case .flush, .discard: sense = .internalTargetFailure
        }
        return sense
    }

    private mutating func answer(_ block: CommandBlock, _ parameters: [UInt8]) -> SCSIAnswer {
        switch block.operation {
        case SCSIOperation.inquiry: return inquiry(block)
        case SCSIOperation.requestSense: return requestSense(block)
        default: break
        }
        // SAM-4 §5.14: told once, by the first command but those above.
        if let attention = unitAttention {
            unitAttention = nil
            return .failed(attention)
        }
        switch block.operation {
        case SCSIOperation.testUnitReady, SCSIOperation.startStopUnit, SCSIOperation.preventAllowMediumRemoval,
            SCSIOperation.reserve6,
            SCSIOperation.release6:
            return .good
        // The self-test, of what there is to test.
        case SCSIOperation.sendDiagnostic: return block[1] & 0x04 != 0 ? .good : .failed(.invalidField)
        case SCSIOperation.readCapacity10:
            return .data(bigEndian(min(blockCount &- 1, 0xFFFF_FFFF), 4) + bigEndian(Self.blockByteCount, 4))
        case SCSIOperation.serviceActionIn16 where block[1] & 0x1F == 0x10: return readCapacity16(block)
        case SCSIOperation.read6: return transfer(block.field(1, 3) & 0x1F_FFFF, block[4] == 0 ? 256 : UInt64(block[4]))
        case SCSIOperation.write6:
            return transfer(block.field(1, 3) & 0x1F_FFFF, block[4] == 0 ? 256 : UInt64(block[4]), isWrite: true)
        case SCSIOperation.read10: return transfer(block.field(2, 4), block.field(7, 2))
        case SCSIOperation.read12: return transfer(block.field(2, 4), block.field(6, 4))
        case SCSIOperation.read16: return transfer(block.field(2, 8), block.field(10, 4))
        case SCSIOperation.write10:
            return transfer(block.field(2, 4), block.field(7, 2), isWrite: true, isForced: block[1] & 8 != 0)
        case SCSIOperation.write12:
            return transfer(block.field(2, 4), block.field(6, 4), isWrite: true, isForced: block[1] & 8 != 0)
        case SCSIOperation.write16:
            return transfer(block.field(2, 8), block.field(10, 4), isWrite: true, isForced: block[1] & 8 != 0)
        case SCSIOperation.verify10: return verify(block, block.field(2, 4), block.field(7, 2))
        case SCSIOperation.verify16: return verify(block, block.field(2, 8), block.field(10, 4))
        case SCSIOperation.synchronizeCache10, SCSIOperation.synchronizeCache16: return .work(.flush)
        case SCSIOperation.unmap: return unmap(block, parameters)
        case SCSIOperation.writeSame10: return writeSame(block, block.field(2, 4), block.field(7, 2), parameters)
        case SCSIOperation.writeSame16: return writeSame(block, block.field(2, 8), block.field(10, 4), parameters)
        case SCSIOperation.modeSense6, SCSIOperation.modeSense10: return modeSense(block)
        case SCSIOperation.modeSelect6, SCSIOperation.modeSelect10: return modeSelect(block, parameters)
        default: return .failed(.invalidOperation)
        }
    }

    private mutating func requestSense(_ block: CommandBlock) -> SCSIAnswer {
        guard block[1] & 1 == 0 else { return .failed(.invalidField) }  // descriptor format
        let reason = sense ?? unitAttention ?? .none
        if sense == nil { unitAttention = nil }
        sense = nil
        return .data(Array(reason.bytes.prefix(Int(block[4]))))
    }

    // MARK: Blocks

    private func isInside(_ first: UInt64, _ count: UInt64) -> Bool {
        first <= blockCount && count <= blockCount - first
    }

    private func transfer(_ first: UInt64, _ count: UInt64, isWrite: Bool = false, isForced: Bool = false) -> SCSIAnswer
    {
        guard count <= Self.transferLimit else { return .failed(.invalidField) }
        guard isInside(first, count) else { return .failed(.outOfRange) }
        if isWrite, isReadOnly { return .failed(.writeProtected) }
        guard count > 0 else { return .good }
        let offset = first &* Self.blockByteCount, byteCount = Int(count * Self.blockByteCount)
        return .work(
            isWrite
                ? .write(offset: offset, byteCount: byteCount, isDurable: isForced || !isWriteCacheEnabled)
                : .read(offset: offset, byteCount: byteCount))
    }

    /// Without data to compare (BYTCHK): the medium is an image, and what could not be read is found out by reading it.
    private func verify(_ block: CommandBlock, _ first: UInt64, _ count: UInt64) -> SCSIAnswer {
        guard block[1] & 0x06 == 0 else { return .failed(.invalidField) }
        return isInside(first, count) ? .good : .failed(.outOfRange)
    }

    /// SBC-3 §5.28: eight bytes of header, then descriptors of sixteen.
    private func unmap(_ block: CommandBlock, _ parameters: [UInt8]) -> SCSIAnswer {
        guard !isReadOnly else { return .failed(.writeProtected) }
        guard block[1] & 1 == 0 else { return .failed(.invalidField) }  // ANCHOR
        guard !parameters.isEmpty else { return .good }
        guard parameters.count >= 8 else { return .failed(.parameterListLengthError) }
        let list = CommandBlock(parameters)
        let count = min(Int(list.field(2, 2)), parameters.count - 8) / 16
        guard count <= Self.unmapDescriptorLimit else { return .failed(.invalidParameter) }
        var ranges: [ByteRange] = [], total: UInt64 = 0
        for index in 0..<count {
            let first = list.field(8 + 16 * index, 8), length = list.field(16 + 16 * index, 4)
            guard isInside(first, length) else { return .failed(.outOfRange) }
            total += length
            guard total <= Self.unmapBlockLimit else { return .failed(.invalidParameter) }
            ranges.append(ByteRange(offset: first &* Self.blockByteCount, byteCount: length * Self.blockByteCount))
        }
        return .work(.discard(ranges))
    }

    /// Of zeroes only: no host fills a disk with a pattern by this command, and a device may refuse one (SBC-3 §5.44).
    private func writeSame(_ block: CommandBlock, _ first: UInt64, _ count: UInt64, _ parameters: [UInt8]) -> SCSIAnswer
    {
        guard !isReadOnly else { return .failed(.writeProtected) }
        guard block[1] & 0x10 == 0 else { return .failed(.invalidField) }  // ANCHOR
        // A count of 0 would mean all the rest: BLOCK LIMITS says that it is not taken (WSNZ).
        guard count > 0, count <= Self.writeSameLimit else { return .failed(.invalidField) }
        guard isInside(first, count) else { return .failed(.outOfRange) }
        let wanted = parameterByteCount(of: block)
        guard parameters.count == wanted, parameters.allSatisfy({ $0 == 0 }) else { return .failed(.invalidField) }
        let range = ByteRange(offset: first &* Self.blockByteCount, byteCount: count * Self.blockByteCount)
        return .work(.writeZeroes([range], mayUnmap: block[1] & 0x08 != 0))
    }

    // MARK: Saved state

    package func save(into writer: inout StateWriter) {
        writer.write(blockCount)
        writer.write(isWriteCacheEnabled)
        for item in [sense, unitAttention] {
            writer.write(item != nil)
            for byte in [item?.key ?? 0, item?.code ?? 0, item?.qualifier ?? 0] { writer.write(byte) }
        }
    }

    package mutating func restore(from reader: inout StateReader) throws(DeviceStateError) {
        let saved = try reader.read(UInt64.self)
        guard saved <= blockCount else {
            throw DeviceStateError(
                section: reader.section, reason: "the disk had \(saved) blocks and has \(blockCount) now")
        }
        isWriteCacheEnabled = try reader.readBool()
        sense = try SenseData.read(from: &reader)
        unitAttention = try SenseData.read(from: &reader)
        if saved < blockCount, unitAttention == nil { unitAttention = .capacityChanged }
    }
}
