// A saved machine in a file, as its reader meets it: hostile until every part has been looked at.
import Glibc
import GuestMemory
import HostSystem
import MachineCore

/// An open saved state whose header and table are whole. The descriptor stays its owner's.
package struct StateFile: Sendable {
    /// More than any one part holds; bounds what a damaged length may ask for.
    private static let sectionByteLimit: UInt64 = 16 << 20

    package let descriptor: CInt
    package let header: StateHeader
    package let entries: [StateTableEntry]
    package let facts: MachineFacts
    package let memory: SavedMemoryLayout
    /// Where RAM begins: a multiple of 4096.
    package let memoryOffset: UInt64

    package init(reading descriptor: CInt) throws {
        var status = stat()
        // SAFETY: fills a local.
        guard unsafe fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw MachineStateError("restore", reason: "the descriptor is no regular file", remedy: "give the file that was saved to, open for reading")
        }
        let name = "saved state"
        let start = try readAll(descriptor, at: 0, count: StateHeader.byteCount, named: name)
        header = try StateHeader(start, actualByteCount: UInt64(clamping: status.st_size))
        let table = try readAll(descriptor, at: UInt64(StateHeader.byteCount), count: Int(header.tableByteCount), named: name)
        entries = try StateTableEntry.decode(table, of: header)
        self.descriptor = descriptor

        var machine = try Self.open(StateSectionName.machine, upTo: MachineFacts.version, in: entries, of: descriptor)
        var layout = try Self.open(StateSectionName.layout, upTo: SavedMemoryLayout.version, in: entries, of: descriptor)
        var nodes: StateReader?
        if entries.contains(where: { $0.name == StateSectionName.nodes }) {
            nodes = try Self.open(StateSectionName.nodes, upTo: MachineFacts.nodesVersion, in: entries, of: descriptor)
        }
        do throws(DeviceStateError) {
            var facts = try MachineFacts(&machine)
            if var reader = nodes { facts.nodes = try MachineFacts.readNodes(&reader) }
            self.facts = facts
            memory = try SavedMemoryLayout(&layout)
        } catch {
            throw MachineStateError.damaged(error.section, error.reason)
        }
        let ram = try Self.find(StateSectionName.ram, in: entries)
        let covered = memory.regions.reduce(UInt64(0)) { $0 &+ $1.byteCount }
        let chunkCount = ram.byteCount / memory.chunkByteCount + (ram.byteCount % memory.chunkByteCount == 0 ? 0 : 1)
        guard ram.version == 1, ram.offset % 4096 == 0, ram.byteCount == facts.memoryByteCount, covered == ram.byteCount,
            UInt64(memory.checksums.count) == chunkCount
        else {
            throw MachineStateError.damaged(
                StateSectionName.ram, "\(ram.byteCount) bytes at \(ram.offset), regions of \(covered) and \(memory.checksums.count) checksums do not belong together")
        }
        memoryOffset = ram.offset
    }

    private static func find(_ name: String, in entries: [StateTableEntry]) throws(MachineStateError) -> StateTableEntry {
        guard let entry = entries.first(where: { $0.name == name }) else { throw .damaged(name, "it is missing") }
        return entry
    }

    private static func open(_ name: String, upTo version: UInt32, in entries: [StateTableEntry], of descriptor: CInt) throws -> StateReader {
        let entry = try find(name, in: entries)
        try check(entry, upTo: version)
        return StateReader(section: name, bytes: try read(entry, of: descriptor))
    }

    static func check(_ entry: StateTableEntry, upTo version: UInt32) throws(MachineStateError) {
        guard entry.version <= version, entry.version > 0 else {
            throw MachineStateError(
                "restore", section: entry.name, reason: "it has version \(entry.version), this program knows up to \(version)",
                remedy: "restore it with the program that saved it, or a later one")
        }
    }

    private static func read(_ entry: StateTableEntry, of descriptor: CInt) throws -> [UInt8] {
        guard entry.byteCount <= sectionByteLimit else { throw MachineStateError.damaged(entry.name, "\(entry.byteCount) bytes") }
        let bytes = try readAll(descriptor, at: entry.offset, count: Int(entry.byteCount), named: "section \(entry.name) of the saved state")
        guard bytes.count == Int(entry.byteCount), Checksum.of(bytes) == entry.checksum else {
            throw MachineStateError.damaged(entry.name, "its checksum does not match")
        }
        return bytes
    }

    /// A section whole and of a version that its reader knows.
    package func section(_ name: String, upTo version: UInt32) throws -> StateSection {
        let entry = try Self.find(name, in: entries)
        try Self.check(entry, upTo: version)
        return StateSection(name: name, version: entry.version, bytes: try Self.read(entry, of: descriptor))
    }

    /// What it is, in words.
    package var summary: String {
        "saved state of a \(facts.type) machine with \(facts.memoryByteCount >> 20) MiB of RAM and \(facts.topology.count) vCPUs: format \(header.version), "
            + "\(entries.count) sections, \(header.fileByteCount) bytes, saved \(facts.savedAt) s after 1970-01-01 00:00 UTC"
    }

    /// Reads everything and compares every checksum, RAM's too: takes as long as reading the file does.
    package func verify() throws {
        for entry in entries where entry.name != StateSectionName.ram { _ = try Self.read(entry, of: descriptor) }
        for (number, checksum) in memory.checksums.enumerated() {
            let start = UInt64(number) * memory.chunkByteCount
            let count = Int(min(memory.chunkByteCount, facts.memoryByteCount - start))
            let bytes = try readAll(descriptor, at: memoryOffset + start, count: count, named: "RAM of the saved state")
            guard bytes.count == count, Checksum.of(bytes) == checksum else {
                throw MachineStateError.damaged(StateSectionName.ram, "the checksum of the \(count) bytes from \(start) on does not match")
            }
        }
    }
}
