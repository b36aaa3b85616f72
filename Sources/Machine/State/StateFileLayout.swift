// How a saved machine lies in its file: a header, a table of sections, the sections, then RAM as it is mapped. Values only; the
// article "Saved state" in this target's documentation has the same as tables.
import HostSystem
import MachineCore

/// A machine that cannot be saved or restored as asked.
package struct MachineStateError: Error, Sendable, Equatable, CustomStringConvertible {
    package let operation: String
    /// The part of the file that is at fault; nil: none in particular.
    package let section: String?
    package let reason: String
    /// What to do about it; empty where nothing is known.
    package let remedy: String

    package init(_ operation: String, section: String? = nil, reason: String, remedy: String = "") {
        self.operation = operation
        self.section = section
        self.reason = reason
        self.remedy = remedy
    }

    package var description: String {
        "\(operation) the machine: \(section.map { "section \($0): " } ?? "")\(reason) (caller)" + (remedy.isEmpty ? "" : ": \(remedy)")
    }

    static func damaged(_ section: String, _ reason: String) -> MachineStateError {
        MachineStateError("restore", section: section, reason: reason, remedy: "the file is damaged; take another copy, or start the machine anew")
    }
}

/// One part of a saved machine, with the version of its owner's fields.
package struct StateSection: Sendable, Equatable {
    package var name: String
    package var version: UInt32
    package var bytes: [UInt8]
}

/// What the file holds besides devices, vCPUs and interrupt controllers.
package enum StateSectionName {
    package static let header = "header", table = "table"
    package static let machine = "machine", nodes = "nodes", layout = "ram-layout", ram = "ram", controllers = "interrupt-controllers"
    package static func vcpu(_ index: Int) -> String { "vcpu-\(index)" }
}

/// The first 64 bytes. Magic, length and checksum stay where they are in every version, so that a newer one is known for what it is.
package struct StateHeader: Sendable, Equatable {
    package static let magic = Array("APUSSTAT".utf8)
    package static let formatVersion: UInt32 = 1
    package static let byteCount = 64
    private static let checksumOffset = 60
    /// More than 64 vCPUs and every device there is; bounds what damage may ask for.
    static let sectionLimit = 1024
    static let tableLimit = 1 << 20

    package var version = StateHeader.formatVersion
    package var fileByteCount: UInt64 = 0
    package var sectionCount: UInt32 = 0
    package var tableByteCount: UInt32 = 0
    package var tableChecksum: UInt32 = 0

    package init() {}

    package var bytes: [UInt8] {
        var writer = StateWriter()
        for byte in Self.magic { writer.write(byte) }
        writer.write(version)
        writer.write(sectionCount)
        writer.write(fileByteCount)
        writer.write(tableByteCount)
        writer.write(tableChecksum)
        let rest = [UInt8](repeating: 0, count: Self.checksumOffset - writer.bytes.count)
        let checksum = Checksum.of(writer.bytes + rest)
        var end = StateWriter()
        end.write(checksum)
        return writer.bytes + rest + end.bytes
    }

    /// - Parameter actualByteCount: the file's length.
    package init(_ bytes: [UInt8], actualByteCount: UInt64) throws(MachineStateError) {
        guard bytes.count == Self.byteCount else {
            throw MachineStateError("restore", section: StateSectionName.header, reason: "\(actualByteCount) bytes are no saved state", remedy: "give the file that was saved to")
        }
        guard Array(bytes.prefix(Self.magic.count)) == Self.magic else {
            // The header is written last.
            let isEmpty = bytes.allSatisfy { $0 == 0 }
            throw MachineStateError(
                "restore", section: StateSectionName.header, reason: isEmpty ? "the save was not finished" : "this is no saved state",
                remedy: isEmpty ? "save again, or start the machine anew" : "give the file that was saved to")
        }
        var reader = StateReader(section: StateSectionName.header, bytes: bytes)
        do throws(DeviceStateError) {
            _ = try reader.read(UInt64.self)
            version = try reader.read()
            sectionCount = try reader.read()
            fileByteCount = try reader.read()
            tableByteCount = try reader.read()
            tableChecksum = try reader.read()
            var end = StateReader(section: StateSectionName.header, bytes: Array(bytes[Self.checksumOffset...]))
            guard try end.read(UInt32.self) == Checksum.of(Array(bytes[..<Self.checksumOffset])) else {
                throw DeviceStateError(section: StateSectionName.header, reason: "its checksum does not match")
            }
        } catch {
            throw .damaged(error.section, error.reason)
        }
        guard version == Self.formatVersion else {
            throw MachineStateError(
                "restore", section: StateSectionName.header, reason: "the file has format \(version), this program knows \(Self.formatVersion)",
                remedy: "restore it with the program that saved it, or a later one")
        }
        guard fileByteCount == actualByteCount else {
            throw .damaged(StateSectionName.header, "the file has \(actualByteCount) bytes, it was saved with \(fileByteCount)")
        }
        guard sectionCount <= UInt32(Self.sectionLimit), tableByteCount <= UInt32(Self.tableLimit) else {
            throw .damaged(StateSectionName.header, "\(sectionCount) sections in a table of \(tableByteCount) bytes")
        }
    }
}

/// Where a section lies.
package struct StateTableEntry: Sendable, Equatable {
    package var name: String
    package var version: UInt32
    /// From the file's start.
    package var offset: UInt64
    package var byteCount: UInt64
    /// CRC-32C of the bytes; 0 for RAM, whose chunks have their own.
    package var checksum: UInt32

    package init(name: String, version: UInt32, offset: UInt64, byteCount: UInt64, checksum: UInt32) {
        self.name = name
        self.version = version
        self.offset = offset
        self.byteCount = byteCount
        self.checksum = checksum
    }

    static func encode(_ entries: [StateTableEntry]) -> [UInt8] {
        var writer = StateWriter()
        for entry in entries {
            writer.write(entry.name)
            writer.write(entry.version)
            writer.write(entry.offset)
            writer.write(entry.byteCount)
            writer.write(entry.checksum)
        }
        return writer.bytes
    }

    /// Entries that lie within the file and have a name of their own.
    static func decode(_ bytes: [UInt8], of header: StateHeader) throws(MachineStateError) -> [StateTableEntry] {
        guard bytes.count == Int(header.tableByteCount), Checksum.of(bytes) == header.tableChecksum else {
            throw .damaged(StateSectionName.table, "its checksum does not match")
        }
        var reader = StateReader(section: StateSectionName.table, bytes: bytes)
        var entries: [StateTableEntry] = []
        var names: Set<String> = []
        do throws(DeviceStateError) {
            for _ in 0..<header.sectionCount {
                let entry = StateTableEntry(
                    name: try reader.readString(limit: 255), version: try reader.read(), offset: try reader.read(), byteCount: try reader.read(),
                    checksum: try reader.read())
                let (end, overflow) = entry.offset.addingReportingOverflow(entry.byteCount)
                guard !overflow, end <= header.fileByteCount else {
                    throw DeviceStateError(section: entry.name, reason: "\(entry.byteCount) bytes at \(entry.offset) leave the file")
                }
                guard names.insert(entry.name).inserted else { throw DeviceStateError(section: entry.name, reason: "it is there twice") }
                entries.append(entry)
            }
        } catch {
            throw .damaged(error.section, error.reason)
        }
        return entries
    }
}
