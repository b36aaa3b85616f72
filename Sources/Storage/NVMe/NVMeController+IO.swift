// Commands of I/O queues (NVM Express 1.4 §6): Read, Write, Flush, Write Zeroes, Dataset Management.
import DiskImage
import GuestMemory
import Synchronization

extension NVMeController {
    /// Takes a command of an I/O queue, whose lock is held; slot `tag` is free.
    func beginIO(_ command: NVMeCommand, _ tag: Int, _ submission: inout Submission) -> Outcome {
        guard !command.usesUnofferedForm else { return .ended(.invalidField) }
        if command.operation == NVMeOperation.flush {
            guard command.namespaceID == 1 || command.namespaceID == .max else { return .ended(.invalidNamespace) }
            return start(.flush, tag, &submission)
        }
        switch command.operation {
        case NVMeOperation.read, NVMeOperation.write, NVMeOperation.writeZeroes, NVMeOperation.dataSetManagement: break
        default: return .ended(.invalidOpcode)
        }
        guard command.namespaceID == 1 else { return .ended(.invalidNamespace) }
        if command.operation != NVMeOperation.read, image.isReadOnly { return .ended(.writeProtected) }
        if command.operation == NVMeOperation.dataSetManagement { return dataSetManagement(command, tag, &submission) }

        let first = command.firstBlock, count = command.blockCount
        guard isInside(first, UInt64(count)) else { return .ended(.blockOutOfRange) }
        let offset = first &* 512, byteCount = count * 512
        if command.operation == NVMeOperation.writeZeroes {
            let deallocates = command.word12 & 1 << 25 != 0  // DEAC
            return start(
                .writeZeroes([ByteRange(offset: offset, byteCount: UInt64(byteCount))], mayUnmap: deallocates), tag,
                &submission)
        }
        let status = gather(command, byteCount, tag, &submission)
        guard status == .success else { return .ended(status) }
        if command.operation == NVMeOperation.read {
            return start(.read(offset: offset, byteCount: byteCount), tag, &submission)
        }
        let isForced = command.word12 & 1 << 30 != 0  // FUA
        let isDurable = isForced || !registers.withLock { $0.isWriteCacheEnabled }
        return start(.write(offset: offset, byteCount: byteCount, isDurable: isDurable), tag, &submission)
    }

    private func isInside(_ first: UInt64, _ count: UInt64) -> Bool {
        first <= blockCount && count <= blockCount - first
    }

    func gather(_ command: NVMeCommand, _ byteCount: Int, _ tag: Int, _ submission: inout Submission) -> NVMeStatus {
        submission.transfers.prepare(tag) {
            NVMeRegions.gather(command, byteCount: byteCount, into: &$0, memory: memory)
        }
    }

    /// Ranges of 16 bytes: attributes, length, first block (§6.7). Only Deallocate has an effect.
    private func dataSetManagement(_ command: NVMeCommand, _ tag: Int, _ submission: inout Submission) -> Outcome {
        let count = Int(command.word10 & 0xFF) + 1
        let status = gather(command, count * 16, tag, &submission)
        guard status == .success else { return .ended(status) }
        guard command.word11 & 1 << 2 != 0 else { return .ended(.success) }
        let bytes = submission.transfers.list(tag).bytes(limit: count * 16, memory: memory)
        var ranges: [ByteRange] = []
        for start in stride(from: 0, to: bytes.count - 15, by: 16) {
            let field = { (offset: Int, length: Int) in
                (0..<length).reduce(UInt64(0)) { $0 | UInt64(bytes[start + offset + $1]) << UInt64(8 * $1) }
            }
            let length = field(4, 4), first = field(8, 8)
            guard isInside(first, length) else { return .ended(.blockOutOfRange) }
            ranges.append(ByteRange(offset: first &* 512, byteCount: length * 512))
        }
        return self.start(.discard(ranges), tag, &submission)
    }
}
