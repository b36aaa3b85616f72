import Glibc
import GuestMemory
import HostSystem
import MachineConfiguration
import MachineCore
import PCI
import Testing

@testable import Machine

/// What a guest sees of each machine type, against a file: a later version never changes an earlier type. A type that is to differ
/// gets another name. APUS_WRITE_GOLDEN=1 writes the files anew, for a type that no released version has had.
///
/// Compared: configuration space of every function after reset, ACPI tables, fw_cfg's items and files.
struct GoldenTests {
    private static let directory = #filePath.split(separator: "/").dropLast().reduce("") { $0 + "/" + $1 } + "/Golden"
    private static let variants = ["bare", "full", "nodes"]

    /// Two nodes, the second with three of four vCPUs.
    private static let nodes = NUMAConfiguration(
        nodes: [NUMAConfiguration.Node(cpus: [0], memoryMiB: 16), NUMAConfiguration.Node(cpus: [1, 2, 3], memoryMiB: 48)],
        distances: [NUMAConfiguration.Distance(from: 0, to: 1, value: 25)])

    /// One of everything that needs no network of the host's.
    private static func fill(_ configuration: inout GuestConfiguration) throws {
        configuration.rng = true
        configuration.balloon = true
        configuration.board = BoardConfiguration(
            hpet: true, watchdog: .reset, panic: true, generationID: MachineUUID("3f0a2b1c-0001-4c4b-9f5e-0123456789ab"),
            debugConsole: Int(try BoardFixture.file(byteCount: 0)), debugExit: true)
        let buses: [DiskBus] =
            switch configuration.type {
            case .direct: [.virtio]
            case .pc: [.virtio, .scsi, .sata, .ide, .nvme, .fdc]
            case .q35: [.virtio, .scsi, .sata, .nvme, .fdc]
            }
        for bus in buses {
            configuration.disks.append(DiskConfiguration(id: bus.rawValue, fd: Int(try BoardFixture.file(byteCount: 1440 << 10)), bus: bus))
            guard bus == .sata || bus == .ide || bus == .scsi else { continue }
            configuration.disks.append(
                DiskConfiguration(
                    id: "\(bus.rawValue)-cd", fd: Int(try BoardFixture.file(byteCount: 1 << 20)), readOnly: true, bus: bus, isOptical: true, bootIndex: 1))
        }
    }

    /// The least multiboot image, so that a machine without firmware places its tables.
    private static var kernel: [UInt8] {
        func little(_ values: UInt32...) -> [UInt8] { values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) } } }
        return little(0x1BAD_B002, 0x1_0000, 0 &- 0x1BAD_B002 &- 0x1_0000, 0x10_0000, 0x10_0000, 0, 0, 0x10_0020) + [0xF4]
    }

    private static func hex(_ value: UInt64, _ digits: Int) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: max(digits - text.count, 0)) + text
    }

    /// Lines of 16 bytes, those of zeroes left out.
    private static func lines(_ bytes: [UInt8]) -> [String] {
        stride(from: 0, to: bytes.count, by: 16).compactMap { start in
            let line = bytes[start..<min(start + 16, bytes.count)]
            guard line.contains(where: { $0 != 0 }) else { return nil }
            return "  \(hex(UInt64(start), 3)): " + line.map { hex(UInt64($0), 2) }.joined(separator: " ")
        }
    }

    /// FNV-1a, for what is too long to be written out.
    private static func digest(_ bytes: [UInt8]) -> String {
        hex(bytes.reduce(UInt64(0xCBF2_9CE4_8422_2325)) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }, 16)
    }

    private static func table(_ bytes: [UInt8]) -> [String] {
        let name = String(decoding: bytes.prefix(4), as: UTF8.self)
        return ["table \(name): \(bytes.count) bytes, digest \(digest(bytes))"] + (name == "DSDT" ? [] : lines(bytes))
    }

    private static func number(_ bytes: some Collection<UInt8>) -> Int { bytes.reversed().reduce(0) { $0 << 8 | Int($1) } }

    /// The tables of firmware's file, one after the other.
    private static func tables(in file: [UInt8]) -> [String] {
        var found: [String] = [], at = 0
        while at + 8 <= file.count {
            let count = number(file[(at + 4)..<(at + 8)])
            guard file[at] != 0, count >= 8, at + count <= file.count else {
                at += 16
                continue
            }
            found += table(Array(file[at..<(at + count)]))
            at = (at + count + 15) & ~15
        }
        return found
    }

    /// The tables that a machine without firmware placed, from the RSDP on.
    private static func placedTables(_ memory: GuestMemory) throws -> [String] {
        func read(_ address: Int) throws -> [UInt8] {
            try memory.bytes(at: GuestAddress(UInt64(address)), count: number(try memory.bytes(at: GuestAddress(UInt64(address) + 4), count: 4)))
        }
        let root = try memory.bytes(at: GuestAddress(0xE_0000), count: 36)
        let xsdt = try read(number(root[24..<32]))
        var found = ["table RSDP: 36 bytes, digest \(digest(root))"] + table(xsdt)
        for entry in stride(from: 36, to: xsdt.count, by: 8) {
            let bytes = try read(number(xsdt[entry..<(entry + 8)]))
            found += table(bytes)
            if bytes.starts(with: Array("FACP".utf8)) { found += table(try read(number(bytes[140..<148]))) }
        }
        return found
    }

    private static func dump(_ type: MachineType, _ variant: String) throws -> [String] {
        let fixture = try BoardFixture(type, memoryMiB: 64, loadsKernel: type == .direct) { configuration in
            if variant == "full" { try fill(&configuration) }
            if variant == "nodes" { (configuration.cpu, configuration.numa) = (CPUConfiguration(count: 4), nodes) }
            if type == .direct { configuration.kernel = Int(try BoardFixture.file(kernel, byteCount: kernel.count)) }
        }
        try fixture.driver.perform(.reset)
        var lines = ["\(type.rawValue), \(variant): 64 MiB, \(fixture.machine.configuration.cpu.count) vCPU"]
        for (address, function) in fixture.board.bus.all {
            lines.append("function \(address)")
            lines += Self.lines((0..<256).map { UInt8(truncatingIfNeeded: function.readConfiguration(offset: $0, width: .byte)) })
        }
        guard type != .direct else { return lines + (try placedTables(fixture.board.memory)) }
        for key: UInt16 in [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x0E, 0x0F, 0x8002] {
            fixture.write(0x510, UInt64(key), .word)
            lines.append("item \(hex(UInt64(key), 4)): " + (0..<16).map { _ in hex(fixture.read(0x511), 2) }.joined(separator: " "))
        }
        let files = fixture.firmwareDirectory
        for (name, entry) in files.sorted(by: { $0.value.key < $1.value.key }) {
            let bytes = fixture.firmwareFile(name) ?? []
            lines.append("file \(hex(UInt64(entry.key), 4)) \(name): \(entry.byteCount) bytes, digest \(digest(bytes))")
            if name == "bootorder" { lines += String(decoding: bytes.dropLast(), as: UTF8.self).split(separator: "\n").map { "  \($0)" } }
            if name == "etc/e820" { lines += Self.lines(bytes) }
        }
        return lines + tables(in: fixture.firmwareFile("etc/acpi/tables") ?? [])
    }

    private static func read(_ path: String) -> [String]? {
        guard let file = fopen(path, "r") else { return nil }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes.prefix(count), as: UTF8.self).split(separator: "\n").map(String.init)
    }

    @Test(arguments: MachineType.allCases, variants) func aTypeIsWhatItWas(type: MachineType, variant: String) throws {
        let now = try Self.dump(type, variant), path = "\(Self.directory)/\(type.rawValue)-\(variant).txt"
        if MonitorProcess.setting("APUS_WRITE_GOLDEN") == "1" {
            let file = try #require(fopen(path, "w"))
            let bytes = Array((now.joined(separator: "\n") + "\n").utf8)
            #expect(fwrite(bytes, 1, bytes.count, file) == bytes.count)
            fclose(file)
        }
        let golden = try #require(Self.read(path), "\(path) is missing; APUS_WRITE_GOLDEN=1 makes it")
        let gone = now.difference(from: golden).removals.map { change -> String in
            if case .remove(let offset, let line, _) = change { return "-\(offset + 1): \(line)" }
            return ""
        }
        let new = now.difference(from: golden).insertions.map { change -> String in
            if case .insert(let offset, let line, _) = change { return "+\(offset + 1): \(line)" }
            return ""
        }
        #expect(now == golden, "a guest of \(type.rawValue) sees something else than before:\n\((gone + new).prefix(60).joined(separator: "\n"))")
    }
}
