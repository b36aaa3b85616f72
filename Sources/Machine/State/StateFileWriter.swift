// Writes a saved machine: sections, RAM, and last the header, without which nobody takes the file for a saved state.
import Glibc
package import GuestMemory
import HostSystem
import Synchronization

/// A machine's state as it was when its processors and devices had stopped, on its way to a file. RAM is read while it is written:
/// the machine must stand still until `write` returns.
package final class StateFileWriter: Sendable {
    private let sections: [StateSection]
    private let memory: GuestMemory
    private let cancelled = Atomic<Bool>(false)

    init(sections: [StateSection], memory: GuestMemory) {
        self.sections = sections
        self.memory = memory
    }

    /// Makes `write` on another thread give up soon.
    package func cancel() { cancelled.store(true, ordering: .relaxed) }

    /// What is in the file and its length.
    package struct Outcome: Sendable, Equatable {
        package var fileByteCount: UInt64
        package var ram: MemoryImage
    }

    /// A file that can be written anywhere, and is not the one that this machine's RAM is mapped from.
    static func check(_ file: CInt, for memory: GuestMemory) throws {
        var status = stat()
        // SAFETY: fills a local. Anything but a file could make the writer wait for ever.
        guard unsafe fstat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw MachineStateError("save", reason: "the descriptor is no regular file", remedy: "give an empty file, open for reading and writing")
        }
        let flags = fcntl(file, F_GETFL)
        guard flags >= 0, flags & O_ACCMODE != O_RDONLY, flags & O_APPEND == 0 else {
            throw MachineStateError(
                "save", reason: "the file is open for \(flags & O_APPEND != 0 ? "appending" : "reading only")", remedy: "open it for reading and writing")
        }
        guard !memory.isImage(try FileIdentity(of: file)) else {
            throw MachineStateError("save", reason: "this machine's RAM is mapped from that file", remedy: "give another file")
        }
    }

    /// Empties the file and writes it anew; durable when this returns.
    package func write(to file: CInt) throws -> Outcome {
        try Self.check(file, for: memory)
        // Places are known before RAM is: its checksums have a fixed size.
        let chunkCount = Int((memory.byteCount + GuestMemory.chunkByteCount - 1) / GuestMemory.chunkByteCount)
        var all = sections + [SavedMemoryLayout(memory, checksums: [UInt32](repeating: 0, count: chunkCount)).section]
        var entries = all.map { StateTableEntry(name: $0.name, version: $0.version, offset: 0, byteCount: UInt64($0.bytes.count), checksum: 0) }
        entries.append(StateTableEntry(name: StateSectionName.ram, version: 1, offset: 0, byteCount: memory.byteCount, checksum: 0))
        var header = StateHeader()
        header.sectionCount = UInt32(entries.count)
        header.tableByteCount = UInt32(StateTableEntry.encode(entries).count)
        var place = UInt64(StateHeader.byteCount) + UInt64(header.tableByteCount)
        for index in all.indices {
            entries[index].offset = place
            place += entries[index].byteCount
        }
        let sectionsAt = entries[0].offset, ramAt = (place + 4095) & ~4095
        entries[all.count].offset = ramAt
        header.fileByteCount = ramAt + memory.byteCount

        guard ftruncate(file, 0) == 0, ftruncate(file, off_t(clamping: header.fileByteCount)) == 0 else {
            throw HostError("size", subject: "the file for \(header.fileByteCount) bytes of saved state", errno: errno)
        }
        let ram = try memory.write(to: file, at: ramAt) { cancelled.load(ordering: .relaxed) }
        all[all.count - 1] = SavedMemoryLayout(memory, checksums: ram.checksums).section
        for index in all.indices { entries[index].checksum = Checksum.of(all[index].bytes) }
        let table = StateTableEntry.encode(entries)
        header.tableChecksum = Checksum.of(table)
        try writeAll(table + all.flatMap(\.bytes), to: file, at: sectionsAt - UInt64(table.count), named: "saved state")
        // Nothing of the header reaches the disk before all of the rest.
        try synchronise(file)
        try writeAll(header.bytes, to: file, at: 0, named: "saved state")
        try synchronise(file)
        return Outcome(fileByteCount: header.fileByteCount, ram: ram)
    }

    private func synchronise(_ file: CInt) throws(HostError) {
        guard fsync(file) == 0 else { throw HostError("fsync", subject: "saved state", errno: errno) }
    }
}
